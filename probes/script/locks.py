"""Locks and tensors that hold within one process, where several are meant to share them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import Gang, ScriptFacts, handed
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call

LOCKS = (
    "threading.Lock()",
    "threading.RLock()",
    "threading.Semaphore()",
    "threading.BoundedSemaphore()",
)


def locks(facts: ScriptFacts) -> Iterator[Finding]:
    """A threading lock that is meant to hold between processes."""
    threads = (
        any(c.name == "threading.Thread" for c in facts.traces[0].calls)
        or "ThreadPool" in facts.source.text
    )
    for gang in facts.gangs:
        if not gang.process.number:
            continue
        method = how(gang)
        call = gang.process.call
        passed = [i for i in (handed(call) if call is not None else []) if i.kind in LOCKS]
        used = [c for c in gang.streams[0] if takes(c) and c.receiver is not None]
        for value, where in [*((p, call) for p in passed), *((u.receiver, u) for u in used)]:
            if value is None or where is None or value.call is None:
                continue
            other = value.call.process.number != gang.process.number
            if (
                not other
                or (value not in passed and threads)
                or (value in passed and method != "fork")
            ):
                continue
            if value not in passed and not _is_shared_work(gang):
                continue
            if method != "fork" and not value.call.top:
                continue  # it came out of an object that was pickled, and knows how to be
            name = value.kind[:-2]
            sentence = (
                f"a {name} only holds between the threads of one process: every worker process "
                "has its "
                "own copy of it; use the Lock of multiprocessing and hand it to the workers"
            )
            made = value.call
            yield at(
                where,
                "lock-not-shared",
                sentence,
                lock=name,
                made_file=str(made.source.path),
                made_span=place(made.source, made.node),
                made_line=made.source.line(getattr(made.node, "lineno", 1)),
                function_span=place(gang.process.function.source, gang.process.function.node)
                if gang.process.function
                else None,
                start_span=place(call.source, call.node) if call is not None else None,
                method=method,
            )
            return
    yield from _not_shared_tensor(facts)


def takes(call: Call) -> bool:
    return (
        call.receiver is not None
        and call.receiver.kind in LOCKS
        and call.name.endswith((".__enter__", ".acquire"))
    )


def _is_shared_work(gang: Gang) -> bool:
    """Whether there is more than one of these processes: one alone needs no such lock."""
    return gang.many is not False


def how(gang: Gang) -> str:
    """fork is what Linux does where nobody says otherwise."""
    return "fork" if gang.process.method == "default" else gang.process.method


def _not_shared_tensor(facts: ScriptFacts) -> Iterator[Finding]:
    """A module-level tensor that the workers change and the parent reads afterwards."""
    main = facts.main.streams[0]
    for gang in facts.gangs:
        call = gang.process.call
        if not gang.process.number or call is None or call not in main:
            continue
        after = main[main.index(call) + 1 :]
        for change in gang.streams[0]:
            value = change.receiver
            inplace = change.name.endswith((".__setitem__", ".__iadd__")) or re.search(
                r"\.[a-z_]+[a-z]_$", change.name
            )
            if (
                value is None
                or value.call is None
                or not inplace
                or not value.kind.startswith("torch.")
            ):
                continue
            if value.call.process.number or "share_memory" in value.kind or not value.call.top:
                continue
            if any(
                c.name.endswith("share_memory_")
                and c.receiver is not None
                and c.receiver.call is value.call
                for c in main
            ):
                continue
            if any(item.call is value.call for item in handed(call)):
                continue  # torch's own pickling shares a tensor that is handed over
            if any(c.receiver is not None and c.receiver.call is value.call for c in after):
                sentence = (
                    "the workers change a copy of this tensor: what a module holds is not "
                    "shared between processes"
                )
                made = value.call
                where: dict[str, object] = {"made_span": place(made.source, made.node)}
                where |= {"made_file": str(made.source.path), "method": how(gang)}
                yield at(change, "lock-not-shared", sentence, tensor=True, **where)
                return


CHECKS = (locks,)
