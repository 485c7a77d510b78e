"""What is looped over, and what comprehensions make of it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script.value import (
    Class,
    Function,
    Instance,
    Value,
    join,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator

MOST_SIFTED: Final = 64


def of_list(evaluate: Evaluator, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
    return _comprehension(evaluate, node, [node.elt])


def of_table(evaluate: Evaluator, node: ast.DictComp) -> Value:
    return _comprehension(evaluate, node, [node.key, node.value])


def _comprehension(
    evaluate: Evaluator,
    node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
    parts: list[ast.expr],
) -> Value:
    tracer = evaluate.tracer
    kept, loops = tracer.names, tracer.loops
    tracer.names, tracer.loops = dict(kept), (*loops, node)
    of = frozenset[str]()
    count: int | None = None
    for generator in node.generators:
        over = evaluate(generator.iter)
        lone = len(node.generators) == 1
        count = over.count if lone and not generator.ifs else None
        if lone and generator.ifs and over.count is not None:
            count = _sifted(evaluate, generator, over)
        of |= over.of
        tracer.assign(generator.target, item_of(evaluate, over, generator.iter, parts))
        for condition in generator.ifs:
            of |= evaluate(condition).of
    items = [evaluate(part) for part in parts]
    tracer.names, tracer.loops = kept, loops
    return Value(items=items[-1:], of=of | union(items), kind="list", count=count)


def _sifted(evaluate: Evaluator, generator: ast.comprehension, over: Value) -> int | None:
    """How many of the numbers of range() or enumerate() the conditions let through."""
    pairs = over.kind == "enumerate()"
    plain = isinstance(generator.iter, ast.Call) and len(generator.iter.args) == 1
    counted = plain and over.kind in ("enumerate()", "range()")
    if not counted or (over.count or 0) > MOST_SIFTED:
        return None
    kept = 0
    for number in range(over.count or 0):
        index = Value(const=number, kind="int")
        item = Value(items=[index, Value()], exact=True) if pairs else index
        evaluate.tracer.assign(generator.target, item)
        tests = [evaluate(condition) for condition in generator.ifs]
        if not all(test.known for test in tests):
            return None
        kept += all(test.const for test in tests)
    return kept


def item_of(evaluate: Evaluator, over: Value, node: ast.expr, body: Sequence[ast.AST]) -> Value:
    """One item of what is looped over; the index of a process where the loop starts some."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "range":
            return _index(evaluate, node, over, body)
        if node.func.id == "enumerate" and node.args:
            inner = evaluate(node.args[0])
            return Value(items=[Value(), item_of(evaluate, inner, node.args[0], body)], exact=True)
        if node.func.id == "zip":
            return Value(
                items=[item_of(evaluate, evaluate(a), a, body) for a in node.args], exact=True
            )
    if over.items:
        item = over.items[0]
        for other in over.items[1:]:
            item = join(item, other)
        return replace(item, of=item.of | over.of) if over.of - item.of else item
    if over.kind in ("str", "list", "tuple", "dict", ""):
        return Value(of=over.of)
    return Value(of=over.of, kind=f"{over.kind}[]", call=over.call)


def _index(evaluate: Evaluator, node: ast.Call, over: Value, body: Sequence[ast.AST]) -> Value:
    starts = any(_starts_process(evaluate, part) for part in body)
    if not starts:
        return Value(of=over.of, kind="int")
    bounds = [evaluate(argument).number for argument in node.args]
    first = (bounds[0] or 0) if len(bounds) > 1 else 0
    last = bounds[min(1, len(bounds) - 1)] if bounds else None
    rank = evaluate.tracer.settings.rank + first
    count = None if last is None else last - first
    return Value(const=rank, role="index", of=frozenset({"rank"}), count=count)


def _starts_process(evaluate: Evaluator, part: ast.AST, depth: int = 0) -> bool:
    """Whether a process is started in this piece of code, or in what it calls."""
    for node in ast.walk(part):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("Process", "apply_async", "submit", "Popen"):
            return True
        if name.endswith(("Process", "Worker")):
            return True
        held = _held(evaluate, node.func)
        if isinstance(held, Class) and held.comes_from(".Process"):
            return True
        if not isinstance(held, Function) or depth > 2 or isinstance(held.node, ast.Lambda):
            continue
        if any(_starts_process(evaluate, s, depth + 1) for s in held.node.body):
            return True
    return False


def _held(evaluate: Evaluator, node: ast.expr) -> object:
    """What a plain name stands for now, looked up without telling anybody."""
    names = evaluate.tracer.names
    if isinstance(node, ast.Name):
        value = names.get(node.id)
        if value is None and evaluate.tracer.module is not None:
            value = evaluate.tracer.module.names.get(node.id)
        return value.target if value is not None else None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = names.get(node.value.id)
        if owner is not None and isinstance(owner.target, Instance) and owner.target.owner:
            found = owner.target.owner.find(node.attr)
            return found.target if found is not None else None
    return None


OF: Final[Mapping[type[ast.AST], Callable[[Evaluator, Any], Value]]] = {
    ast.ListComp: of_list,
    ast.SetComp: of_list,
    ast.GeneratorExp: of_list,
    ast.DictComp: of_table,
}
