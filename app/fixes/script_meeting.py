"""Cures of where the ranks meet: ports, addresses, init_method."""

from __future__ import annotations

import ast
import re

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import Text, argument
from ddp_assist.probes.network.ports import free_port
from ddp_assist.probes.script.facts import SETTERS

TCP_HERE = "tcp://127.0.0.1:29500"


def same_port(draft: Draft) -> None:
    if "mix" in draft.data:
        draft.file(draft.data["mix_file"]).replace(draft.data["mix"], draft.data["keep"])
        return
    if draft.data.get("picked"):
        try:
            _pick_once(draft)
        except NoEdit:
            _one_for_all(draft)
        return
    port, what = draft.data["ports"][0], draft.data["variable"]
    plain = what == "the store's port"
    draft.text.replace(draft.data["value_span"], port if plain else f'"{port}"')


def _one_for_all(draft: Draft) -> None:
    """One number, which is free here, in place of what each rank picks for itself."""
    free, place, what = free_port(), draft.data.get("value_span"), draft.data["variable"]
    plan = draft.situation.target.plan
    if free is None or place is None:
        raise NoEdit
    if what == "MASTER_PORT" and plan is not None and plan.launcher in SETTERS:
        statement = draft.text.statement_at(draft.place[0])
        if statement is None:
            raise NoEdit
        draft.text.replace(draft.text.place(statement), _softly(draft.text, statement))
    elif what == "init_method":
        head, brace, rest = str(draft.data.get("pattern")).rpartition("{}")
        if not brace or rest or "{}" in head:
            raise NoEdit
        draft.text.replace(place, f'"{head}{free}"')
    else:
        draft.text.replace(place, str(free) if what == "the store's port" else f'"{free}"')


def _pick_once(draft: Draft) -> None:
    """Move `port = pick()` from the worker to where the workers are started."""
    text = draft.text
    tree = text.source.tree
    functions = (
        [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.FunctionDef) and n.lineno <= draft.place[0] <= (n.end_lineno or 0)
        ]
        if tree
        else []
    )
    if not functions:
        raise NoEdit
    worker = functions[-1]
    names = {
        n.id
        for n in ast.walk(text.statement_at(draft.place[0]) or worker)
        if isinstance(n, ast.Name)
    }
    picks = [
        s
        for s in worker.body
        if isinstance(s, ast.Assign)
        and isinstance(s.value, ast.Call)
        and not s.value.args
        and len(s.targets) == 1
        and isinstance(s.targets[0], ast.Name)
        and s.targets[0].id in names
    ]
    starts = [
        n
        for n in ast.walk(tree or worker)
        if isinstance(n, ast.Call)
        and any(
            isinstance(a, ast.Name) and a.id == worker.name
            for a in [*n.args, *(k.value for k in n.keywords)]
        )
    ]
    if len(picks) != 1 or len(starts) != 1 or worker.args.defaults or worker.args.vararg:
        raise NoEdit
    given = argument(starts[0], "args", 1)
    if not isinstance(given, ast.Tuple) or getattr(starts[0].func, "attr", "") != "spawn":
        raise NoEdit
    pick = picks[0]
    name = pick.targets[0].id  # type: ignore[attr-defined]
    text.delete_lines(pick.lineno, pick.end_lineno or pick.lineno)
    last = worker.args.args[-1]
    end = text.place(last)[2:]
    text.replace([*end, *end], f", {name}")
    inner = [text.source.code(e) for e in given.elts]
    text.replace(text.place(given), f"({', '.join([*inner, text.source.code(pick.value)])})")


def setdefault(draft: Draft) -> None:
    text = draft.text
    if draft.data["variable"] == "init_method":
        call = draft.call
        node = argument(call, "init_method", 1)
        if node is None:
            raise NoEdit
        text.replace(text.place(node), '"env://"')
        return
    done: set[int] = set()
    for place in draft.data["spans"]:
        statement = text.statement_at(place[0])
        if statement is None or statement.lineno in done:
            continue
        done.add(statement.lineno)
        soft = _softly(text, statement)
        text.replace(text.place(statement), soft)


def _pairs(statement: ast.stmt) -> list[tuple[ast.Subscript, ast.expr]]:
    """`environ[A], environ[B] = a, b`, item by item; nothing of another statement."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return []
    to, value = statement.targets[0], statement.value
    if not isinstance(to, ast.Tuple) or not isinstance(value, ast.Tuple):
        return []
    pairs = list(zip(to.elts, value.elts, strict=False))
    items = [(t, v) for t, v in pairs if isinstance(t, ast.Subscript)]
    return items if len(items) == len(to.elts) == len(value.elts) else []


def _softly(text: Text, statement: ast.stmt) -> str:
    pairs = _pairs(statement)
    if pairs:
        lines = [
            f"{text.source.code(t.value)}.setdefault({text.source.code(t.slice)}, "
            f"{text.source.code(v)})"
            for t, v in pairs
        ]
        return f"{text.newline}{text.indentation(statement.lineno)}".join(lines)
    if (
        isinstance(statement, ast.Assign)
        and len(statement.targets) == 1
        and isinstance(statement.targets[0], ast.Subscript)
    ):
        target = statement.targets[0]
        value, key = text.source.code(statement.value), text.source.code(target.slice)
        return f"{text.source.code(target.value)}.setdefault({key}, {value})"
    if (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Attribute)
    ):
        call = statement.value
        owner = text.source.code(statement.value.func.value)
        if statement.value.func.attr == "update":
            told = [
                (repr(k.arg).replace("'", '"'), text.source.code(k.value))
                for k in call.keywords
                if k.arg
            ]
            if len(call.args) == 1 and not told and isinstance(call.args[0], ast.Name):
                inner = f"{text.newline}{text.indentation(statement.lineno)}    "
                table_code = text.source.code(call.args[0])
                head = f"for name, value in {table_code}.items():"
                return f"{head}{inner}{owner}.setdefault(name, value)"
            for table in call.args:
                if not isinstance(table, ast.Dict):
                    raise NoEdit
                told += [
                    (text.source.code(k), text.source.code(v))
                    for k, v in zip(table.keys, table.values, strict=True)
                    if k
                ]
            lines = [f"{owner}.setdefault({key}, {value})" for key, value in told]
            return f"{text.newline}{text.indentation(statement.lineno)}".join(lines)
    raise NoEdit


def init_method(draft: Draft) -> None:
    text, value = draft.text, draft.data["value"]
    place = draft.data["value_span"]
    node = text.node_at(place, ast.Constant)
    right = with_scheme(value)
    if right is None or "{}" in right or list(place) == draft.place:
        raise NoEdit
    code = text.get(place)
    if node is not None:
        text.replace(place, f'"{right}"')
    elif not value:
        raise NoEdit
    elif right.endswith(value):
        text.replace(place, f'"{right.removesuffix(value)}" + {code}')
    elif right.startswith(value):
        text.replace(place, f'{code} + "{right.removeprefix(value)}"')
    else:
        text.replace(place, f'"{right}"')


def with_scheme(value: str) -> str | None:
    """What was meant by an init_method, where its text leaves no doubt."""
    scheme, separator, rest = value.partition("://")
    if not value:
        return "env://"
    if not separator and value.startswith("/"):
        return f"file://{value}"
    if scheme == "file" and separator:
        return f"file:///{rest}"
    if re.match(r"(tcp|env|file):/?[^/]", value) and not separator:
        return re.sub(r"^(tcp|env|file):/?", r"\1://", value)
    if scheme == "tcp" and separator:
        return f"tcp://{rest.rstrip('/:')}:29500" if re.fullmatch(r"[\w.-]+[:/]?", rest) else None
    place = rest if separator else value
    return f"tcp://{place}" if re.search(r":\d+$", place) else None


def fresh_file(draft: Draft) -> None:
    plan = draft.situation.target.plan
    nodes = plan.nnodes[1] if plan is not None and plan.nnodes else 1
    call = draft.call
    if nodes > 1 or argument(call, "rank", 4) is None or argument(call, "init_method", 1) is None:
        raise NoEdit
    draft.text.replace(draft.data["value_span"], f'"{TCP_HERE}"')


def in_range(draft: Draft) -> None:
    text, place = draft.text, draft.data["value_span"]
    node = text.node_at(place, ast.Constant)
    if not isinstance(node, ast.Constant):
        _in_range_at_all(draft)
        return
    if isinstance(node.value, str) and "://" in node.value:
        right = re.sub(r":\d+(?=$|[/?])", ":29500", node.value)
        text.replace(place, f'"{right}"')
    else:
        text.replace(place, '"29500"' if isinstance(node.value, str) else "29500")


def _in_range_at_all(draft: Draft) -> None:
    """A port that exists, written where the one that does not was put together."""
    place, what = draft.data["value_span"], draft.data["variable"]
    if list(place) == draft.place:
        statement = draft.text.statement_at(draft.place[0])
        written = [
            v for t, v in _pairs(statement or ast.Pass()) if draft.text.place(t) == list(place)
        ]
        if len(written) != 1:
            raise NoEdit  # the place is the whole call: there is no expression to replace
        place = draft.text.place(written[0])
    if what == "init_method":
        told = draft.data.get("told")
        right = re.sub(r":\d+(?=$|[/?])", ":29500", told) if told else ""
        if not right:
            raise NoEdit
        draft.text.replace(place, f'"{right}"')
    else:
        draft.text.replace(place, '"29500"' if what == "MASTER_PORT" else "29500")


def replace_port(text: Text, port: int | str, free: str) -> None:
    """Every number, text or address in the file that names the port."""
    for node in ast.walk(text.source.tree or ast.Pass()):
        if not isinstance(node, ast.Constant) or isinstance(node.value, bool):
            continue
        address = re.search(rf"://[^/]*:{port}\b", str(node.value))
        if str(node.value) == str(port) or address:
            written = text.get(text.place(node))
            text.replace(text.place(node), re.sub(rf"(?<!\d){port}(?!\d)", free, written))


def leave_port(text: Text, port: object) -> None:
    """Another port than one that somebody holds."""
    free = free_port()
    if free is not None and isinstance(port, int | str):
        replace_port(text, port, str(free))


CURES = {
    "same-port-for-all": Cure(
        "one MASTER_PORT for all ranks",
        (
            "give every rank the same port: leave the rank out of it",
            "a port that is picked must be picked once, in the parent, and handed to all",
        ),
        same_port,
        ("port-differs-per-rank",),
    ),
    "port-in-range": Cure(
        "a port that exists",
        ("choose a port from 1024 to 65535",),
        in_range,
        ("port-out-of-range",),
    ),
    "setdefault-master": Cure(
        "leave MASTER_ADDR and MASTER_PORT to the launcher where it has set them",
        (
            'use os.environ.setdefault("MASTER_PORT", ...) in place of os.environ["MASTER_PORT"] = '
            "...",
        ),
        setdefault,
        ("launcher-port-overridden",),
    ),
    "env-init-method": Cure(
        "an init_method with a scheme",
        ("write env://, tcp://host:port or file:///absolute/path",),
        init_method,
        ("init-method-malformed",),
    ),
    "fresh-init-file": Cure(
        "meet on a TCP port, which no earlier run leaves behind",
        ("give the file a new name in every run, or remove it before the ranks start",),
        fresh_file,
        ("init-file-stale",),
        "the left-over file stays where it is",
    ),
}
