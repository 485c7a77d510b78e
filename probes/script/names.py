"""Names that nothing defines: what Python would raise a NameError for."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from ddp_assist.probes.script.read import Source

_GIVEN: Final = set(dir(builtins)) | {
    "__file__",
    "__name__",
    "__doc__",
    "__package__",
    "__spec__",
    "__loader__",
    "__builtins__",
    "__path__",
    "__annotations__",
    "__dict__",
    "__class__",
    "__module__",
    "__qualname__",
    "WindowsError",
    "reveal_type",
    "unicode",
    "long",
    "xrange",
    "basestring",
    "raw_input",
    "unichr",
    "__version__",
    "__debug__",
    "get_ipython",
    "display",
    "exit",
    "quit",
    "__conditional_annotations__",
}


_WRITES: Final = re.compile(r"import\s*\(?\s*\*|\b(globals|exec|vars|setattr)\b")


@dataclass(frozen=True, slots=True)
class Missing:
    """A name nothing defines, where it is used first, and the function it is used in."""

    name: str
    node: ast.Name
    function: ast.AST | None
    meant: str = ""
    """The name that is there and looks like it."""


def missing_names(source: Source) -> list[Missing]:
    """Every name of the file that no scope defines, once, in the order of the text."""
    if source.tree is None or (_WRITES.search(source.text) and _writes_names(source.tree)):
        return []
    try:
        table = symtable.symtable(source.text, source.path.name, "exec")
    except (SyntaxError, ValueError, RecursionError):
        return []
    defined = {
        s.get_name()
        for s in table.get_symbols()
        if s.is_assigned() or s.is_imported() or s.is_namespace()
    }
    defined |= _GIVEN | {name for scope in _scopes(table) for name in _globals(scope)}
    unknown = {
        symbol.get_name()
        for scope in _scopes(table)
        for symbol in scope.get_symbols()
        if symbol.is_referenced() and symbol.is_global() and symbol.get_name() not in defined
    } | {
        s.get_name()
        for s in table.get_symbols()
        if s.is_referenced()
        and not (s.is_assigned() or s.is_imported())
        and s.get_name() not in defined
    }
    if not unknown:
        return []
    found: dict[str, Missing] = {}
    for name, function in _uses(source.tree, unknown):
        if name.id not in found:
            meant = _meant(name.id, defined - _GIVEN, source.tree, name)
            found[name.id] = Missing(name.id, name, function, meant)
    return sorted(found.values(), key=lambda m: (m.node.lineno, m.node.col_offset))


def _meant(name: str, defined: set[str], tree: ast.Module, node: ast.AST) -> str:
    """`self.name` where the method forgot self, or a name of the module that is spelt alike."""
    for part in ast.walk(tree):
        if not isinstance(part, ast.ClassDef):
            continue
        for method in part.body:
            first = method.args.args[:1] if isinstance(method, ast.FunctionDef) else []
            if not first or node not in ast.walk(method):
                continue
            own = {
                n.attr
                for n in ast.walk(part)
                if isinstance(n, ast.Attribute)
                and isinstance(n.ctx, ast.Store)
                and isinstance(n.value, ast.Name)
                and n.value.id == first[0].arg
            } | {m.name for m in part.body if isinstance(m, ast.FunctionDef)}
            if name in own:
                return f"{first[0].arg}.{name}"
    near = sorted(defined | _local_to(tree, node))
    swapped = [n for n in near if len(n) > 2 and sorted(n) == sorted(name)]
    return next(iter(swapped or get_close_matches(name, near, 1, 0.87)), "")


def _local_to(tree: ast.Module, node: ast.AST) -> set[str]:
    """The names that the functions around a node bind."""
    names: set[str] = set()
    for part in ast.walk(tree):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and node in ast.walk(part):
            names |= {a.arg for a in ast.walk(part.args) if isinstance(a, ast.arg)}
            names |= {n.id for n in _stores(part)}
    return names


def _stores(tree: ast.AST) -> Iterator[ast.Name]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        if child.get_type() in ("function", "class"):
            yield child
            yield from _scopes(child)


def _globals(scope: symtable.SymbolTable) -> Iterator[str]:
    for symbol in scope.get_symbols():
        if symbol.is_declared_global() and symbol.is_assigned():
            yield symbol.get_name()


def _writes_names(tree: ast.Module) -> bool:
    """Whether names can come from where no parser sees them: star imports, globals(), exec."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            return True
        if isinstance(node, ast.Name) and node.id in ("globals", "exec", "vars", "setattr"):
            return True
    return False


def _uses(
    node: ast.AST,
    names: set[str],
    function: ast.AST | None = None,
    held: frozenset[str] = frozenset(),
) -> Iterator[tuple[ast.Name, ast.AST | None]]:
    """Where these names are read, but for annotations and what a handler of NameError catches."""
    if isinstance(node, ast.Name):
        if node.id in names and node.id not in held and isinstance(node.ctx, ast.Load):
            yield node, function
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        bound = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)} | _bound(node)
        outer = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
        if not isinstance(node, ast.Lambda):
            outer += node.decorator_list
        for expression in outer:
            yield from _uses(expression, names, function, held)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        inside = function if isinstance(node, ast.Lambda) else node
        for statement in body:
            yield from _uses(statement, names, inside, held | bound)
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
        held = held | {
            n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)
        }
    if isinstance(node, ast.Try) and any(_catches_names(h) for h in node.handlers):
        for part in [*node.handlers, *node.orelse, *node.finalbody]:
            yield from _uses(part, names, function, held)
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _uses(child, names, function, held)


def _bound(node: ast.AST) -> set[str]:
    """Names a function binds itself."""
    return {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def _catches_names(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(
        isinstance(n, ast.Name) and n.id in ("NameError", "Exception", "BaseException")
        for n in ast.walk(handler.type)
    )
