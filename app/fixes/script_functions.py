"""Cures of functions and classes that a new process can't find: they move to the module."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Sequence

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import (
    Text,
    append_argument,
    argument,
    imported_as,
    inside_strings,
    names_in,
    stored_in,
)

_MADE = ast.FunctionDef | ast.ClassDef


def to_module(draft: Draft) -> None:
    """What can't be pickled where it is, defined where a new process finds it."""
    data = draft.data
    if data.get("lock"):
        _of_processes(draft)
        return
    if "function_span" not in data:
        raise NoEdit
    text = draft.file(data["function_file"])
    node = text.node_at(data["function_span"], (ast.FunctionDef, ast.ClassDef, ast.Lambda))
    if isinstance(node, ast.Lambda):
        if data.get("kind") != "function" or not _called_by(draft, text, node):
            _named(text, node)
        return
    outer = _around(text, node) if isinstance(node, _MADE) else None
    if not isinstance(node, _MADE) or outer is None:
        raise NoEdit
    if isinstance(node, ast.ClassDef) or data.get("kind") != "function":
        if _free(text, node):
            raise NoEdit
        _move(text, node, outer)
        return
    started = text.get(data["value_span"]) if data["file"] == data["function_file"] else ""
    if started == node.name:
        _with_arguments(draft, text, node, outer)
    elif re.search(rf"\bpartial\(\s*{node.name}\b", started):
        if _free(text, node):
            raise NoEdit
        _move(text, node, outer)
    elif not _with_wraps(text, node, outer, started):
        _by_partial(text, node, outer)


def _around(text: Text, node: _MADE) -> ast.FunctionDef | None:
    """The function of the module that a local one stands in."""
    body = text.source.tree.body if text.source.tree is not None else []
    return next(
        (
            s
            for s in body
            if isinstance(s, ast.FunctionDef) and s.lineno < node.lineno <= (s.end_lineno or 0)
        ),
        None,
    )


def _free(text: Text, node: _MADE | ast.Lambda) -> list[str]:
    """Names that are taken from the functions around it."""
    name = "lambda" if isinstance(node, ast.Lambda) else node.name
    stack = [symtable.symtable(text.source.text, "script", "exec")]
    while stack:
        scope = stack.pop()
        if scope.get_name() == name and scope.get_lineno() in _lines_of(node):
            return sorted(s.get_name() for s in scope.get_symbols() if s.is_free())
        stack += scope.get_children()
    raise NoEdit


def _lines_of(node: _MADE | ast.Lambda) -> set[int]:
    decorators = getattr(node, "decorator_list", [])
    return {node.lineno, *(d.lineno for d in decorators)}


def _move(
    text: Text, node: _MADE, outer: ast.FunctionDef, parameters: Sequence[str] | None = None
) -> None:
    """The lines of a definition, in front of the function that it stood in."""
    if node not in outer.body or node.decorator_list or outer.body == [node]:
        raise NoEdit
    if node.name in stored_in(*(s for s in outer.body if s is not node)):
        raise NoEdit
    inside = inside_strings(text.source)
    cut = len(text.indentation(node.lineno))
    rows = text.source.lines[node.lineno - 1 : node.end_lineno]
    lines = [
        row if number in inside or not (row[:cut].isspace() or not row.strip()) else row[cut:]
        for number, row in enumerate(rows, node.lineno)
    ]
    if parameters is not None:
        told = ", ".join(parameters)
        lines[0] = re.sub(r"\(.*\)(\s*(->.*)?:)", f"({told})\\1", lines[0], count=1)
        if told not in lines[0]:
            raise NoEdit
    last = node.end_lineno or node.lineno
    while not text.source.line(last + 1).strip() and last < (outer.end_lineno or 0):
        last += 1
    text.delete_lines(node.lineno, last)
    first = min(_lines_of(outer))
    text.insert(first, *lines, "", "")


def _plain_parameters(node: ast.FunctionDef) -> list[str]:
    given = node.args
    if given.vararg or given.kwarg or given.defaults or given.kwonlyargs:
        raise NoEdit
    return [a.arg for a in given.args]


def _with_arguments(
    draft: Draft, text: Text, node: ast.FunctionDef, outer: ast.FunctionDef
) -> None:
    """What the function took from around it becomes arguments, and is handed over in args."""
    parameters, free, call = _plain_parameters(node), _free(text, node), draft.call
    _move(text, node, outer, [*parameters, *free] if free else None)
    if not free:
        return
    spawned = getattr(call.func, "attr", getattr(call.func, "id", "")) in (
        "spawn",
        "start_processes",
    )
    given = argument(call, "args", 1 if spawned else 3)
    if given is None:
        end = draft.data["value_span"][2:]
        text.replace([*end, *end], f", args={_tuple(free)}")
    elif isinstance(given, ast.Tuple):
        text.replace(text.place(given), _tuple([*map(text.source.code, given.elts), *free]))
    else:
        raise NoEdit


def _tuple(codes: Sequence[str]) -> str:
    return f"({', '.join(codes)}{',' if len(codes) == 1 else ''})"


def _with_wraps(text: Text, node: _MADE, outer: ast.FunctionDef, started: str) -> bool:
    """A decorator's wrapper, found under the name of what it wraps."""
    body = text.source.tree.body if text.source.tree is not None else []
    wrapped = next((s for s in body if isinstance(s, ast.FunctionDef) and s.name == started), None)
    if wrapped is None or not any(outer.name in names_in(d) for d in wrapped.decorator_list):
        return False
    if len(outer.args.args) != 1 or node not in outer.body:
        raise NoEdit
    text.add_import("import functools")
    indent = text.indentation(node.lineno)
    text.insert(node.lineno, f"{indent}@functools.wraps({outer.args.args[0].arg})")
    return True


def _by_partial(text: Text, node: _MADE, outer: ast.FunctionDef) -> None:
    """A function that makes functions gives back functools.partial of one of the module."""
    last = outer.body[-1]
    if not isinstance(node, ast.FunctionDef) or not isinstance(last, ast.Return):
        raise NoEdit
    if not isinstance(last.value, ast.Name) or last.value.id != node.name:
        raise NoEdit
    free, parameters = _free(text, node), _plain_parameters(node)
    _move(text, node, outer, [*free, *parameters])
    text.add_import("import functools")
    text.replace(text.place(last.value), f"functools.partial({', '.join([node.name, *free])})")


def _called_by(draft: Draft, text: Text, node: ast.Lambda) -> bool:
    """`lambda rank: work(rank, 2)` is work with args=(2,)."""
    call, inner = draft.call, node.body
    if draft.data["file"] != draft.data["function_file"] or not isinstance(inner, ast.Call):
        return False
    taken = [a.arg for a in node.args.args]
    plain = not (node.args.vararg or node.args.kwarg or node.args.kwonlyargs or node.args.defaults)
    first, rest = inner.args[: len(taken)], inner.args[len(taken) :]
    fits = [getattr(a, "id", "") for a in first] == taken and not inner.keywords and plain
    uses = set(taken) & {n for part in (inner.func, *rest) for n in names_in(part)}
    if not fits or uses or any(isinstance(a, ast.Starred) for a in rest):
        return False
    spawned = getattr(call.func, "attr", getattr(call.func, "id", "")) != "Process"
    if argument(call, "args", 1 if spawned else 3) is not None:
        if rest:
            return False
    elif rest:
        append_argument(text, call, f"args={_tuple(list(map(text.source.code, rest)))}")
    text.replace(text.place(node), text.source.code(inner.func))
    return True


def _named(text: Text, node: ast.Lambda) -> None:
    """A lambda as a function of the module with a name."""
    tree = text.source.tree or ast.Module([], [])
    holder = next(s for s in tree.body if s.lineno <= node.lineno <= (s.end_lineno or 0))
    taken = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
    free = names_in(node.body) - taken - set(dir(builtins)) - _of_module(tree)
    if free or names_in(node.args) - set(dir(builtins)) - _of_module(tree):
        raise NoEdit
    name = _name_for(tree, node)
    start, body = text.place(node), text.place(node.body)
    inside = text.get([*start[:2], *body[:2]])
    parameters = re.sub(r"[\s(]*$", "", inside.removeprefix("lambda")).removesuffix(":").strip()
    code = text.get(body)
    code = f"({code})" if "\n" in code else code
    first = min([holder.lineno, *(d.lineno for d in getattr(holder, "decorator_list", []))])
    text.insert(first, f"def {name}({parameters}):", f"    return {code}", "", "")
    text.replace(start, name)


def _of_module(tree: ast.Module) -> set[str]:
    """Names that every process finds in the module: not those under the main guard."""
    names: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
            continue
        names |= stored_in(statement)
    return names


def _name_for(tree: ast.Module, node: ast.Lambda) -> str:
    """What the lambda is called where it stands, made a name that nothing else has."""
    name = "function"
    for parent in ast.walk(tree):
        if isinstance(parent, ast.keyword) and parent.value is node and parent.arg:
            name = parent.arg
        elif isinstance(parent, ast.Assign) and parent.value is node:
            name = ast.unparse(parent.targets[0]).rpartition(".")[2]
        elif isinstance(parent, ast.Dict) and node in parent.values:
            key = parent.keys[parent.values.index(node)]
            name = str(key.value) if isinstance(key, ast.Constant) else name
    name = name if name.isidentifier() else "function"
    used = names_in(tree) | {n.name for n in ast.walk(tree) if isinstance(n, _MADE)}
    while name in used:
        name += "_of_module" if not name.endswith("_of_module") else "_"
    return name


def _of_processes(draft: Draft) -> None:
    """A lock, or an event, of the kind that may be handed to a spawned process."""
    data = draft.data
    text = draft.file(data["made_file"])
    call = text.node_at(data["made_span"], ast.Call)
    name = str(data["lock"]).rpartition(".")[2]
    named = [n for n in ast.walk(call or ast.Pass()) if isinstance(n, ast.Attribute | ast.Name)]
    places = [n for n in named if getattr(n, "attr", getattr(n, "id", "")) == name]
    if not places:
        raise NoEdit
    start = f'{imported_as(text, "torch.multiprocessing")}.get_context("spawn")'
    text.replace(text.place(places[0]), f"{start}.{name}")


CURES = {
    "move-function-to-module": Cure(
        "a worker at the level of a module, where a new process can find it",
        ("define the function at the top of a .py file and hand it what it needs in args",),
        to_module,
        ("unpicklable-object", "notebook-main"),
    ),
}
