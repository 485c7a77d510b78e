"""Cures of plain Python mistakes."""

from __future__ import annotations

import ast

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit, NotMine
from ddp_assist.app.fixes.script_meeting import leave_port


def imports(draft: Draft) -> None:
    found = [f for f in draft.alike if f.data.get("kind") == "name"]
    if draft.data.get("kind") == "attribute":
        text, place = draft.text, draft.data["value_span"]
        end, name = place[2:], draft.data["name"]
        text.replace([end[0], end[1] - len(name), *end], draft.data["meant"])
        return
    if draft.data.get("kind") == "name.unbound":
        _global(draft)
        return
    if draft.data.get("kind") != "name":
        raise NotMine
    if not all(f.data.get("add") for f in found):
        raise NoEdit
    for finding in found:
        draft.text.add_import(str(finding.data["add"]))


def _global(draft: Draft) -> None:
    """`global NAME` as the first line of the function that changes it."""
    text, line = draft.text, draft.place[0]
    if not any(
        isinstance(t, ast.Name) and t.id == draft.data["name"]
        for s in (text.source.tree.body if text.source.tree is not None else [])
        if isinstance(s, ast.Assign)
        for t in s.targets
    ):
        raise NoEdit
    around = [
        n
        for n in ast.walk(text.source.tree or ast.Pass())
        if isinstance(n, ast.FunctionDef) and n.lineno < line <= (n.end_lineno or 0)
    ]
    first = max(around, key=lambda n: n.lineno).body[0]
    text.insert(first.lineno, f"{text.indentation(first.lineno)}global {draft.data['name']}")


def empty_body(draft: Draft) -> None:
    header = draft.data.get("header")
    if not isinstance(header, int):
        raise NotMine
    text = draft.text
    tab = "\t" if text.indentation(header).startswith("\t") else "    "
    at = header + 1
    while text.source.line(at).strip().startswith("#"):
        at += 1
    text.insert(at, f"{text.indentation(header)}{tab}pass")


def show_error(draft: Draft) -> None:
    """init_process_group in front of the try, so that its own error is what is seen."""
    text = draft.text
    statement = text.node_at(draft.data["try_span"], ast.Try)
    if not isinstance(statement, ast.Try):
        raise NoEdit
    first = statement.body[0]
    if (
        not first.lineno <= draft.data["init"][0] <= (first.end_lineno or 0)
        or len(statement.body) < 2
    ):
        raise NoEdit
    own = len(text.indentation(first.lineno))
    outer = text.indentation(statement.lineno)
    rows = text.source.lines[first.lineno - 1 : first.end_lineno]
    text.insert(statement.lineno, *(outer + row[own:] for row in rows))
    text.delete_lines(first.lineno, first.end_lineno or first.lineno)
    held = next((f for f in draft.situation.findings if f.key.startswith("port.held")), None)
    if held is not None:
        leave_port(text, held.data.get("port"))


def from_env(draft: Draft) -> None:
    text, data = draft.text, draft.data
    if data.get("kind") == "refused":
        if not any("local" in name for name in data["known"]):
            raise NoEdit
        call = draft.call
        start = text.place(call.args[0])[:2]
        text.replace([*start, *start], f'"{data["spelling"]}", ')
        return
    place = data.get("required_span")
    if place is None or data.get("has_default"):
        raise NoEdit
    text.add_import("import os")
    text.replace(place, 'default=int(os.environ["LOCAL_RANK"])')


CURES = {
    "add-import": Cure(
        "the missing import",
        ("define or import the name before it is used",),
        imports,
        ("name-missing-in-script", "error-masked"),
    ),
    "fill-empty-body": Cure(
        "a body for the empty block",
        ("a block that has nothing to do needs `pass`",),
        empty_body,
        ("name-missing-in-script",),
    ),
    "rename-shadowing-file": Cure(
        "another name for the file",
        ("rename the file (and what imports it), and remove its __pycache__",),
        None,
        ("module-shadowed",),
    ),
    "show-the-error": Cure(
        "the first error stays visible",
        (
            "make the process group in front of the try, and destroy it only where it exists: if "
            "dist.is_initialized()",
            "let a handler raise again what it does not cure",
        ),
        show_error,
        ("error-masked",),
        "the error that was hidden stays, and is now shown",
    ),
    "join-and-check-exitcode": Cure(
        "a job that fails when a worker fails",
        (
            "after join(): sys.exit(max(abs(p.exitcode) for "
            "p in workers)), or start the workers with "
            "mp.spawn",
        ),
        None,
        ("error-masked",),
    ),
    "local-rank-from-env": Cure(
        "LOCAL_RANK from the environment",
        ('make the option optional: default=int(os.environ["LOCAL_RANK"])',),
        from_env,
        ("local-rank-argument",),
    ),
}
