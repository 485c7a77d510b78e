"""Mistakes in the use of a store: what it can do, keys that collide or never come."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import Gang, ScriptFacts
from ddp_assist.probes.script.known import STORE_METHODS, STORES
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.stores import rank_name
from ddp_assist.probes.script.value import Call, Instance, Value

TCP = "torch.distributed.TCPStore"
_HOLDERS = tuple(f"{store}()" for store in STORES)
_MANY = 64
"""More ranks than this are not started by hand: such a third argument was meant as a size."""


def misused(facts: ScriptFacts) -> Iterator[Finding]:
    yield from _wrong_module(facts)
    yield from _as_dict(facts)
    yield from _wrong_value(facts)
    yield from _no_method(facts)
    yield from _size(facts)


def _wrong_module(facts: ScriptFacts) -> Iterator[Finding]:
    for module in (
        "torch.multiprocessing",
        "multiprocessing",
        "torch",
        "torch.nn",
        "torch.utils.data",
    ):
        for call in facts.calls(*(f"{module}.{s.rpartition('.')[2]}" for s in STORES)):
            name = call.name.rpartition(".")[2]
            func = call.node.func if isinstance(call.node, ast.Call) else call.node
            sentence = f"{module} has no {name}; it is in torch.distributed"
            yield at(
                call,
                "store-misused",
                sentence,
                name=name,
                kind="module",
                value_span=place(call.source, func),
            )


def _store_calls(facts: ScriptFacts, method: str) -> list[Call]:
    return facts.calls(*(f"{holder}.{method}" for holder in _HOLDERS))


def _as_dict(facts: ScriptFacts) -> Iterator[Finding]:
    calls = [c for m in ("__setitem__", "__getitem__", "__iadd__") for c in _store_calls(facts, m)]
    if not calls:
        return
    calls.sort(key=lambda c: (getattr(c.node, "lineno", 0), getattr(c.node, "col_offset", 0)))
    sentence = (
        "a TCPStore is no dict: there is no item access, only set, get, add, wait and the like"
    )
    yield at(
        calls[0],
        "store-misused",
        sentence,
        kind="dict",
        places=[place(c.source, c.node) for c in calls],
    )


def _wrong_value(facts: ScriptFacts) -> Iterator[Finding]:
    for call in _store_calls(facts, "set"):
        value = call.get("value", 1)
        what = _not_text(value)
        if what:
            node = call.node_of("value", 1) or call.node
            sentence = f"store.set only takes str or bytes, and {what} is given"
            yield at(
                call,
                "store-misused",
                sentence,
                kind="value",
                value=what,
                value_span=place(call.source, node),
            )
    for call in _store_calls(facts, "add"):
        value = call.get("amount", 1)
        text = value is not None and (isinstance(value.const, str) or value.kind == "str")
        if value is not None and (isinstance(value.const, float) or value.kind == "float" or text):
            sentence = "store.add only takes whole numbers"
            node = call.node_of("amount", 1) or call.node
            span = place(call.source, node)
            digits = isinstance(value.const, str) and value.const.isdigit()
            kind = "digits" if digits else "float"
            yield at(call, "store-misused", sentence, kind=kind, name="add", value_span=span)
    for call in _store_calls(facts, "get"):
        if len(call.args) > 1 or call.kwargs.keys() - {"key"}:
            sentence = "store.get takes the key alone: it has no default, and waits for the key"
            yield at(call, "store-misused", sentence, kind="default", name="get")
    for call in facts.calls(TCP):
        limit = call.get("timeout", 4)
        plain = limit is not None and isinstance(limit.const, int | float)
        if limit is not None and (plain or limit.kind in ("int", "float")):
            sentence = "the timeout of a store is a timedelta, no number of seconds"
            node = call.node_of("timeout", 4) or call.node
            span = place(call.source, node)
            yield at(call, "store-misused", sentence, kind="timeout", value_span=span)
    yield from _bytes_as_text(facts)
    for suffix in ("__op__", "__compare__"):
        for call in facts.calls(*(f"{h}.get().{suffix}" for h in _HOLDERS)):
            others = [a for a in call.args if a is not call.receiver]
            if suffix == "__compare__" and not any(
                isinstance(o.const, int | float) for o in others
            ):
                continue
            sentence = (
                "store.get gives bytes, which are no number: wrap it in int(...) or float(...)"
            )
            yield at(call, "store-misused", sentence, kind="bytes")


_OF_TEXT_ONLY = ("encode", "format", "casefold", "isdecimal", "isnumeric")
_IN_KIND = ("split", "rsplit", "partition", "replace", "startswith", "endswith", "count", "find")
"""Methods of bytes whose arguments must be bytes as well."""


def _bytes_as_text(facts: ScriptFacts) -> Iterator[Finding]:
    """What get() gave, used where only text will do."""
    for call in facts.calls(*(f"{h}.get().{m}" for h in _HOLDERS for m in _OF_TEXT_ONLY)):
        yield _not_decoded(call, f"bytes have no {call.name.rpartition('.')[2]}()")
    for call in facts.calls(*(f"{h}.get().{m}" for h in _HOLDERS for m in _IN_KIND)):
        if any(isinstance(a.const, str) for a in call.args):
            yield _not_decoded(call, f"{call.name.rpartition('.')[2]}() of bytes takes no text")
    for call in facts.calls("environ.set", "environ.setdefault"):
        if len(call.args) > 1 and call.args[1].kind in {f"{h}.get()" for h in _HOLDERS}:
            yield _not_decoded(call, "os.environ takes text")
    for call in facts.calls(*(f"{h}.get().__compare__" for h in _HOLDERS)):
        if any(isinstance(a.const, str) for a in call.args):
            yield _not_decoded(call, "bytes are never equal to text")


def _not_decoded(call: Call, why: str) -> Finding:
    sentence = f"store.get gives bytes, and {why}: put .decode() behind it"
    made = call.receiver if call.receiver is not None else call.args[-1]
    span = place(made.call.source, made.call.node) if made.call is not None else None
    where = {"value_file": str(made.call.source.path)} if made.call is not None else {}
    return at(call, "store-misused", sentence, kind="text", value_span=span, **where)


def _not_text(value: Value | None) -> str:
    if value is None:
        return ""
    if value.known and not isinstance(value.const, str | bytes):
        return f"{value.const!r}" if not isinstance(value.const, tuple) else "a list or tuple"
    if re.match(r"(torch|numpy)\.[\w.]*\(\)(\.\w+\(\))*$", value.kind) and not value.kind.endswith(
        ("tobytes()", "tostring()", "dumps()", "getvalue()", "read()", "__str__()", "hex()")
    ):
        return "a tensor" if value.kind.startswith("torch.") else "an array"
    if isinstance(value.target, Instance) and value.target.owner is not None:
        return f"an object of {value.target.owner.node.name}"
    return {
        "dict": "a dict",
        "list": "a list",
        "tuple": "a tuple",
        "int": "a number",
        "float": "a number",
        "range()": "a range",
    }.get(value.kind, "")


def _no_method(facts: ScriptFacts) -> Iterator[Finding]:
    for call in _store_calls(facts, "__enter__"):
        sentence = (
            "a store is no context manager: it has no __enter__; it closes when it is deleted"
        )
        yield at(call, "store-misused", sentence, kind="with", name="__enter__")
    for holder in _HOLDERS:
        for trace in facts.traces[:1]:
            for call in trace.calls:
                start, _, method = call.name.rpartition(".")
                if (
                    start == holder
                    and not method.startswith("__")
                    and not method.endswith("=")
                    and method not in STORE_METHODS
                ):
                    sentence = f"a {holder[:-2].rpartition('.')[2]} has no method {method}"
                    yield at(call, "store-misused", sentence, kind="method", name=method)


def _size(facts: ScriptFacts) -> Iterator[Finding]:
    for call in facts.calls(TCP):
        size = facts.value_of(call.get("world_size", 2))
        wait = call.get("wait_for_workers", 5)
        if not isinstance(size, int) or (wait is not None and wait.const is False):
            continue
        gang = next((g for g in facts.gangs if g.process.number == call.process.number), facts.main)
        started = max((g.size or 0 for g in facts.gangs), default=0)
        if (
            size > _MANY
            and (started == 0 or size >= 8 * started)
            and (gang.many is not True or started)
        ):
            node = call.node_of("world_size", 2) or call.node
            sentence = (
                f"the third argument of TCPStore is world_size, no size in bytes: the host waits "
                f"for {size} clients"
            )
            yield at(
                call,
                "store-misused",
                sentence,
                kind="size",
                size=size,
                value_span=place(call.source, node),
                positional=bool(isinstance(call.node, ast.Call) and len(call.node.args) > 2),
            )


def race(facts: ScriptFacts) -> Iterator[Finding]:
    """Ranks that overwrite each other, and a counter raised too late."""
    for gang in facts.gangs:
        if gang.many is False:
            continue
        streams = [
            [c for c in s if c.name.endswith("Store().set") and c.args] for s in gang.streams
        ]
        for call in streams[0]:
            key = call.args[0]
            value = call.get("value", 1)
            if not isinstance(key.const, str) or value is None or call.stray:
                continue
            others = [
                o
                for s in streams[1:]
                for o in s
                if o.node is call.node and o.args[0].const == key.const
            ]
            if not others or (gang.process.number == 0 and gang.many is None):
                continue
            if f"store:{key.const}" in value.of:
                sentence = (
                    f"get, change, set of {key.const!r} is no single step: two ranks "
                    "overwrite each other; add() is one"
                )
            elif "rank" in value.of and key.const in _read_keys(gang):
                sentence = (
                    f"every rank sets the same key {key.const!r}, so the last one "
                    "overwrites the others: one key a rank, or a collective"
                )
            else:
                continue
            key_node = call.node_of("key", 0) or call.node
            yield at(
                call,
                "store-race",
                sentence,
                key=key.const,
                counts=f"store:{key.const}" in value.of,
                key_span=place(call.source, key_node),
                rank=rank_name(facts, gang, call),
            )
            return
    yield from _too_late(facts)


def _read_keys(gang: Gang) -> set[object]:
    return {
        a.const
        for c in gang.calls
        if c.name.endswith(("Store().get", "Store().wait", "Store().multi_get"))
        for a in c.args
    } | {
        word[6:]
        for c in gang.calls
        for v in (*c.args, *c.tests)
        for word in v.of
        if word.startswith("store:")
    }


def _waited(facts: ScriptFacts) -> Iterator[tuple[Call, str]]:
    """Keys that somebody waits for, with the call that waits."""
    for call in facts.ending("Store().get", "Store().wait", "Store().__getitem__"):
        wants_default = call.name.endswith(".get") and len(call.args) > 1
        if call.handler or not call.args or wants_default:
            continue
        keys = call.args[0].items if call.args[0].items is not None else [call.args[0]]
        for key in keys or []:
            if isinstance(key.const, str):
                yield call, key.const
    for loop in facts.calls("while"):
        for word in loop.args[0].of:
            if word.startswith("store:"):
                yield loop, word[6:]


_WRITES = (
    "Store().set",
    "Store().add",
    "Store().append",
    "Store().compare_set",
    "Store().multi_set",
    "Store().__setitem__",
    "Store().__iadd__",
    "Store().queue_push",
)


def never_set(facts: ScriptFacts) -> Iterator[Finding]:
    writes = facts.ending(*_WRITES)
    if not facts.traces[0].complete or any(
        not c.args or not isinstance(c.args[0].const, str) for c in writes
    ):
        return
    if any("PrefixStore" in c.name for c in writes) or facts.ending("Store().check"):
        return
    if not facts.calls(TCP):
        return
    keys = {c.args[0].const for c in writes}
    for call, key in _waited(facts):
        if key not in keys and writes and not call.stray:
            sentence = f"a rank waits for the key {key!r}, which nobody sets"
            read = sorted({k for _, k in _waited(facts)})
            every = sorted(map(str, keys))
            yield at(call, "store-key-never-set", sentence, key=key, keys=every, read=read)
            return


def _too_late(facts: ScriptFacts) -> Iterator[Finding]:
    """The parent raises a counter after it has joined the children that wait for it."""
    calls = facts.traces[0].calls
    for call, key in _waited(facts):
        if call.process.number == 0:
            continue
        writes = [
            c for c in calls if c.name.endswith(_WRITES) and c.args and c.args[0].const == key
        ]
        joins = [i for i, c in enumerate(calls) if _joins(c)]
        if not writes or not joins or any(c.process.number for c in writes):
            continue
        raised = [c for c in writes if calls.index(c) > joins[0] and "range" not in c.name]
        counted = [
            c for c in raised if c.name.endswith(("add", "__iadd__")) or len(raised) == len(writes)
        ]
        if counted:
            sentence = (
                f"{key!r} is only set here after the workers were joined, and the workers "
                "wait for it: neither goes on"
            )
            join = calls[joins[0]]
            where = {"join": place(join.source, join.node), "join_file": str(join.source.path)}
            yield at(counted[0], "store-race", sentence, key=key, late=True, **where)
            return


def _joins(call: Call) -> bool:
    """Whether the parent waits here until its workers have ended."""
    if call.process.number:
        return False
    if call.name == "torch.multiprocessing.spawn":
        wait = call.get("join", 3)
        return wait is None or wait.const is not False
    return call.name.endswith(".join") and not call.name.startswith(("str", "os"))


CHECKS = (
    misused,
    race,
    never_set,
)
