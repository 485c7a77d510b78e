"""Cures of how a store is used: its own words, keys and values."""

from __future__ import annotations

import ast
import re
from difflib import get_close_matches
from typing import Any

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import Text, argument, names_in, stored_in

_RENAMED = {
    "put": "set",
    "incr": "add",
    "increment": "add",
    "delete": "delete_key",
    "remove": "delete_key",
}


def spelt_as_set(draft: Draft) -> None:
    """The key that is waited for, spelt like the one that is set and that nobody reads."""
    text, key = draft.text, str(draft.data["key"])
    call = text.node_at(draft.place, (ast.Call, ast.Subscript))
    unread = [k for k in draft.data["keys"] if k not in draft.data["read"]]
    meant = get_close_matches(key, unread, 2, 0.7)
    if len(meant) != 1 or re.sub(r"\d", "", meant[0]) == re.sub(r"\d", "", key):
        raise NoEdit  # another number is another key
    places = [
        text.place(n) for n in ast.walk(call or ast.Pass())
        if isinstance(n, ast.Constant) and n.value == key
    ]  # fmt: skip
    if len(places) != 1:
        raise NoEdit
    text.replace(places[0], text.get(places[0]).replace(key, meant[0]))


def key_or_add(draft: Draft) -> None:
    """A counter by add(), which is one step; a mean of what each rank has put under its own key."""
    data = draft.data
    if data.get("late"):
        _before_the_join(draft)
        return
    if data.get("counts"):
        _add_up(draft)
    else:
        _key_per_rank(draft)


def _before_the_join(draft: Draft) -> None:
    """What the workers wait for is set before the parent waits for the workers."""
    text, data = draft.text, draft.data
    late = text.statement_at(draft.place[0])
    for node in ast.walk(text.source.tree or ast.Pass()):
        block = getattr(node, "body", None)
        if not isinstance(block, list) or late not in block or not isinstance(late, ast.Expr):
            continue
        join = next((s for s in block if s.lineno <= data["join"][0] <= (s.end_lineno or 0)), None)
        between = block[block.index(join) : block.index(late)] if join in block else []
        if not between or data["join_file"] != data["file"]:
            raise NoEdit
        if stored_in(*between) & names_in(late):
            raise NoEdit
        rows = text.source.lines[late.lineno - 1 : late.end_lineno]
        text.insert(between[0].lineno, *rows)
        text.delete_lines(late.lineno, late.end_lineno or late.lineno)
        return
    raise NoEdit


def _key_per_rank(draft: Draft) -> None:
    """set(KEY, x) in each rank and get(KEY) / n: a key with the rank, and the sum of them all."""
    text, rank, key = draft.text, draft.data.get("rank"), draft.data["key"]
    written = draft.data["key_span"]
    tree = text.source.tree or ast.Module([], [])
    reads = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        and getattr(n.func, "attr", "") in ("get", "wait", "multi_get")
        and any(isinstance(a, ast.Constant) and a.value == key for a in ast.walk(n))
    ]
    code = text.get(written)
    plain = re.fullmatch(r"""(['"])[^'"{}\\]*\1""", code)
    if not rank or not plain or len(reads) != 1 or getattr(reads[0].func, "attr", "") != "get":
        raise NoEdit
    divided = _divided(text, tree, reads[0])
    if divided is None:
        raise NoEdit
    whole, count = divided
    text.replace(written, f"f{code[:-1]}/{{{rank}}}{code[-1]}")
    given = text.get(text.place(reads[0].args[0]))
    one = text.source.code(whole).replace(given, f"f{given[:-1]}/{{one}}{given[-1]}", 1)
    text.replace(text.place(whole), f"sum({one} for one in range({count}))")


def _divided(text: Text, tree: ast.AST, read: ast.Call) -> tuple[ast.expr, str] | None:
    """The expression around a read that is divided, at once or by its name, and by what."""
    shares = [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)]
    for share in shares:
        if read in ast.walk(share.left):
            return share.left, text.source.code(share.right)
    for made in ast.walk(tree):
        if isinstance(made, ast.Assign) and read in ast.walk(made.value):
            name = ast.unparse(made.targets[0])
            by = {text.source.code(s.right) for s in shares if ast.unparse(s.left) == name}
            return (made.value, by.pop()) if len(by) == 1 else None
    return None


def _add_up(draft: Draft) -> None:
    """get, change, set of a counter becomes the store's own add, which is one step."""
    text = draft.text
    call = draft.call
    statement = text.statement_at(call.lineno)
    value = argument(call, "value", 1)
    if not isinstance(statement, ast.Expr) or value is None:
        raise NoEdit
    if not isinstance(call.func, ast.Attribute) or not call.args:
        raise NoEdit
    owner, key = text.source.code(call.func.value), text.source.code(call.args[0])
    inner = value
    while isinstance(inner, ast.Call) and len(inner.args) == 1:
        inner = inner.args[0]
    held = inner.left if isinstance(inner, ast.BinOp) else inner
    step = text.source.code(inner.right) if isinstance(inner, ast.BinOp) else ""
    if isinstance(inner, ast.BinOp) and not isinstance(inner.op, ast.Add):
        raise NoEdit
    if not isinstance(held, ast.Name):
        if not step or f"{owner}.get({key})" not in text.source.code(held):
            raise NoEdit
        text.replace(text.place(statement), f"{owner}.add({key}, {step})")
        return
    step = _read_and_raised(text, statement, held.id, f"{owner}.get({key})", step)
    text.replace(text.place(statement), f"{owner}.add({key}, {step})")


def _read_and_raised(text: Text, last: ast.stmt, name: str, read: str, step: str) -> str:
    """Takes away `name = int(store.get(key))` and `name += n` above; gives back the step."""
    body = next(
        (
            b
            for n in ast.walk(text.source.tree or ast.Pass())
            for b in (getattr(n, "body", None), getattr(n, "orelse", None))
            if isinstance(b, list) and last in b
        ),
        [],
    )
    for statement in reversed(body[: body.index(last)] if last in body else []):
        code = text.source.code(statement)
        raised = isinstance(statement, ast.AugAssign) and isinstance(statement.op, ast.Add)
        if (
            raised
            and isinstance(statement, ast.AugAssign)
            and ast.unparse(statement.target) == name
        ):
            step = text.source.code(statement.value)
        elif not (isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name):
            raise NoEdit
        text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
        if read in code:
            if not step:
                raise NoEdit
            return step
    raise NoEdit


def set_get(draft: Draft) -> None:
    """Every misuse of the same file at once: one leads to the next."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for finding in draft.alike:
        kinds.setdefault(str(finding.data.get("kind")), []).append(dict(finding.data))
    text = draft.text
    for data in kinds.get("module", []):
        text.replace(data["value_span"], f"dist.{data['name']}")
        text.add_import("import torch.distributed as dist")
    for data in kinds.get("size", []):
        text.replace(data["value_span"], "None")
    for data in kinds.get("method", []):
        _method(text, data)
    for data in kinds.get("digits", []):
        code = text.get(data["value_span"])
        number = code.strip("'\"")
        text.replace(data["value_span"], number if number.isdigit() else f"int({code})")
    for data in kinds.get("with", []):
        _without_with(text, data)
    for data in kinds.get("default", []):
        _checked(text, data)
    for data in kinds.get("timeout", []):
        code = text.get(data["value_span"])
        text.replace(data["value_span"], f"timedelta(seconds={code})")
        text.add_import("from datetime import timedelta")
    tensors: set[str] = set()
    for data in kinds.get("value", []):
        tensors |= _value(text, data)
    if "dict" in kinds:
        _items(text)
    for data in kinds.get("bytes", []):
        _numbers(text, data, tensors)
    _loads(text, tensors)
    for file, *place in sorted(
        {(d["value_file"], *d["value_span"]) for d in kinds.get("text", []) if d["value_span"]}
    ):
        draft.file(file).replace([*place[2:], *place[2:]], ".decode()")


def _method(text: Text, data: dict[str, Any]) -> None:
    place = [data[k] for k in ("line", "col", "end_line", "end_col")]
    call = text.node_at(place, ast.Call)
    statement = text.statement_at(place[0])
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        raise NoEdit
    owner = text.source.code(call.func.value)
    if (
        data["name"] in ("close", "shutdown", "stop", "disconnect")
        and isinstance(statement, ast.Expr)
        and owner.isidentifier()
    ):
        text.replace(text.place(statement), f"del {owner}")
    elif data["name"] in _RENAMED:
        end = text.place(call.func)[2:]
        text.replace([end[0], end[1] - len(call.func.attr), *end], _RENAMED[str(data["name"])])
    else:
        raise NoEdit


def _without_with(text: Text, data: dict[str, Any]) -> None:
    """`with TCPStore(...) as store:` becomes an assignment, and its body moves to the left."""
    statement = text.statement_at(data["line"])
    if not isinstance(statement, ast.With) or len(statement.items) != 1:
        raise NoEdit
    item = statement.items[0]
    if item.optional_vars is None or statement.body[0].lineno == statement.lineno:
        raise NoEdit
    name, made = text.source.code(item.optional_vars), text.source.code(item.context_expr)
    start = [*text.place(statement)[:2], statement.body[0].lineno - 1]
    text.replace([*start, len(text.source.line(start[2]))], f"{name} = {made}")
    text.dedent(statement.body[0].lineno, statement.end_lineno or statement.lineno, start[1])


def _checked(text: Text, data: dict[str, Any]) -> None:
    """get(key, default): the key where it is there, else the default."""
    place = [data[k] for k in ("line", "col", "end_line", "end_col")]
    call = text.node_at(place, ast.Call)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
        raise NoEdit
    if len(call.args) + len(call.keywords) != 2 or not call.args:
        raise NoEdit
    owner, key = text.source.code(call.func.value), text.source.code(call.args[0])
    other = call.args[1] if len(call.args) > 1 else call.keywords[0].value
    got = f"{owner}.get({key}) if {owner}.check([{key}]) else {text.source.code(other)}"
    text.replace(place, f"({got})")


def _value(text: Text, data: dict[str, Any]) -> set[str]:
    place = data["value_span"]
    code = text.get(place)
    what = str(data["value"])
    if what == "a tensor":
        text.add_import("import json")
        text.replace(place, f"json.dumps({code}.tolist())")
        return {_key_before(text, data)}
    if what in ("a dict", "a list", "a tuple", "a list or tuple"):
        text.add_import("import json")
        text.replace(place, f"json.dumps({code})")
    elif what in ("an array",):
        raise NoEdit
    else:
        text.replace(place, f"str({code})")
    return set()


def _key_before(text: Text, data: dict[str, Any]) -> str:
    call = text.node_at([data[k] for k in ("line", "col", "end_line", "end_col")], ast.Call)
    return text.source.code(call.args[0]) if isinstance(call, ast.Call) and call.args else ""


def _loads(text: Text, keys: set[str]) -> None:
    """What was a tensor when it was put in is one again when it is taken out."""
    if not keys:
        return
    for node in ast.walk(text.source.tree or ast.Pass()):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
            and text.source.code(node.args[0]) in keys
        ):
            text.replace(text.place(node), f"torch.tensor(json.loads({text.source.code(node)}))")
            text.add_import("import torch")


def _numbers(text: Text, data: dict[str, Any], tensors: set[str]) -> None:
    place = [data[k] for k in ("line", "col", "end_line", "end_col")]
    node = text.node_at(place, (ast.BinOp, ast.Compare))
    for inner in ast.walk(node or ast.Pass()):
        if (
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Attribute)
            and inner.func.attr == "get"
        ):
            if inner.args and text.source.code(inner.args[0]) in tensors:
                return
            kind = (
                "float" if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else "int"
            )
            text.replace(text.place(inner), f"{kind}({text.source.code(inner)})")
            if isinstance(node, ast.BinOp) and _is_set(text, node):
                start, end = text.place(node)[:2], text.place(node)[2:]
                text.replace([*start, *start], "str(")
                text.replace([*end, *end], ")")
            return
    raise NoEdit


def _is_set(text: Text, value: ast.expr) -> bool:
    """Whether a value is what some store is told to keep."""
    return any(
        isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "set" and value in n.args
        for n in ast.walk(text.source.tree or ast.Pass())
    )


def _items(text: Text) -> None:
    """store[key] = value, store[key] += n and store[key], in the store's own words."""
    tree = text.source.tree or ast.Module([], [])
    stores = _store_names(tree)
    parts = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name) and n.value.id in stores
    ]
    if not parts:
        raise NoEdit
    counters = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign) and node.target in parts:
            counters.add(ast.unparse(node.target.slice))
        elif (
            isinstance(node, ast.Assign)
            and node.targets[0] in parts
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, int)
        ):
            counters.add(ast.unparse(node.targets[0].slice))
    done: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and node.targets[0] in parts:
            target = node.targets[0]
            done.add(target)
            owner, key = text.source.code(target.value), text.source.code(target.slice)
            plain = isinstance(node.value, ast.Constant) and isinstance(
                node.value.value, str | bytes
            )
            value = text.source.code(node.value)
            text.replace(
                text.place(node), f"{owner}.set({key}, {value if plain else f'str({value})'})"
            )
        elif isinstance(node, ast.AugAssign) and node.target in parts:
            if not isinstance(node.op, ast.Add | ast.Sub):
                raise NoEdit
            done.add(node.target)
            owner, key = text.source.code(node.target.value), text.source.code(node.target.slice)
            sign = "-" if isinstance(node.op, ast.Sub) else ""
            text.replace(
                text.place(node), f"{owner}.add({key}, {sign}{text.source.code(node.value)})"
            )
    for part in parts:
        if part not in done and isinstance(part.ctx, ast.Load):
            owner, key = text.source.code(part.value), text.source.code(part.slice)
            got = f"{owner}.get({key})"
            text.replace(
                text.place(part), f"int({got})" if ast.unparse(part.slice) in counters else got
            )


def _store_names(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and re.search(r"(TCP|File|Hash|Prefix)Store$", ast.unparse(node.value.func))
        ):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.arg) and node.arg in ("store", "kv"):
            names.add(node.arg)
    return names


CURES = {
    "store-set-get": Cure(
        "the store's own words: set, get, add, with text or bytes",
        (
            "store.set(key, text), store.get(key) (gives bytes and waits), store.add(key, n) for a "
            "counter; tensors as text or bytes",
        ),
        set_get,
        ("store-misused",),
    ),
    "key-per-rank": Cure(
        "one key for each rank, or a collective",
        (
            'store.set(f"value/{rank}", text) in each rank, and read all of them: get() waits '
            "for a key",
            "or leave the arithmetic to dist.all_reduce; for a counter, store.add(key, 1) is one "
            "step",
        ),
        key_or_add,
        ("store-race",),
    ),
    "set-the-key": Cure(
        "set what is waited for",
        (
            "store.set or store.add the key in some rank before the "
            "others wait for it, or "
            "correct its spelling",
        ),
        spelt_as_set,
        ("store-key-never-set",),
    ),
}
