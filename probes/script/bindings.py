"""Statements that bind names: imports, definitions, assignments."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.operators import operation
from ddp_assist.probes.script.value import (
    Class,
    Function,
    Module,
    Value,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.trace import Tracer


def do_import(tracer: Tracer, node: ast.Import) -> None:
    for alias in node.names:
        tracer.imports(alias.name, node)
        found = tracer.load(alias.name)
        if alias.asname:
            tracer.bind(alias.asname, found)
        else:
            top = alias.name.partition(".")[0]
            tracer.bind(top, tracer.load(top))


def do_import_from(tracer: Tracer, node: ast.ImportFrom) -> None:
    base = node.module or ""
    if node.level:
        parts = [] if tracer.source.name == "__main__" else tracer.source.name.split(".")
        is_package = tracer.source.path.name == "__init__.py"
        up = node.level - 1 if is_package else node.level
        if up > max(len(parts), 1):
            for alias in node.names:  # above the folder that is known
                tracer.bind(alias.asname or alias.name, Value())
            return
        parts = parts[: max(len(parts) - up, 0)]
        base = ".".join([*parts, *([base] if base else [])])
    if not node.level:
        tracer.imports(base, node)
    module = tracer.load(base) if base else Value()
    for alias in node.names:
        if alias.name == "*":
            if isinstance(module.target, Module):
                tracer.names.update(module.target.names)
            else:
                tracer.names["*"] = Value()
            continue
        full = f"{base}.{alias.name}" if base else alias.name
        if isinstance(module.target, Module):
            value = module.target.names.get(alias.name) or tracer.load(full)
            if _lacks(tracer, module.target, alias.name) and value.target is None:
                tracer.happens("import.missing", node, (Value(const=alias.name), module))
        elif not base or (tracer.project.module(full) if node.level else None):
            value = tracer.load(full)
        else:
            value = Value(kind=known.plain(full))
        tracer.bind(alias.asname or alias.name, value)


def _lacks(tracer: Tracer, module: Module, name: str) -> bool:
    """Whether a file of the project surely has no such name."""
    whole = module.line > len(module.source.lines) and module.source.problem is None
    magic = "__getattr__" in module.source.text or "globals()" in module.source.text
    return whole and not magic and "*" not in module.names and name not in module.names


def do_function(tracer: Tracer, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    decorators = [tracer.evaluate(decorator) for decorator in node.decorator_list]
    function = Function(
        node, tracer.source, tracer.names, None, tracer.local, tracer.module,
        guarded=tracer.guarded and not tracer.local,
    )  # fmt: skip
    tracer.trace.functions.append(function)
    value = Value(target=function, kind=f"function:{node.name}")
    tracer.bind(node.name, value)
    for decorator in reversed(decorators):
        value = _decorated(tracer, decorator, value, node)
    tracer.bind(node.name, value)


def _decorated(tracer: Tracer, decorator: Value, value: Value, node: ast.AST) -> Value:
    """What one of the project's own decorators makes of a function."""
    if not isinstance(decorator.target, Function):
        return value
    made = tracer.evaluate.follow(decorator, [value], {}, node)
    if not isinstance(made.target, Function):
        return value
    # With wraps() Python finds the wrapper under the function's own name.
    local = tracer.local or not made.target.decorated("wraps")
    if made.target.node is node:
        local = tracer.local
    wrapper = replace(made.target, local=local, closure=made.target.local)
    return replace(made, target=wrapper, kind=value.kind)


def do_class(tracer: Tracer, node: ast.ClassDef) -> None:
    bases = [tracer.evaluate(base) for base in node.bases]
    guarded = tracer.guarded and not tracer.local
    made = Class(node, tracer.source, {}, bases, tracer.local, guarded)
    tracer.trace.classes.append(made)
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            method = Function(
                statement,
                tracer.source,
                tracer.names,
                Value(target=made),
                tracer.local,
                tracer.module,
            )
            tracer.trace.functions.append(method)
            made.names[statement.name] = Value(target=method, kind=f"function:{statement.name}")
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            value = tracer.evaluate(statement.value)
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    made.names[target.id] = value
    tracer.bind(node.name, Value(target=made, kind=f"class:{node.name}"))


def do_global(tracer: Tracer, node: ast.Global) -> None:
    tracer.shared = tracer.shared | set(node.names)


def do_assign(tracer: Tracer, node: ast.Assign) -> None:
    value = tracer.evaluate(node.value)
    for target in node.targets:
        tracer.assign(target, value)


def do_annotated(tracer: Tracer, node: ast.AnnAssign) -> None:
    if node.value is not None:
        tracer.assign(node.target, tracer.evaluate(node.value))


def do_augmented(tracer: Tracer, node: ast.AugAssign) -> None:
    if isinstance(node.target, ast.Name) and tracer.local and not tracer.stray:
        name = node.target.id
        if name not in tracer.names and name not in tracer.shared:
            tracer.happens("name.unbound", node.target, (Value(const=name),))
    value = operation(tracer.evaluate, node, node.target, node.op, node.value)
    if tracer.evaluate(node.target).kind == "os.environ":
        for key, item in (tracer.evaluate(node.value).table or {}).items():
            tracer.set_environ(node, Value(const=key), item)
        return
    tracer.assign(node.target, value, augmented=True)


def do_delete(tracer: Tracer, node: ast.Delete) -> None:
    for target in node.targets:
        if isinstance(target, ast.Name):
            held = tracer.names.get(target.id)
            if held is not None:
                tracer.happens(f"{held.kind}.__del__", target, (), receiver=held)
        else:
            tracer.evaluate(target)


DO: Final[Mapping[type[ast.AST], Callable[[Tracer, Any], str | None]]] = {
    ast.Import: do_import,
    ast.ImportFrom: do_import_from,
    ast.FunctionDef: do_function,
    ast.AsyncFunctionDef: do_function,
    ast.ClassDef: do_class,
    ast.Global: do_global,
    ast.Assign: do_assign,
    ast.AnnAssign: do_annotated,
    ast.AugAssign: do_augmented,
    ast.Delete: do_delete,
}
