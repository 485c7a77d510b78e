"""Mistakes with how processes are started, and what they inherit: forks, methods, daemons."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.children import started_by, starts
from ddp_assist.probes.script.facts import SPAWNS, Gang, ScriptFacts
from ddp_assist.probes.script.known import is_pool, is_process
from ddp_assist.probes.script.locks import how, takes
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Class, Function, Instance, Value


def fork_cuda(facts: ScriptFacts) -> Iterator[Finding]:
    main = facts.main.streams[0]
    for gang in facts.gangs:
        call = gang.process.call
        if not gang.process.number or call is None or call not in main:
            continue
        method = how(gang)
        if method != "fork":
            continue
        before = [
            c
            for c in main[: main.index(call)]
            if uses_cuda(c) and not c.excludes(call) and _same_run(c, call)
        ]
        if before and any(uses_cuda(c) for c in gang.streams[0]):
            where = before[0].source.where(getattr(before[0].node, "lineno", 1))
            sentence = (
                f"the workers are forked after CUDA was used in {where}: a forked process "
                "can't use CUDA again; start them with spawn"
            )
            begun, span = _begun(gang, call), _context(call)
            yield at(begun, "fork-after-cuda", sentence, cuda=where, value_span=span)
            return
    for call in facts.calls("torch.utils.data.DataLoader"):
        workers = facts.value_of(call.get("num_workers", 5))
        dataset = call.get("dataset", 0)
        held = dataset.target if dataset is not None else None
        owner = held.owner if isinstance(held, Instance) else None
        if (
            not isinstance(workers, int)
            or workers < 1
            or not isinstance(owner, Class)
            or call.get("multiprocessing_context")
        ):
            continue
        item = owner.find("__getitem__")
        if item is None or not isinstance(item.target, Function):
            continue
        inner = item.target.node
        for other in facts.traces[0].calls:
            if other.stack and other.stack[-1] is inner and uses_cuda(other):
                sentence = (
                    "the DataLoader's workers are forked, and __getitem__ uses CUDA in "
                    "them; move the batch to the GPU in the loop"
                )
                yield at(other, "fork-after-cuda", sentence, loader=True)
                return


def uses_cuda(call: Call) -> bool:
    """Whether this call makes a CUDA context."""
    if call.name.endswith(".cuda") and call.name != "torch.cuda":
        return True
    if call.name.startswith("torch.cuda.") and call.name.rpartition(".")[2] in (
        "set_device",
        "init",
        "current_device",
        "synchronize",
        "empty_cache",
        "mem_get_info",
        "get_device_properties",
        "manual_seed_all",
    ):
        return call.name.rpartition(".")[2] != "manual_seed_all"
    values = [call.get("device"), *(call.args if call.name.endswith(".to") else ())]
    return any(
        v is not None and (v.text.startswith("cuda") or v.kind == "torch.device()" and _is_cuda(v))
        for v in values
    )


def _is_cuda(value: Value) -> bool:
    return (
        value.call is not None
        and bool(value.call.args)
        and value.call.args[0].text.startswith("cuda")
    )


def _same_run(first: Call, second: Call) -> bool:
    """Whether one surely comes after the other: of functions that nothing calls only in one."""
    return not first.stray or (second.stray and first.stack[:1] == second.stack[:1])


def _context(call: Call) -> list[int] | None:
    """Where get_context("fork") names the way a process is started."""
    if call.name == "torch.multiprocessing.start_processes":
        told = call.node_of("start_method", 5)
        return place(call.source, told) if told is not None else None
    context: Call | None = call
    while context is not None and not context.name.endswith("get_context"):
        context = context.receiver.call if context.receiver is not None else None
    node = context.node_of("method", 0) if context is not None else None
    return place(context.source, node) if context is not None and node is not None else None


def _begun(gang: Gang, call: Call) -> Call:
    """Where the processes come from: of a pool, where that is made."""
    pool = call.receiver.call if gang.process.via == "pool" and call.receiver is not None else None
    return pool or call


def fork_threads(facts: ScriptFacts) -> Iterator[Finding]:
    main = facts.traces[0].calls
    thread = next(
        (
            i
            for i, c in enumerate(main)
            if c.name == "threading.Thread" and not c.process.number and not c.stray
        ),
        None,
    )
    if thread is None:
        return
    held = {id(c.receiver.call) for c in main if c.thread and takes(c) and c.receiver is not None}
    for gang in facts.gangs:
        call = gang.process.call
        if not gang.process.number or call is None or call not in main or main.index(call) < thread:
            continue
        if how(gang) != "fork":
            continue
        wants = [
            c
            for c in gang.streams[0]
            if takes(c) and c.receiver is not None and id(c.receiver.call) in held
        ]
        started = any(c.name == "threading.Thread().start" for c in main[: main.index(call)])
        span = _context(call)
        if wants and started:
            sentence = (
                "the workers are forked while a thread of the parent may hold a lock that "
                "they take: in them it stays locked for ever"
            )
            yield at(
                call,
                "fork-with-threads",
                sentence,
                lock=wants[0].source.where(getattr(wants[0].node, "lineno", 1)),
                value_span=span,
            )
        elif started:
            yield at(
                call,
                "fork-with-threads-maybe",
                "the workers are forked while the parent has other threads; what those hold "
                "stays locked in the workers",
                value_span=span,
            )
        return


def start_method(facts: ScriptFacts) -> Iterator[Finding]:
    stream = [c for c in facts.main.streams[0] if not c.stray and not c.handler]
    fixed: Call | None = None
    for call in stream:
        name = call.name.rpartition(".")[2]
        ours = (
            call.name.startswith(("multiprocessing.", "torch.multiprocessing."))
            and "()" not in call.name
        )
        if not ours:
            continue
        if name == "set_start_method":
            force = call.get("force", 1)
            if force is not None and force.const is not False:
                fixed = None
                continue
            if (
                fixed is not None
                and not call.tries
                and not fixed.excludes(call)
                and not call.depends("main-guard")
            ):
                where = fixed.source.where(getattr(fixed.node, "lineno", 1))
                sentence = (
                    f"the start method is set here, but {where} has already fixed it; set "
                    "it once, first of all, or with force=True"
                )
                yield at(
                    call,
                    "start-method-already-set",
                    sentence,
                    first=where,
                    insert=place(call.source, call.node),
                )
                return
            if call.looped and not call.tries and not call.tests:
                sentence = (
                    "the start method is set in every round of a loop: the second time fails; set "
                    "it once, or with force=True"
                )
                yield at(
                    call,
                    "start-method-already-set",
                    sentence,
                    first="",
                    insert=place(call.source, call.node),
                )
                return
            fixed = call
        elif name in (
            "Process",
            "Queue",
            "Lock",
            "Pool",
            "Manager",
            "Value",
            "Array",
            "Event",
            "Barrier",
            "SimpleQueue",
            "RLock",
            "Semaphore",
            "JoinableQueue",
            "Pipe",
        ):
            fixed = fixed or (call if name != "Pipe" else None)
    for call in stream:
        if (
            not call.name.endswith("set_start_method")
            or call.guarded
            or not call.top
            or call.tests
            or call.tries
        ):
            continue
        force = call.get("force", 1)
        spawns = [c for c, p in starts(facts) if started_by(facts, c, p) in ("spawn", "forkserver")]
        if spawns and not (force is not None and force.const is True) and not call.source.notebook:
            sentence = (
                "set_start_method runs again in every spawned child, which imports this "
                "file, and fails there; put it under the __main__ guard"
            )
            yield at(
                call, "start-method-already-set", sentence, insert=place(call.source, call.node)
            )
            return


def daemonic(facts: ScriptFacts) -> Iterator[Finding]:
    text_daemon = {
        id(c.receiver.call)
        for c in facts.traces[0].calls
        if c.name.endswith(".daemon=")
        and c.receiver is not None
        and c.receiver.call is not None
        and c.args
        and c.args[0].const is True
    }
    for gang in facts.gangs:
        call = gang.process.call
        if call is None:
            continue
        flag = call.get("daemon")
        if gang.process.via == "spawn":
            flag = call.get("daemon", 4)
        is_daemon = (
            (flag is not None and flag.const is True)
            or id(call) in text_daemon
            or gang.process.via == "pool"
            and "Executor" not in call.name
        )
        if not is_daemon:
            continue
        for inner in gang.streams[0]:
            workers = (
                facts.value_of(inner.get("num_workers", 5))
                if inner.name == "torch.utils.data.DataLoader"
                else 0
            )
            if (
                inner.name in SPAWNS
                or is_process(inner.name)
                or is_pool(f"{inner.name}()")
                or (isinstance(workers, int) and workers > 0)
            ):
                what = "DataLoader workers" if inner.name.endswith("DataLoader") else "processes"
                sentence = (
                    f"{what} are started here inside a daemonic process, which may have no children"
                )
                yield at(
                    inner,
                    "daemonic-parent",
                    sentence,
                    daemon_span=place(call.source, call.node),
                    daemon_file=str(call.source.path),
                )
                return


def dropped(facts: ScriptFacts) -> Iterator[Finding]:
    calls = facts.traces[0].calls
    for call in calls:
        wait = call.get("join", 3) if call.name in SPAWNS else None
        if wait is None or wait.const is not False or call.stray:
            continue
        joined = [
            c
            for c in calls
            if c.receiver is not None and c.receiver.call is call or c.name == f"{call.name}().join"
        ]
        if not joined and not re.search(r"\.join\(|\.processes", facts.source.text):
            node = call.node_of("join", 3) or call.node
            sentence = (
                "join=False gives back a context that nobody keeps or joins: the parent "
                "may end before its workers are up"
            )
            yield at(call, "context-dropped", sentence, value_span=place(call.source, node))
            return


CHECKS = (
    fork_cuda,
    fork_threads,
    start_method,
    daemonic,
    dropped,
)
