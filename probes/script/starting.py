"""Calls that start processes and threads: what these run is followed."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ddp_assist.probes.script.parts import bound
from ddp_assist.probes.script.value import Args, Call, Class, Function, Kwargs, Value

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator


def start_method_of(evaluate: Evaluator, kind: str, call: Call | None = None) -> str:
    """How a process made by this would be started."""
    chosen = call.get("mp_context") if call is not None else None
    if chosen is not None and chosen.call is not None:
        return start_method_of(evaluate, kind, replace(chosen.call, receiver=chosen))
    if call is not None and call.receiver is not None and call.receiver.call is not None:
        context = call.receiver.call
        if context.name.endswith("get_context"):
            method = context.get("method", 0)
            if method is not None and isinstance(method.const, str):
                return method.const
            if method is not None and not method.known:
                return "unknown"
    return evaluate.tracer.start_method or "default"


def spawn(evaluate: Evaluator, call: Call) -> Value:
    fn, given = call.get("fn", 0), call.get("args", 1)
    method = call.get("start_method", 5)
    how = method.const if method is not None and isinstance(method.const, str) else "spawn"
    rank = evaluate.tracer.settings.rank
    index = Value(const=rank, role="index", of=frozenset({"rank"}))
    rest = given.items if given is not None and given.items is not None and given.exact else []
    if fn is not None:
        evaluate.tracer.child("spawn", how, call, fn, [index, *(rest or [])])
    return Value(kind=f"{call.name}()", call=call)


def process(evaluate: Evaluator, call: Call) -> Value:
    target, given, named = call.get("target", 1), call.get("args", 3), call.get("kwargs", 4)
    rest = given.items if given is not None and given.items is not None and given.exact else []
    table = {str(k): v for k, v in named.table.items()} if named is not None and named.table else {}
    if target is not None and isinstance(target.target, Function):
        names = [a.arg for a in target.target.node.args.args]
        rest = [
            _numbered(name, item) for name, item in zip(names, rest or [], strict=False)
        ] + list((rest or [])[len(names) :])
    if target is not None:
        evaluate.tracer.child(
            "process", start_method_of(evaluate, call.name, call), call, target, rest or [], table
        )
    return Value(kind=f"{call.name}()", call=call)


def _numbered(name: str, item: Value) -> Value:
    """A number written down for a parameter called rank is a rank."""
    plain = isinstance(item.const, int) and not isinstance(item.const, bool) and not item.of
    return (
        replace(item, role="index", of=frozenset({"rank"}))
        if plain and re.search(r"rank|idx|index|worker|^i$|proc", name)
        else item
    )


def pool(evaluate: Evaluator, pool: Value, name: str, args: Args, call: Call) -> None:
    rank = evaluate.tracer.settings.rank
    index = Value(const=rank, role="index", of=frozenset({"rank"}))
    method = start_method_of(evaluate, pool.kind, pool.call)
    if name in ("apply", "apply_async"):
        given = args[1].items if len(args) > 1 and args[1].items else []
    elif name == "submit":
        given = args[1:]
    else:
        over = args[1] if len(args) > 1 else Value()
        if over.items:
            item = over.items[0]
        else:
            item = index if over.kind == "range()" else Value(of=over.of)
        given = item.items if name.startswith("starmap") and item.items else [item]
    evaluate.tracer.child("pool", method, call, args[0], given or [])


def thread(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    call = evaluate.tracer.happens("threading.Thread", node, args, kwargs)
    target, given = call.get("target", 1), call.get("args", 3)
    if target is not None and isinstance(target.target, Function):
        evaluate.tracer.thread += 1
        evaluate.follow(target, (given.items or []) if given is not None else [], {}, node)
        evaluate.tracer.thread -= 1
    return Value(kind="threading.Thread()", call=call)


def own_thread(evaluate: Evaluator, node: ast.Call, receiver: Value, owner: Class) -> None:
    """start() of a class of the project that is a thread."""
    tracer = evaluate.tracer
    made = tracer.happens("threading.Thread", node)
    tracer.happens("threading.Thread().start", node, receiver=Value(call=made))
    run = owner.find("run")
    if run is not None:
        tracer.thread += 1
        evaluate.follow(bound(evaluate, run, receiver), [], {}, node)
        tracer.thread -= 1
