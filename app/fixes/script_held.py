"""A port that is held from the moment it is found: the parent's store finds it, and keeps it."""

from __future__ import annotations

import ast

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import Text, append_argument, argument, prefix

HERE = '"127.0.0.1"'


def hold(draft: Draft) -> None:
    """What picks a port becomes the port of a store, of which each worker opens a client."""
    text, data = draft.text, draft.data
    if not data.get("init") or data["init_file"] != data["file"]:
        raise NoEdit
    init = text.node_at(data["init"], ast.Call)
    if not isinstance(init, ast.Call):
        raise NoEdit
    picked = text.node_at(data.get("picked") or (), ast.Call)
    statement = text.statement_at(picked.lineno) if isinstance(picked, ast.Call) else None
    if picked is None or statement is None:
        raise NoEdit
    if argument(init, "rank") is None or argument(init, "world_size") is None:
        raise NoEdit
    maker = prefix(text, init) + "TCPStore"
    text.insert(
        statement.lineno,
        f"{text.indentation(statement.lineno)}port_held = {maker}({HERE}, 0, is_master=True, "
        "wait_for_workers=False)",
    )
    text.replace(text.place(picked), "port_held.port")
    _as_client(text, init, maker)


def _as_client(text: Text, init: ast.Call, maker: str) -> None:
    method = argument(init, "init_method", 1)
    port = 'int(os.environ["MASTER_PORT"])'
    named = next((k for k in init.keywords if k.arg == "init_method"), None)
    if isinstance(method, ast.JoinedStr):
        last = method.values[-1]
        if not isinstance(last, ast.FormattedValue):
            raise NoEdit
        port = f"int({text.source.code(last.value)})"
    elif method is not None and not (isinstance(method, ast.Constant) and method.value == "env://"):
        raise NoEdit
    else:
        text.add_import("import os")
    store = f"store={maker}({HERE}, {port}, is_master=False)"
    if named is not None:
        start, end = text.place(named)[:2], text.place(named)[2:]
        text.replace([*start, *end], store)
    elif method is not None:
        text.replace(text.place(method), "None")
        append_argument(text, init, store)
    else:
        append_argument(text, init, store)


CURES = {
    "hold-the-port": Cure(
        "hold the port from the moment it is found",
        (
            "let the store find the port itself and keep it: store = dist.TCPStore(host, 0, "
            "is_master=True, wait_for_workers=False) in the parent",
            "hand store.port to the workers, and there: dist.init_process_group(..., "
            "store=dist.TCPStore(host, port, is_master=False))",
        ),
        hold,
        ("port-lost-after-pick",),
    ),
}
