"""What is inside of things: attributes, items, variables of the environment, options."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.arguments import word
from ddp_assist.probes.script.constants import quiet
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Class,
    Function,
    Instance,
    Module,
    Value,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator


def of_attribute(evaluate: Evaluator, node: ast.Attribute) -> Value:
    return attribute(evaluate, evaluate(node.value), node.attr)


def attribute(evaluate: Evaluator, owner: Value, name: str) -> Value:
    target = owner.target
    if name == "value" and owner.known and isinstance(owner.const, str | int):
        return owner  # a member of an Enum
    if isinstance(target, Module):
        if name in target.names:
            return target.names[name]
        return evaluate.tracer.load(f"{owner.kind}.{name}")
    if isinstance(target, Instance):
        if any(getattr(n, "name", "") == "forward" for n in evaluate.tracer.running):
            target.used.add(name)
        if name == "module" and owner.kind.endswith("DataParallel()"):
            return replace(owner, kind="")
        if name in target.attrs:
            return target.attrs[name]
        found = target.owner.find(name) if target.owner else None
        if found is not None and isinstance(found.target, Function):
            method = bound(evaluate, found, owner)
            if found.target.decorated("property"):
                value = evaluate.follow(method, [], {}, found.target.node)
                target.attrs.setdefault(name, value) if "cached" in name else None
                return value
            return method
        if found is not None:
            return found
        if owner.kind.endswith("parse_args()"):
            return option(evaluate, name)
    if isinstance(target, Class):
        found = target.find(name)
        if found is not None and isinstance(found.target, Function):
            return bound(evaluate, found, owner) if found.target.decorated("classmethod") else found
        if found is not None:
            return found
    if owner.kind.endswith("().port") or not owner.kind:
        return _by_name(evaluate, name, owner)
    value = _by_name(evaluate, name, owner)
    kind = known.plain(f"{owner.kind}.{name}")
    return Value(value.const, value.role, value.of, kind, call=owner.call, count=owner.count)


def bound(evaluate: Evaluator, method: Value, owner: Value) -> Value:
    if isinstance(method.target, Function) and not method.target.decorated("staticmethod"):
        if method.target.decorated("classmethod") and isinstance(owner.target, Instance):
            owner = Value(target=owner.target.owner, kind=owner.kind.removesuffix("()"))
        return replace(method, target=replace_owner(method.target, owner))
    return method


def option(evaluate: Evaluator, name: str) -> Value:
    """An option of the command line: known by its name only."""
    rank = evaluate.tracer.settings.rank
    if name in ("local_rank", "local_process_index"):
        return Value(const=rank, role="local-rank", of=frozenset({"rank", f"arg:{name}"}))
    if name in ("rank", "global_rank") and evaluate.tracer.settings.argument_rank:
        return Value(const=rank, role="rank", of=frozenset({"rank", "global-rank", f"arg:{name}"}))
    given = evaluate.tracer.arguments.get(name)
    return Value(
        const=UNKNOWN if given is None else given.const,
        role=f"arg:{name}",
        of=frozenset({f"arg:{name}"}),
        kind="str" if given is not None and isinstance(given.const, str) else "",
    )


def _by_name(evaluate: Evaluator, name: str, owner: Value) -> Value:
    rank = evaluate.tracer.settings.rank
    if name in ("local_rank", "local_process_index"):
        return Value(const=rank, role="local-rank", of=frozenset({"rank"}))
    if name in ("global_rank", "process_index"):
        return Value(const=rank, role="rank", of=frozenset({"rank", "global-rank"}))
    if name in (
        "is_main_process",
        "is_global_zero",
        "is_local_main_process",
        "is_world_process_zero",
    ):
        return Value(const=rank == 0, of=frozenset({"rank"}))
    return Value(of=owner.of)


def of_subscript(evaluate: Evaluator, node: ast.Subscript) -> Value:
    owner = evaluate(node.value)
    if isinstance(node.slice, ast.Slice):
        return _slice(evaluate, owner, node.slice)
    key = evaluate(node.slice)
    if owner.kind == "os.environ":
        return environ(evaluate, node, key, None)
    own = evaluate.tracer.own_method(owner, "__getitem__", node, [key])
    if own is not None:
        return own
    if owner.kind.endswith("Store()"):
        evaluate.tracer.happens(f"{owner.kind}.__getitem__", node, (key,), receiver=owner)
    if owner.table is not None and isinstance(key.const, str | int) and key.const in owner.table:
        return chosen(owner.table[key.const], key)
    if owner.items is not None and isinstance(key.const, int):
        if owner.exact and -len(owner.items) <= key.const < len(owner.items):
            return chosen(owner.items[key.const], key)
        return owner.items[0] if owner.items else Value()
    if owner.kind == "sys.argv":
        said = word(key.const, evaluate.tracer.settings.arguments)
        return Value(const=said, role=f"argv:{key.const}", of=frozenset({"argv"}))
    of = owner.of | key.of
    if key.const in ("local_rank", "rank", "world_size"):
        return replace(_by_name(evaluate, str(key.const), owner), kind="")
    return Value(of=of, kind=f"{owner.kind}[]" if owner.kind else "", call=owner.call)


def _slice(evaluate: Evaluator, owner: Value, part: ast.Slice) -> Value:
    bounds = [
        evaluate(bound) if bound is not None else None
        for bound in (part.lower, part.upper, part.step)
    ]
    of = union([bound for bound in bounds if bound is not None])
    of |= {"shard"} if "rank" in of else frozenset()
    marks = [bound.number if bound is not None else None for bound in bounds]
    clear = all(b is None or m is not None for b, m in zip(bounds, marks, strict=True))
    items, exact = owner.items, False
    if owner.exact and items is not None and clear:
        items, exact = items[slice(*marks)], True
    count = None
    if owner.count is not None and clear:
        found = quiet(lambda: len(range(owner.count or 0)[slice(*marks)]))
        count = found if isinstance(found, int) else None
    return Value(of=owner.of | of, kind=owner.kind, items=items, exact=exact, count=count)


def present(evaluate: Evaluator, name: str) -> bool | None:
    environ = evaluate.tracer.environ
    if name in environ:
        return True
    return None if "*" in environ else evaluate.tracer.settings.present(name)


def environ(evaluate: Evaluator, node: ast.AST, key: Value, default: Value | None) -> Value:
    """What os.environ holds under a name: what the script or else the launch put there."""
    if not isinstance(key.const, str):
        return Value(of=frozenset({"env"}))
    name, tracer = key.const, evaluate.tracer
    if name in tracer.environ:
        return tracer.environ[name]
    seen = frozenset({f"env:{name}"})
    if tracer.settings.present(name) is False and "*" not in tracer.environ:
        if default is not None:
            return replace(default, of=default.of | seen)
        tracer.happens("environ.missing", node, (key,))
    rank = tracer.settings.rank
    if name in known.RANK:
        return Value(const=str(rank), role="rank", of=seen | {"rank", "global-rank"})
    if name in known.LOCAL_RANK:
        return Value(const=str(rank), role="local-rank", of=seen | {"rank"})
    if name in known.NODE_RANK:
        return Value(role="node-rank", of=seen)
    if name in known.WORLD_SIZE:
        world = tracer.settings.world
        return Value(const=UNKNOWN if world is None else str(world), role="world-size", of=seen)
    told = tracer.settings.value(name) if "*" not in tracer.environ else None
    return Value(
        const=UNKNOWN if told is None else told,
        role=f"env:{name}",
        of=seen | (default.of if default else frozenset()),
        kind="str",
    )


def replace_owner(function: Function, owner: Value | None) -> Function:
    """The function as a method of that object."""
    return replace(function, owner=owner, first=owner)


def chosen(item: Value, key: Value) -> Value:
    """What stands under a key: it depends on the key as well."""
    return replace(item, of=item.of | key.of) if key.of - item.of else item


OF: Final[Mapping[type[ast.AST], Callable[[Evaluator, Any], Value]]] = {
    ast.Attribute: of_attribute,
    ast.Subscript: of_subscript,
}
