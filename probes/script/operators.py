"""What operators make of values: constants folded, what depends on the rank kept."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.constants import quiet
from ddp_assist.probes.script.parts import present
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Mix,
    Value,
    join,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator

_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}


def of_bool(evaluate: Evaluator, node: ast.BoolOp) -> Value:
    tracer = evaluate.tracer
    kept = tracer.path, tracer.tests
    try:
        return _operands(evaluate, node)
    finally:
        tracer.path, tracer.tests = kept


def _operands(evaluate: Evaluator, node: ast.BoolOp) -> Value:
    tracer = evaluate.tracer
    result: Value | None = None
    stop = isinstance(node.op, ast.Or)
    for part in node.values:
        value = evaluate(part)
        if "rank" in value.of:
            evaluate.tracer.trace.on_rank.add(id(node))
        result = value if result is None else _either(evaluate, result, value, stop)
        if value.known and bool(value.const) == stop:
            seen = result.of | value.of
            return (
                replace(value, of=seen)
                if result.known or stop is False
                else Value(const=value.const, of=seen)
            )
        if not value.known:  # what follows only happens where this one does not decide
            tracer.path = (*tracer.path, (id(part), not stop))
            tracer.tests = (*tracer.tests, value)
    return result or Value()


def _either(evaluate: Evaluator, first: Value, second: Value, stop: bool) -> Value:
    if first.known and bool(first.const) != stop:
        return replace(second, of=first.of | second.of)
    joined = join(first, second)
    return joined if first.known == second.known else joined.without_const()


def of_unary(evaluate: Evaluator, node: ast.UnaryOp) -> Value:
    value = evaluate(node.operand)
    if not value.known:
        return Value(of=value.of)
    if isinstance(node.op, ast.Not):
        return Value(const=not value.const, of=value.of)
    if isinstance(node.op, ast.USub):
        return Value(const=quiet(operator.neg, value.const), of=value.of)
    return Value(of=value.of)


def of_binary(evaluate: Evaluator, node: ast.BinOp) -> Value:
    return operation(evaluate, node, node.left, node.op, node.right)


def operation(
    evaluate: Evaluator, node: ast.AST, left: ast.expr, op: ast.operator, right: ast.expr
) -> Value:
    first, second = evaluate(left), evaluate(right)
    of = first.of | second.of
    if isinstance(op, ast.Mod) and not first.text:
        of -= {"global-rank"}  # the rank on its node
    for side in (first, second):
        if side.kind.endswith("Store()") or side.kind.endswith("Store().get()"):
            evaluate.tracer.happens(f"{side.kind}.__op__", node, (first, second), receiver=side)
    if isinstance(op, ast.BitOr) and second.table is not None:
        exact = first.table is not None and first.exact and second.exact
        return Value(table={**(first.table or {}), **second.table}, of=of, kind="dict",
                     exact=exact)  # fmt: skip
    if first.items is not None and second.items is not None:
        exact = first.exact and second.exact
        return Value(items=[*first.items, *second.items], exact=exact, of=of, kind=first.kind)
    if isinstance(op, ast.Mult) and first.items is not None and second.number is not None:
        count = len(first.items) * second.number if first.exact else None
        return Value(items=first.items, kind=first.kind, of=of, count=count)
    const: Any = UNKNOWN
    if first.known and second.known and type(op) in _OPERATORS:
        const = quiet(_OPERATORS[type(op)], first.const, second.const)
    mix = first.mix or second.mix
    if (
        mix is None
        and not (first.text or second.text)
        and isinstance(op, ast.Add | ast.Sub)
        and ("rank" in first.of) != ("rank" in second.of)
    ):
        mix = Mix(evaluate.tracer.source, node, right if "rank" in first.of else left)
    pattern = ""
    if not isinstance(const, str) and isinstance(op, ast.Add) and (first.text or second.text):
        pattern = (first.text or "{}") + (second.text or "{}")
    elif isinstance(op, ast.Mod) and isinstance(first.const, str):
        pattern = re.sub(r"%[sd]", "{}", first.const)
        if second.known and const is UNKNOWN:
            const = quiet(lambda: first.const % second.const)
    numbers = {first.kind, second.kind} & {"int", "float"}
    kind = "str" if pattern else ""
    if numbers and not (first.text or second.text):
        kind = max(numbers)
    return Value(const=const, of=of, mix=mix, pattern=pattern, kind=kind)


def of_compare(evaluate: Evaluator, node: ast.Compare) -> Value:
    values = [evaluate(node.left), *(evaluate(part) for part in node.comparators)]
    of = union(values)
    for value in values:
        if value.kind.endswith(("Store().get()", "Store()")):
            evaluate.tracer.happens(
                f"{value.kind}.__compare__", node, tuple(values), receiver=value
            )
    if len(values) != 2:
        return Value(of=of)
    first, second = values
    op = node.ops[0]
    if (
        second.kind == "os.environ"
        and isinstance(op, ast.In | ast.NotIn)
        and isinstance(first.const, str)
    ):
        there = present(evaluate, first.const)
        seen = frozenset({f"env:{first.const}"})
        return (
            Value(of=seen)
            if there is None
            else Value(const=there == isinstance(op, ast.In), of=seen)
        )
    if first.known and second.known:
        if (
            isinstance(op, ast.Is | ast.IsNot)
            and first.const is not None
            and second.const is not None
        ):
            return Value(of=of)
        return Value(const=quiet(_OPERATORS[type(op)], first.const, second.const), of=of)
    return Value(role=_on_host(first, second, op) or _on_host(second, first, op), of=of)


def _on_host(own: Value, named: Value, op: ast.cmpop) -> str:
    """`socket.gethostname() == "node1"`: true on one host only, so it is never taken as known."""
    if own.kind not in known.HOST_NAMES or not isinstance(named.const, str):
        return ""
    words = {ast.Eq: "host", ast.NotEq: "not-host"}
    return f"{words[type(op)]}:{named.const}" if type(op) in words else ""


def of_choice(evaluate: Evaluator, node: ast.IfExp) -> Value:
    test = evaluate(node.test)
    if "rank" in test.of:
        evaluate.tracer.trace.on_rank.add(id(node))
    if test.known:
        value = evaluate(node.body if test.const else node.orelse)
        return replace(value, of=value.of | test.of)
    tracer, branches = evaluate.tracer, []
    kept = tracer.path, tracer.tests
    for way, branch in ((True, node.body), (False, node.orelse)):
        tracer.path, tracer.tests = (*kept[0], (id(node), way)), (*kept[1], test)
        branches.append(evaluate(branch))
    tracer.path, tracer.tests = kept
    joined = join(*branches)
    return replace(joined, of=joined.of | test.of)


OF: Final[Mapping[type[ast.AST], Callable[[Evaluator, Any], Value]]] = {
    ast.BoolOp: of_bool,
    ast.UnaryOp: of_unary,
    ast.BinOp: of_binary,
    ast.Compare: of_compare,
    ast.IfExp: of_choice,
}
