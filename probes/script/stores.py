"""Mistakes with torch's stores: who hosts, what they can do, who shares them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import AGENT_STORE, INIT, Gang, ScriptFacts
from ddp_assist.probes.script.known import STORE_METHODS, STORES
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Value

TCP = "torch.distributed.TCPStore"
_HOLDERS = tuple(f"{store}()" for store in STORES)
_MANY = 64
"""More ranks than this are not started by hand: such a third argument was meant as a size."""


def hosted(facts: ScriptFacts) -> Iterator[Finding]:
    """Several processes that host one port, or none."""
    calls = facts.calls(TCP)
    if not calls:
        return
    masters = [c for c in calls if _master(c) is not False]
    for gang in facts.gangs:
        seen = [[c for c in stream if c.name == TCP and not c.stray] for stream in gang.streams]
        if not seen[0]:
            continue
        call = seen[0][0]
        always = [_master(_matching(call, other)) for other in seen]
        port = call.get("port", 1)
        fixed = (
            port is not None
            and (port.known and port.const != 0 or not port.known)
            and not ({"rank", "free-port"} & port.of)
        )
        many = gang.many is True or (gang.many is None and _runs_as_many(facts, call))
        if all(m is True for m in always) and fixed and many and not call.tests:
            sentence = "is_master is True in every rank, so each of them tries to host the store; only one may"
            node = call.node_of("is_master", 3)
            span = place(call.source, node) if node is not None else None
            yield at(
                call, "store-hosted-twice", sentence, value_span=span, rank=_rank_name(facts, gang)
            )
            return
        agent = (
            facts.launcher in AGENT_STORE and port is not None and port.role == "env:MASTER_PORT"
        )
        if agent and True in always:
            sentence = (
                f"{facts.launcher} already hosts a store on MASTER_PORT; this one tries to host "
                "another on the same port"
            )
            node = call.node_of("is_master", 3)
            yield at(
                call,
                "store-hosted-twice",
                sentence,
                value_span=place(call.source, node) if node else None,
                agent=True,
            )
            return
        again = _second_host(facts, gang, call, always)
        if again is not None:
            yield at(
                again,
                "store-hosted-twice",
                "this hosts a store on the port where the script already hosts one; hand the store over with store=",
            )
            return
    if masters:
        return
    call = calls[0]
    host, port = call.get("host_name", 0), call.get("port", 1)
    if (
        port is None
        or port.role == "env:MASTER_PORT"
        or "argv" in port.of
        or (host is not None and "argv" in host.of)
    ):
        return
    sentence = "is_master is True in no process, so nobody hosts the store and all wait to connect"
    span = place(call.source, call.node)
    several = call.get("world_size", 2) is not None or any(g.process.number for g in facts.gangs)
    gang = next((g for g in facts.gangs if g.process.number == call.process.number), facts.main)
    outcome = "store-not-hosted" if several else "store-not-hosted-maybe"
    yield at(call, outcome, sentence, value_span=span, rank=_rank_name(facts, gang))


def _matching(call: Call, others: list[Call]) -> Call:
    return next((o for o in others if o.node is call.node), call)


def _master(call: Call) -> bool | None:
    """Whether a TCPStore call hosts; None where that is not known."""
    value = call.get("is_master", 3)
    if value is None:
        return None if call.partial else False
    return bool(value.const) if value.known else None


def _runs_as_many(facts: ScriptFacts, call: Call) -> bool:
    """Of a script of which nobody says how often it is started."""
    size = facts.value_of(call.get("world_size", 2))
    ranks = [c.get("rank", 4) for c in facts.calls(INIT)]
    own = any(r is not None and (r.of & {"argv", "rank"} or r.role) for r in ranks)
    return isinstance(size, int) and 1 < size <= _MANY and (own or "rank" in facts.source.text)


def _rank_name(facts: ScriptFacts, gang: Gang) -> str:
    """The name the rank has where the store is made, for a correction."""
    for call in gang.streams[0]:
        if call.name == INIT:
            node = call.node_of("rank", 4)
            if isinstance(node, ast.Name):
                return node.id
    function = gang.process.function
    if (
        function is not None
        and not isinstance(function.node, ast.Lambda)
        and function.node.args.args
    ):
        return function.node.args.args[0].arg
    return ""


def _second_host(
    facts: ScriptFacts, gang: Gang, call: Call, always: list[bool | None]
) -> Call | None:
    """env:// or tcp:// on the very port that the script hosts itself."""
    port = facts.value_of(call.get("port", 1))
    if always[0] is not True or port in (None, 0):
        return None
    stream = gang.streams[0]
    told = [
        c
        for c in stream
        if c.name == "environ.set"
        and c.args[0].const == "MASTER_PORT"
        and str(facts.value_of(c.args[1])) == str(port)
    ]
    for later in stream[stream.index(call) + 1 :] if call in stream else ():
        if later.name != INIT or later.get("store", 6) is not None or later.partial:
            continue
        method = later.get("init_method", 1)
        text = method.text if method is not None else ""
        if (told and (not text or text == "env://")) or text.endswith(f":{port}"):
            return later
    return None


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


def _not_text(value: Value | None) -> str:
    if value is None:
        return ""
    if value.known and not isinstance(value.const, str | bytes):
        return f"{value.const!r}" if not isinstance(value.const, tuple) else "a list or tuple"
    if re.match(r"(torch|numpy)\.[\w.]*\(\)(\.\w+\(\))*$", value.kind) and not value.kind.endswith(
        ("tobytes()", "tostring()", "dumps()", "getvalue()", "read()", "__str__()", "hex()")
    ):
        return "a tensor" if value.kind.startswith("torch.") else "an array"
    return {"dict": "a dict", "list": "a list", "tuple": "a tuple"}.get(value.kind, "")


def _no_method(facts: ScriptFacts) -> Iterator[Finding]:
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
            yield at(call, "store-misused", sentence, kind="size", size=size, value_span=place(call.source, node),
                     positional=bool(isinstance(call.node, ast.Call) and len(call.node.args) > 2))  # fmt: skip


def shared(facts: ScriptFacts) -> Iterator[Finding]:
    """One store in several processes."""
    for gang in facts.gangs:
        call = gang.process.call
        given = (
            call.get("args", 1 if gang.process.via == "spawn" else 3) if call is not None else None
        )
        for index, item in enumerate((given.items or []) if given is not None else []):
            if item.kind in _HOLDERS and call is not None:
                how = (
                    "can't be pickled for"
                    if gang.process.method not in ("fork", "default")
                    else "must not be shared with"
                )
                sentence = f"a store object {how} another process: hand over host and port, and open a client in each"
                node = call.node_of("args", 1 if gang.process.via == "spawn" else 3)
                item_node = (
                    node.elts[index]
                    if isinstance(node, ast.Tuple | ast.List) and index < len(node.elts)
                    else node
                )
                function = gang.process.function
                parameter = ""
                if function is not None and not isinstance(function.node, ast.Lambda):
                    names = [a.arg for a in function.node.args.args]
                    at_index = index + (gang.process.via == "spawn")
                    parameter = names[at_index] if at_index < len(names) else ""
                made = item.call
                yield at(call, "store-object-shared", sentence,
                         item_span=place(call.source, item_node) if item_node is not None else None,
                         parameter=parameter,
                         function_file=str(function.source.path) if function is not None else "",
                         function_span=place(function.source, function.node) if function is not None else None,
                         store_span=place(made.source, made.node) if made is not None else None,
                         host=made.source.code(made.node_of("host_name", 0) or made.node) if made is not None else "")  # fmt: skip
                return
        if not gang.process.number:
            continue
        for used in gang.streams[0]:
            receiver = used.receiver
            if receiver is None or receiver.kind not in _HOLDERS or receiver.call is None:
                continue
            if receiver.call.process.number == 0 and gang.process.method in ("fork", "default"):
                sentence = (
                    "the workers are forked and use the parent's store connection together: their requests "
                    "and answers mix; open a client in each"
                )
                yield at(used, "store-object-shared", sentence)
                return


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
                sentence = f"get, change, set of {key.const!r} is no single step: two ranks overwrite each other; add() is one"
            elif "rank" in value.of and key.const in _read_keys(gang):
                sentence = f"every rank sets the same key {key.const!r}, so the last one overwrites the others: one key a rank, or a collective"
            else:
                continue
            key_node = call.node_of("key", 0) or call.node
            yield at(
                call,
                "store-race",
                sentence,
                key=key.const,
                key_span=place(call.source, key_node),
                rank=_rank_name(facts, gang),
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
        if call.handler or not call.args:
            continue
        keys = call.args[0].items if call.args[0].items is not None else [call.args[0]]
        for key in keys or []:
            if isinstance(key.const, str):
                yield call, key.const
    for loop in facts.calls("while"):
        for word in loop.args[0].of:
            if word.startswith("store:"):
                yield loop, word[6:]


_WRITES = ("Store().set", "Store().add", "Store().append", "Store().compare_set", "Store().multi_set", "Store().__setitem__", "Store().__iadd__", "Store().queue_push")  # fmt: skip


def never_set(facts: ScriptFacts) -> Iterator[Finding]:
    writes = facts.ending(*_WRITES)
    if not facts.traces[0].complete or any(
        not c.args or not isinstance(c.args[0].const, str) for c in writes
    ):
        return
    if any("PrefixStore" in c.name for c in writes) or facts.ending("Store().check"):
        return
    made = facts.calls(TCP)
    if not made or any(
        not c.get("port", 1)
        or not facts.value_of(c.get("port", 1))
        and "store-port" in c.get("port", 1).of
        for c in made
    ):  # type: ignore[union-attr]
        return
    keys = {c.args[0].const for c in writes}
    for call, key in _waited(facts):
        if key not in keys and writes and not call.stray:
            sentence = f"a rank waits for the key {key!r}, which nobody sets"
            yield at(call, "store-key-never-set", sentence, key=key, keys=sorted(map(str, keys)))
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
        joins = [
            i for i, c in enumerate(calls)
            if c.process.number == 0 and (c.name.endswith(".join") and not c.name.startswith(("str", "os"))
            or (c.name == "torch.multiprocessing.spawn" and (c.get("join", 3) is None or c.get("join", 3).const is not False)))  # type: ignore[union-attr]
        ]  # fmt: skip
        if not writes or not joins or any(c.process.number for c in writes):
            continue
        raised = [c for c in writes if calls.index(c) > joins[0] and "range" not in c.name]
        counted = [
            c for c in raised if c.name.endswith(("add", "__iadd__")) or len(raised) == len(writes)
        ]
        if counted:
            sentence = f"{key!r} is only set here after the workers were joined, and the workers wait for it: neither goes on"
            yield at(counted[0], "store-race", sentence, key=key, late=True)
            return


def left_early(facts: ScriptFacts) -> Iterator[Finding]:
    """The host sets something and goes, while others still ask for it."""
    for gang in facts.gangs:
        if gang.many is False:
            continue
        host = next(
            (
                c
                for c in gang.streams[0]
                if c.name == TCP and _master(c) is True and c.process.number == gang.process.number
            ),
            None,
        )
        if host is None:
            continue
        other = gang.streams[-1]
        client = next((c for c in other if c.name == TCP and _master(c) is False), None)
        if client is None:
            continue
        rest = gang.streams[0][gang.streams[0].index(host) + 1 :]
        waits = [
            c
            for c in rest
            if c.name.endswith(("Store().get", "Store().wait", ".barrier", ".join", "time.sleep"))
            or c.name in (INIT, "while")
            or c.name == "input"
        ]
        asks = [
            c
            for c in other[other.index(client) + 1 :]
            if c.name.endswith(("Store().get", "Store().wait"))
        ]
        if (
            asks
            and not waits
            and rest
            and not any(
                c.name.startswith("torch.distributed.") and "Store" not in c.name for c in rest
            )
        ):
            sentence = "the rank that hosts the store does not wait for the others: when it ends, the store is gone"
            yield at(host, "store-left-early-maybe", sentence)
            return


CHECKS = (hosted, misused, shared, race, never_set, left_early)
