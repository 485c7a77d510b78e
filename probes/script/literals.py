"""What names and written values are worth."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.constants import CASTS
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Function,
    Value,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator


def of_constant(evaluate: Evaluator, node: ast.Constant) -> Value:
    return Value(const=node.value)


def of_name(evaluate: Evaluator, node: ast.Name) -> Value:
    tracer = evaluate.tracer
    if _only_guarded(evaluate, node.id):
        tracer.happens("name.guarded", node, (Value(const=node.id),))
    if node.id in tracer.names and node.id not in tracer.shared:
        return tracer.names[node.id]
    if tracer.module is not None and node.id in tracer.module.names:
        return tracer.module.names[node.id]
    if not tracer.stray and tracer.module is not None and _comes_later(evaluate, node):
        tracer.happens("name.early", node, (Value(const=node.id),))
    if node.id in known.ALIASES and node.id not in CASTS:
        return Value(kind=known.ALIASES[node.id])
    return Value(kind=node.id)


def _only_guarded(evaluate: Evaluator, name: str) -> bool:
    """Whether a spawned child asks for what only the script itself binds, under its guard."""
    tracer = evaluate.tracer
    process, module = tracer.process, tracer.module
    return (
        process.number > 0
        and process.method in ("spawn", "forkserver")
        and module is not None
        and name in module.guarded
        and (name not in tracer.names or tracer.names is module.names)
    )


def _comes_later(evaluate: Evaluator, node: ast.Name) -> bool:
    """Whether the module only defines this name further down, after what runs now."""
    tracer = evaluate.tracer
    if tracer.module is None or tracer.module.source is not tracer.source or tracer.handler:
        return False
    return tracer.module.later.get(node.id, 0) > tracer.module.line


def of_named(evaluate: Evaluator, node: ast.NamedExpr) -> Value:
    value = evaluate(node.value)
    evaluate.tracer.assign(node.target, value)
    return value


def of_tuple(evaluate: Evaluator, node: ast.Tuple | ast.List) -> Value:
    items = [evaluate(item.value if isinstance(item, ast.Starred) else item) for item in node.elts]
    exact = not any(isinstance(item, ast.Starred) for item in node.elts)
    const: Any = UNKNOWN
    if exact and all(item.known for item in items):
        const = tuple(item.const for item in items)
    return Value(
        const=const,
        items=items,
        exact=exact,
        of=union(items),
        kind=type(node).__name__.lower(),
        count=len(items) if exact else None,
    )


def of_dict(evaluate: Evaluator, node: ast.Dict) -> Value:
    table: dict[Any, Value] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        value = evaluate(item)
        name = evaluate(key) if key is not None else Value()
        if isinstance(name.const, str | int):
            table[name.const] = value
        elif key is None and value.table:
            table.update(value.table)
    exact = len(table) == len(node.keys)
    return Value(table=table, of=union(table.values()), kind="dict", exact=exact)


def of_text(evaluate: Evaluator, node: ast.JoinedStr) -> Value:
    parts = [
        evaluate(p.value) if isinstance(p, ast.FormattedValue) else evaluate(p) for p in node.values
    ]
    plain = all(
        not isinstance(p, ast.FormattedValue) or (p.format_spec is None and p.conversion == -1)
        for p in node.values
    )
    mix = next((p.mix for p in parts if p.mix), None)
    if plain and all(p.known for p in parts):
        return Value(const="".join(str(p.const) for p in parts), of=union(parts), mix=mix)
    pattern = "".join(str(p.const) if p.known else p.pattern or "{}" for p in parts)
    return Value(pattern=pattern, of=union(parts), mix=mix, kind="str")


def of_lambda(evaluate: Evaluator, node: ast.Lambda) -> Value:
    tracer = evaluate.tracer
    return Value(
        kind="lambda",
        target=Function(node, tracer.source, tracer.names, None, True, tracer.module),
    )


def of_yield(evaluate: Evaluator, node: ast.Yield) -> Value:
    evaluate.tracer.yielded(evaluate(node.value) if node.value is not None else Value(const=None))
    evaluate.yields = True
    return Value()


def of_yield_from(evaluate: Evaluator, node: ast.YieldFrom) -> Value:
    evaluate(node.value)
    evaluate.yields = True
    return Value()


OF: Final[Mapping[type[ast.AST], Callable[[Evaluator, Any], Value]]] = {
    ast.Constant: of_constant,
    ast.Name: of_name,
    ast.NamedExpr: of_named,
    ast.Tuple: of_tuple,
    ast.List: of_tuple,
    ast.Dict: of_dict,
    ast.JoinedStr: of_text,
    ast.Lambda: of_lambda,
    ast.Yield: of_yield,
    ast.YieldFrom: of_yield_from,
}
