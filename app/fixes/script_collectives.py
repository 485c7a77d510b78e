"""Cures of collectives that not all ranks enter, or not in one order, or as often as the others."""

from __future__ import annotations

import ast
import re

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import Text, argument, imported_as, names_in, stored_in
from ddp_assist.probes.script.known import COLLECTIVES

_PLAIN = ast.Expr | ast.Assign | ast.AugAssign | ast.AnnAssign


def for_all(draft: Draft) -> None:
    """Take the collective out of the branch on the rank, with what it needs."""
    text, place = draft.text, draft.data.get("branch")
    branch = text.node_at(place, ast.If) if place is not None else None
    if _behind_the_else(draft) or _hoisted(draft):
        return
    if not isinstance(branch, ast.If) or not _on_rank(draft, branch):
        _before_the_guard(draft)
        return
    if branch.orelse:
        raise NoEdit
    line = draft.place[0]
    index = next(
        (i for i, s in enumerate(branch.body) if s.lineno <= line <= (s.end_lineno or 0)), None
    )
    if index is None or not _moves(branch.body[index]):
        raise NoEdit
    inside = branch.body[index]
    outer = text.indentation(branch.lineno)
    if draft.data["collective"] == "barrier" and index == len(branch.body) - 1 and index > 0:
        text.delete_lines(inside.lineno, inside.end_lineno or inside.lineno)
        text.insert((branch.end_lineno or 0) + 1, outer + text.source.code(inside))
        return
    moved = _needed(branch.body[: index + 1])
    at_root = _list_at_root(text, draft, text.source.code(branch.test))
    for statement in moved:
        rows = _dedented(text, statement, outer)
        if at_root and statement is inside:
            rows = "\n".join(rows).replace(*at_root, 1).split("\n")
        text.insert(branch.lineno, *rows)
        text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
    if len(moved) == len(branch.body):
        text.delete_lines(branch.lineno, branch.body[0].lineno - 1)


def _behind_the_else(draft: Draft) -> bool:
    """A barrier that ends one branch of an `if` on the rank goes behind both."""
    text, line = draft.text, draft.place[0]
    for node in ast.walk(text.source.tree or ast.Pass()):
        ours = isinstance(node, ast.If) and node.orelse and _on_rank(draft, node)
        last = node.orelse[-1] if ours and isinstance(node, ast.If) else None
        if not isinstance(last, ast.Expr) or last.lineno != line or not isinstance(node, ast.If):
            continue
        if draft.data["collective"] != "barrier" or isinstance(node.orelse[0], ast.If):
            continue
        alone = len(node.orelse) == 1
        first = node.body[-1].end_lineno or node.lineno if alone else last.lineno - 1
        text.delete_lines(first + 1, last.end_lineno or line)
        outer = text.indentation(node.lineno)
        text.insert((node.end_lineno or line) + 1, outer + text.source.code(last))
        return True
    return False


_HARMLESS = ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Return | ast.For | ast.Pass
_SPEAKS = re.compile(r"print|log|save|write|open|dump|send|step|backward|exit|remove|mkdir", re.I)


def _hoisted(draft: Draft) -> bool:
    """What one rank alone asks a function for, asked by all, in front of the condition."""
    text = draft.text
    tree = text.source.tree or ast.Module([], [])
    frames = [text.node_at(p, ast.Call) for f, p in draft.data["frames"] if f == draft.data["file"]]
    for call in reversed(frames):
        around = [
            n for n in ast.walk(tree)
            if text.place(n) in draft.data["on_rank"] and call is not None and call in ast.walk(n)
        ] if isinstance(call, ast.Call) else []  # fmt: skip
        if not around or not isinstance(call, ast.Call):
            continue
        if not _harmless(tree, _last(call.func)):
            return False
        widest = min(around, key=lambda n: (n.lineno, n.col_offset))  # type: ignore[attr-defined]
        statement = text.statement_at(widest.lineno)  # type: ignore[attr-defined]
        whole = text.statement_at(call.lineno)
        if statement is None or whole is None or names_in(call) & stored_in(statement):
            return False
        test = {id(n) for w in around if isinstance(w, ast.If) for n in ast.walk(w.test)}
        if id(call) in test or whole.lineno != call.lineno:
            return False
        name = "of_all_ranks"
        if name in names_in(tree):
            return False
        indent = text.indentation(statement.lineno)
        if isinstance(whole, ast.Expr) and whole.value is call:
            return False
        text.insert(statement.lineno, f"{indent}{name} = {text.source.code(call)}")
        text.replace(text.place(call), name)
        return True
    return False


def _harmless(tree: ast.Module, name: str) -> bool:
    """Whether the functions of that name only reckon, so that all ranks may run them."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
    calls = [n for f in found for n in ast.walk(f) if isinstance(n, ast.Call)]
    plain = all(
        isinstance(s, _HARMLESS) or _collective(s) or isinstance(s, ast.Expr)
        for f in found
        for s in ast.walk(f)
        if isinstance(s, ast.stmt) and s is not f
    )
    return bool(found) and plain and not any(_SPEAKS.search(_last(c.func)) for c in calls)


def _before_the_guard(draft: Draft) -> None:
    """`if rank != 0: return` goes behind the collective, with what the collective needs."""
    text, line = draft.text, draft.place[0]
    for node in ast.walk(text.source.tree or ast.Pass()):
        block = getattr(node, "body", None)
        if not isinstance(block, list):
            continue
        for index, guard in enumerate(block):
            leaves = isinstance(guard, ast.If) and not guard.orelse and _on_rank(draft, guard)
            if not leaves or not isinstance(guard.body[-1], ast.Return | ast.Continue):
                continue
            rest = block[index + 1 :]
            at = next(
                (i for i, s in enumerate(rest) if s.lineno <= line <= (s.end_lineno or 0)), None
            )
            if at is None or not _moves(rest[at]):
                continue
            outer = text.indentation(guard.lineno)
            for statement in _needed(rest[: at + 1]):
                text.insert(guard.lineno, *_dedented(text, statement, outer))
                text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
            return
    raise NoEdit


def _on_rank(draft: Draft, branch: ast.If) -> bool:
    """Whether this `if` was seen to go another way on another rank, by itself."""
    rank = draft.text.place(branch) in draft.data.get("on_rank", ())
    return rank and not isinstance(branch.test, ast.BoolOp)


def _moves(statement: ast.stmt) -> bool:
    """Whether a statement does nothing but the collective, so that all ranks may do it."""
    if isinstance(statement, ast.For):
        return not statement.orelse and all(_collective(s) for s in statement.body)
    return isinstance(statement, ast.Expr | ast.Assign)


def _collective(statement: ast.stmt) -> bool:
    return isinstance(statement, _PLAIN) and any(
        isinstance(n, ast.Call) and _last(n.func) in COLLECTIVES for n in ast.walk(statement)
    )


def _last(node: ast.expr) -> str:
    return getattr(node, "attr", getattr(node, "id", ""))


def _list_at_root(text: Text, draft: Draft, test: str) -> tuple[str, str] | None:
    """The list that only the root may give to gather and scatter, before and after."""
    place = {"gather": 1, "gather_object": 1, "scatter": 1, "scatter_object_list": 1}
    if draft.data["collective"] not in place:
        return None
    given = argument(draft.call, "", place[draft.data["collective"]])
    for name in ("gather_list", "object_gather_list", "scatter_list", "scatter_object_input_list"):
        given = argument(draft.call, name) or given
    if given is None or isinstance(given, ast.IfExp):
        return None
    code = text.source.code(given)
    if text.source.code(draft.call).count(code) != 1:
        raise NoEdit
    return code, f"{code} if {test} else None"


def _needed(body: list[ast.stmt]) -> list[ast.stmt]:
    """The last statement, and those before it that make what it uses."""
    needed, names = [body[-1]], names_in(body[-1])
    for statement in reversed(body[:-1]):
        if stored_in(statement) & names:
            if not isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
                raise NoEdit
            needed.insert(0, statement)
            names |= names_in(statement)
    return needed


def _dedented(text: Text, statement: ast.stmt, outer: str) -> list[str]:
    own = len(text.indentation(statement.lineno))
    rows = text.source.lines[statement.lineno - 1 : statement.end_lineno]
    return [outer + row[own:] if row[:own].isspace() else row for row in rows]


def same_order(draft: Draft) -> None:
    """The collectives of one block in the order of the other, where both hold the same ones."""
    text, data = draft.text, draft.data
    if data.get("other_file") != data["file"]:
        raise NoEdit
    first = _block_of(text, draft.place)
    second = _block_of(text, data["other_span"])
    if first is second:
        raise NoEdit
    wanted = [(_name(s), s) for s in first if _collective(s)]
    slots = [s for s in second if _collective(s)]
    if sorted(n for n, _ in wanted) != sorted(map(_name, slots)):
        raise NoEdit
    for other in second[second.index(slots[0]) : second.index(slots[-1])]:
        if other not in slots and any(_touch(other, slot) for slot in slots):
            raise NoEdit
    left, ordered = list(slots), []
    for name, _ in wanted:
        ordered.append(next(s for s in left if _name(s) == name))
        left.remove(ordered[-1])
    if any(a.lineno == b.lineno for a in second for b in second if a is not b):
        raise NoEdit  # several statements on a line
    for slot, statement in zip(slots, ordered, strict=True):
        if slot is not statement:
            text.replace(text.place(slot), text.source.code(statement))


def _block_of(text: Text, place: list[int]) -> list[ast.stmt]:
    """The innermost list of statements one of which is the call itself."""
    found: list[ast.stmt] = []
    for node in ast.walk(text.source.tree or ast.Pass()):
        for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
            for statement in block if isinstance(block, list) else ():
                if isinstance(statement, _PLAIN) and any(
                    isinstance(n, ast.Call) and text.place(n) == list(place)
                    for n in ast.walk(statement)
                ):
                    found = block or []
    if not found:
        raise NoEdit
    return found


def _name(statement: ast.stmt) -> str:
    return next(
        _last(n.func)
        for n in ast.walk(statement)
        if isinstance(n, ast.Call) and _last(n.func) in COLLECTIVES
    )


def _touch(one: ast.stmt, other: ast.stmt) -> bool:
    return bool((stored_in(one) | stored_in(other)) & names_in(one) & names_in(other))


def as_often(draft: Draft) -> None:
    """A loop that all ranks leave together: under Join, or after the fewest rounds of all."""
    text, model = draft.text, draft.data.get("model")
    loop = text.statement_at(draft.place[0])
    if draft.data.get("bound_span"):
        _agreed_bound(draft, text, loop)
    elif not isinstance(loop, ast.For | ast.While) or loop.lineno != draft.place[0]:
        raise NoEdit
    elif model:
        text.add_import("from torch.distributed.algorithms.join import Join")
        text.insert(loop.lineno, f"{text.indentation(loop.lineno)}with Join([{model}]):")
        text.indent(loop.lineno, loop.end_lineno or loop.lineno)
    elif isinstance(loop, ast.For) and draft.data.get("steps"):
        _fewest_rounds(text, loop)
    else:
        raise NoEdit


def _agreed_bound(draft: Draft, text: Text, at: ast.stmt | None) -> None:
    """The limit of a `while`, or of a `break`, as the smallest of all ranks."""
    bound = text.node_at(draft.data["bound_span"], ast.Name)
    loops = [
        n
        for n in ast.walk(text.source.tree or ast.Pass())
        if isinstance(n, ast.For | ast.While)
        and at is not None
        and n.lineno <= at.lineno <= (n.end_lineno or 0)
    ]
    if not isinstance(bound, ast.Name) or not loops:
        raise NoEdit
    loop = max(loops, key=lambda n: n.lineno)
    if bound.id in stored_in(loop):
        raise NoEdit
    rows = _smallest(text, f"shared_{bound.id}", bound.id)
    indent = text.indentation(loop.lineno)
    text.insert(
        loop.lineno, *(indent + row for row in (*rows, f"{bound.id} = int(shared_{bound.id})"))
    )


def _smallest(text: Text, name: str, code: str) -> list[str]:
    """Lines that make a number the smallest of all ranks."""
    if "nccl" in text.source.text or "cuda" in text.source.text:
        raise NoEdit  # on which GPU the number must lie is not ours to guess
    dist = imported_as(text, "torch.distributed")
    text.add_import("import torch")
    return [
        f"{name} = torch.tensor({code})",
        f"{dist}.all_reduce({name}, op={dist}.ReduceOp.MIN)",
    ]


def _fewest_rounds(text: Text, loop: ast.For) -> None:
    """`for x in rows` takes as many rows as the rank with the fewest has."""
    over = loop.iter
    wrapped = isinstance(over, ast.Call) and _last(over.func) == "enumerate" and len(over.args) == 1
    rows = over.args[0] if wrapped and isinstance(over, ast.Call) else over
    code, indent = text.source.code(rows), text.indentation(loop.lineno)
    lines: list[str] = []
    if isinstance(rows, ast.Call) and _last(rows.func) == "range":
        if len(rows.args) != 1 or rows.keywords:
            raise NoEdit
        lines = _smallest(text, "rounds", text.source.code(rows.args[0]))
        text.replace(text.place(rows), "range(int(rounds))")
    else:
        if not isinstance(rows, ast.Name | ast.Attribute):
            lines, code = [f"share = {code}"], "share"
        lines += _smallest(text, "rounds", f"len({code})")
        text.add_import("from itertools import islice")
        text.replace(text.place(rows), f"islice({code}, int(rounds))")
    if {"rounds", "share"} & names_in(text.source.tree or ast.Pass()):
        raise NoEdit
    text.insert(loop.lineno, *(indent + line for line in lines))


_OF_OBJECTS = {
    "all_gather": {"tensor_list": "object_list", "tensor": "obj"},
    "gather": {"tensor": "obj", "gather_list": "object_gather_list"},
}
"""Collectives that have a form in which each rank gives what it likes, and its parameters."""


def same_shape(draft: Draft) -> None:
    """Sizes without the rank in them; what is gathered may differ as an object."""
    data, text = draft.data, draft.text
    call = text.node_at(draft.place, ast.Call)
    name = _last(call.func) if isinstance(call, ast.Call) else ""
    if isinstance(call, ast.Call) and name in _OF_OBJECTS and not data.get("model"):
        _objects(text, call, name)
        return
    if not data.get("mix"):
        _from_rank_zero(draft)
        return
    draft.file(data["mix_file"]).replace(data["mix"], data["keep"])


def _from_rank_zero(draft: Draft) -> None:
    """The sizes that rank 0 has told to all, right before the layer that is made of them."""
    text, names = draft.text, list(draft.data.get("names") or ())
    call = draft.call
    statement = text.statement_at(call.lineno)
    if not names or statement is None or "nccl" in text.source.text:
        raise NoEdit
    scope: ast.AST = text.source.tree or ast.Pass()
    for node in ast.walk(scope):
        if isinstance(node, ast.FunctionDef) and call in ast.walk(node):
            scope = node
    if not set(names) <= stored_in(*ast.iter_child_nodes(scope)):
        raise NoEdit
    indent, listed = text.indentation(statement.lineno), ", ".join(names)
    text.add_import("import torch")
    dist = imported_as(text, "torch.distributed")
    text.insert(
        statement.lineno,
        f"{indent}sizes = torch.tensor([{listed}])",
        f"{indent}{dist}.broadcast(sizes, src=0)",
        f"{indent}[{listed}] = sizes.tolist()",
    )


def _objects(text: Text, call: ast.Call, name: str) -> None:
    if "nccl" in text.source.text or "cuda" in text.source.text:
        raise NoEdit  # an object lands on the GPU of its sender
    if any(k.arg == "async_op" for k in call.keywords):
        raise NoEdit
    end = text.place(call.func)[2:]
    text.replace([end[0], end[1] - len(name), *end], f"{name}_object")
    for keyword in call.keywords:
        meant = _OF_OBJECTS[name].get(keyword.arg or "")
        if meant is not None:
            line, col = text.place(keyword)[:2]
            text.replace([line, col, line, col + len(keyword.arg or "")], meant)


CURES = {
    "collective-for-all": Cure(
        "every rank enters the collective",
        (
            "take the collective out of the branch on the rank; "
            "only what follows from it stays there",
        ),
        for_all,
        ("collective-skipped",),
    ),
    "same-order-for-all": Cure(
        "one order of collectives for all ranks",
        ("let all ranks call the same collectives in the same order",),
        same_order,
        ("collective-order",),
    ),
    "as-many-rounds-for-all": Cure(
        "all ranks leave the loop together",
        (
            "a loop with DDP alone: with torch.distributed.algorithms.join.Join([model]): for ...",
            "or give each rank the same number of batches (DistributedSampler, drop_last)",
        ),
        as_often,
        ("uneven-inputs",),
        "what one rank has more than the others may be left out",
    ),
    "same-shape-for-all": Cure(
        "the same shapes in every rank",
        ("make sizes from what all ranks share: compute them in rank 0 and broadcast them",),
        same_shape,
        ("shape-mismatch",),
    ),
}
