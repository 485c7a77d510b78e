"""Methods of what a script holds: lists, tables, text, pools, and objects of its own."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.parts import bound
from ddp_assist.probes.script.starting import own_thread, pool, start_method_of
from ddp_assist.probes.script.value import UNKNOWN, Args, Call, Instance, Value, union

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator

_ITSELF: Final = ("cuda", "to", "cpu", "float", "half", "double", "train", "eval")
"""Methods of a module that give back the module."""
_MAPS: Final = (
    "map",
    "imap",
    "imap_unordered",
    "map_async",
    "starmap",
    "starmap_async",
    "apply",
    "apply_async",
    "submit",
)


def of_method(
    evaluate: Evaluator, node: ast.Call, receiver: Value, name: str, args: Args, call: Call
) -> Value | None:
    """Methods of things that the script holds."""
    if receiver.items is not None and name in ("append", "add") and args:
        receiver.items.append(args[0])
        _grown(evaluate, node, receiver)
        return Value(const=None)
    if receiver.items is not None and name in ("extend", "insert", "pop", "remove", "clear"):
        _grown(evaluate, node, receiver, exact=False)
        return Value(const=None) if name != "pop" else receiver.items[0] if receiver.items else None
    if receiver.table is not None and name == "items":
        pairs = [
            Value(items=[Value(const=k), v], exact=True, of=v.of) for k, v in receiver.table.items()
        ]
        return Value(items=pairs, exact=receiver.exact, of=receiver.of, kind="list")
    if receiver.table is not None and name in ("values", "keys"):
        parts = receiver.table.values() if name == "values" else map(_const, receiver.table)
        return Value(items=list(parts), exact=receiver.exact, of=receiver.of, kind="list")
    if receiver.table is not None and name == "copy":
        return replace(receiver, table=dict(receiver.table))
    if receiver.table is not None and name == "update":
        for other in args:
            receiver.table.update(other.table or {})
        receiver.table.update(call.kwargs)
        return Value(const=None)
    if receiver.table is not None and name == "get" and args and args[0].known:
        found = receiver.table.get(args[0].const) if isinstance(args[0].const, str | int) else None
        return found or Value()
    if isinstance(receiver.const, str) or receiver.kind == "str":
        return _text(receiver, name, args)
    if known.is_pool(receiver.kind) and name in _MAPS and args:
        pool(evaluate, receiver, name, args, call)
    if (
        name == "start"
        and isinstance(receiver.target, Instance)
        and receiver.target.owner is not None
        and receiver.target.owner.comes_from("threading.Thread")
    ):
        own_thread(evaluate, node, receiver, receiver.target.owner)
    elif (
        name == "start"
        and isinstance(receiver.target, Instance)
        and receiver.target.owner is not None
    ):
        run = receiver.target.owner.find("run")
        if run is not None and receiver.target.owner.comes_from(".Process"):
            evaluate.tracer.child(
                "process",
                start_method_of(evaluate, receiver.kind),
                call,
                bound(evaluate, run, receiver),
                [],
            )
    if name in _ITSELF and isinstance(receiver.target, Instance):
        return receiver
    return None


def _grown(evaluate: Evaluator, node: ast.Call, held: Value, exact: bool = True) -> None:
    """A list that was changed: what was known of it as a whole is so no more."""
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    exact = exact and held.exact and not evaluate.tracer.loops
    changed = replace(
        held, const=UNKNOWN, exact=exact, count=None, of=held.of | union(held.items or [])
    )
    if isinstance(owner, ast.Name):
        evaluate.tracer.assign(owner, changed)
    elif isinstance(owner, ast.Attribute):
        held_by = evaluate(owner.value).target
        if isinstance(held_by, Instance):
            held_by.attrs[owner.attr] = changed


def _const(key: object) -> Value:
    return Value(const=key)


def _text(receiver: Value, name: str, args: Args) -> Value | None:
    const = receiver.const
    if name == "format" and isinstance(const, str):
        of = receiver.of | union(args)
        if all(a.known for a in args):
            try:
                return Value(const=const.format(*(a.const for a in args)), of=of)
            except (IndexError, KeyError, ValueError, AttributeError):
                return Value(of=of)
        return Value(
            pattern=const, of=of, kind="str", mix=next((a.mix for a in args if a.mix), None)
        )
    if name == "join" and isinstance(const, str) and args and args[0].items is not None:
        parts = args[0].items
        of = receiver.of | union(parts)
        if args[0].exact and all(isinstance(p.const, str) for p in parts):
            return Value(const=const.join(str(p.const) for p in parts), of=of)
        text = const.join(p.text or "{}" for p in parts) if args[0].exact else ""
        return Value(pattern=text, of=of, kind="str")
    if name in ("lower", "upper", "strip") and isinstance(const, str):
        return replace(receiver, const=getattr(const, name)() if not args else UNKNOWN)
    if name == "encode":
        return replace(receiver, kind="bytes")
    if name in (
        "isdigit",
        "startswith",
        "endswith",
        "split",
        "partition",
        "replace",
        "count",
        "find",
        "rpartition",
    ):
        return Value(of=receiver.of, kind="str" if name == "replace" else "")
    return None
