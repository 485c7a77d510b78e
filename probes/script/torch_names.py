"""Which names of torch's modules a script uses, outside of what it tries or asks for first."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

ASKS = {"hasattr", "getattr", "find_spec", "TYPE_CHECKING", "version", "__version__"}
"""Words of a test that asks what there is before it is used."""


def used(tree: ast.Module, modules: frozenset[str]) -> dict[tuple[str, str], int]:
    """(module, name) with the first line that uses it, for these modules of torch."""
    aliases = dict(_aliases(tree))
    for name in _rebound(tree):
        aliases.pop(name, None)
    found: dict[tuple[str, str], int] = {}
    for node in _unguarded(tree):
        for module, name in _named(node, aliases):
            if module in modules and not name.startswith("_"):
                line = getattr(node, "lineno", 1)
                found[(module, name)] = min(line, found.get((module, name), line))
    assigned = _assigned(tree, aliases)
    return {key: line for key, line in found.items() if key not in assigned}


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a name of the file stands for, where that is torch or a part of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_torch(alias.name):
                    yield (alias.asname, alias.name) if alias.asname else ("torch", "torch")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _is_torch(node.module):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _is_torch(module: str | None) -> bool:
    return (module or "").split(".")[0] == "torch"


def _rebound(tree: ast.Module) -> Iterator[str]:
    """Names that mean something else in some part of the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name


def _named(node: ast.AST, aliases: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield from ((node.module, alias.name) for alias in node.names if alias.name != "*")
    elif isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        if owner:
            yield owner, node.attr


def _dotted(node: ast.AST, aliases: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name):
        return aliases.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def _assigned(tree: ast.Module, aliases: Mapping[str, str]) -> set[tuple[str, str]]:
    """Names that the script itself puts into a module."""
    return {
        named
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        for named in _named(node, aliases)
    }


def _unguarded(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that are tried, or asked for first."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Try) and child.handlers:
            for part in (*child.orelse, *child.finalbody):
                yield part
                yield from _unguarded(part)
        elif isinstance(child, (ast.If, ast.IfExp)) and _asks(child.test):
            continue
        else:
            yield child
            yield from _unguarded(child)


def _asks(test: ast.AST) -> bool:
    words = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
    words |= {n.attr for n in ast.walk(test) if isinstance(n, ast.Attribute)}
    return any(word in ASKS or word.startswith("is_") for word in words)
