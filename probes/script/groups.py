"""Mistakes with init_process_group: called how, how often, with which rank and size."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import INIT, SETTERS, ScriptFacts
from ddp_assist.probes.script.known import COLLECTIVES
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call


def group_twice(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        for stream in gang.streams:
            open_call: Call | None = None
            for call in stream:
                if call.stray or call.handler:
                    continue
                if call.name == "torch.distributed.destroy_process_group":
                    open_call = None
                elif open_call is None and _makes_by_itself(facts, call):
                    open_call = call
                elif call.name == INIT:
                    if call.depends("initialized"):
                        continue
                    if call.looped and not call.tries and _again(stream, call):
                        sentence = (
                            "init_process_group is called in every round of a loop, and the group "
                            "of the round before is still there"
                        )
                        yield at(call, "process-group-twice", sentence, loop=True)
                        return
                    if (
                        open_call is not None
                        and not open_call.excludes(call)
                        and not _either(open_call, call)
                    ):
                        first = open_call.source.where(getattr(open_call.node, "lineno", 1))
                        sentence = (
                            "init_process_group is called a second time in the same "
                            f"process (first in {first})"
                            if open_call.name == INIT
                            else f"{open_call.name.rpartition('.')[2]} in {first} has made the "
                            "default process group already, and init_process_group makes it again"
                        )
                        yield at(
                            call, "process-group-twice", sentence, first=first, **_first(open_call)
                        )
                        return
                    open_call = call


_MAKERS = (
    "accelerate.Accelerator",
    "accelerate.PartialState",
    "accelerate.state.PartialState",
    "deepspeed.init_distributed",
    "torch.distributed.init_device_mesh",
    "torch.distributed.device_mesh.init_device_mesh",
    "transformers.TrainingArguments",
)
"""What makes the default group where there is none yet."""


def _makes_by_itself(facts: ScriptFacts, call: Call) -> bool:
    """Under a launcher; started plainly, most of these make no group."""
    return call.name in _MAKERS and facts.launcher in SETTERS and not call.process.number


def _again(stream: tuple[Call, ...], call: Call) -> bool:
    """Whether the loop around a call goes on with the group that it made."""
    loop = call.loops[-1]
    comprehension = isinstance(loop, ast.ListComp | ast.SetComp | ast.GeneratorExp)
    if not comprehension and not isinstance(loop, ast.For | ast.AsyncFor):
        return False
    if isinstance(loop, ast.For | ast.AsyncFor) and _leaves_loop(loop):
        return False
    return not any(
        c.name == "torch.distributed.destroy_process_group" and loop in c.loops for c in stream
    )


def _leaves_loop(loop: ast.For | ast.AsyncFor) -> bool:
    return any(isinstance(n, ast.Break | ast.Return) for part in loop.body for n in ast.walk(part))


def _first(call: Call) -> dict[str, object]:
    return {"first_file": str(call.source.path), "first_span": place(call.source, call.node)}


def _either(first: Call, second: Call) -> bool:
    """Whether conditions of which nothing is known may keep the two apart."""
    return bool(second.path or first.path) and first.path != second.path[: len(first.path)]


def group_missing(facts: ScriptFacts) -> Iterator[Finding]:
    """Collectives or DDP, and nothing in this process that makes a group."""
    if facts.frameworks or not facts.traces[0].complete or _elsewhere(facts):
        return
    for gang, stream in ((g, s) for g in facts.gangs for s in g.streams):
        if any(_makes_group(c.name) and not for_nobody(facts, c) for c in stream):
            late = _after_the_end(stream)
            if late is not None:
                what = late.name.rpartition(".")[2]
                sentence = f"{what} comes after destroy_process_group: the group is gone by then"
                yield at(late, "process-group-missing", sentence, what=what, late=True)
                return
            continue
        for call in stream:
            if (
                call.stray
                or call.handler
                or call.tries
                or call.depends("initialized")
                or call.tests
            ):
                continue
            if needs_group(call):
                if (
                    gang.process.number
                    and any(c.name == INIT for c in facts.main.streams[0])
                    and gang.process.method != "spawn"
                ):
                    continue
                what = call.name.rpartition(".")[2]
                sentence = (
                    f"{what} needs a process group, but init_process_group is never "
                    "called in this process"
                )
                more = {**_unused_setup(facts, call), **_alone(facts)}
                yield at(call, "process-group-missing", sentence, what=what, **more)
                return


def for_nobody(facts: ScriptFacts, call: Call) -> bool:
    """Whether it stands in a function whose name is written nowhere but where it is defined."""
    maker = call.stack[0] if call.stray and call.stack else None
    if not isinstance(maker, ast.FunctionDef) or maker.decorator_list:
        return False
    word = re.compile(rf"\b{re.escape(maker.name)}\b")
    return sum(len(word.findall(source.text)) for source in facts.project.read()) == 1


def _alone(facts: ScriptFacts) -> dict[str, object]:
    """The `if` on the rank around an init_process_group that only one rank comes to."""
    ranks = [{id(c.node) for c in t.calls if c.name == INIT} for t in facts.traces]
    for call in facts.calls(INIT):
        tree = call.source.tree
        if call.stray or id(call.node) in ranks[0] & ranks[1] or tree is None:
            continue
        on_rank = facts.traces[0].on_rank
        around = [n for n in ast.walk(tree) if id(n) in on_rank and call.node in ast.walk(n)]
        if call.source is facts.source and around:
            return {"alone": place(call.source, max(around, key=lambda n: getattr(n, "lineno", 0)))}
    return {}


def _unused_setup(facts: ScriptFacts, needs: Call) -> dict[str, object]:
    """A function that makes the group and that nothing calls, for the correction."""
    for call in facts.calls(INIT):
        maker = call.stack[0] if call.stray and len(call.stack) == 1 else None
        if isinstance(maker, ast.FunctionDef) and call.source is facts.source:
            return {"setup": maker.name, "takes": [a.arg for a in maker.args.args]}
        if isinstance(maker, ast.FunctionDef) and for_nobody(facts, call):
            first = next((n for n in (*needs.stack, needs.node) if n in _nodes(facts)), None)
            if first is None:
                continue
            takes = [a.arg for a in maker.args.args]
            where = {"begins": getattr(first, "lineno", 1), "begins_file": str(facts.source.path)}
            return {"setup": maker.name, "takes": takes, "setup_module": call.source.name, **where}
    return {}


def _nodes(facts: ScriptFacts) -> set[ast.AST]:
    return set(ast.walk(facts.source.tree)) if facts.source.tree is not None else set()


def _after_the_end(stream: tuple[Call, ...]) -> Call | None:
    """A collective that surely comes after the group was destroyed."""
    gone = False
    for call in stream:
        plain = not (call.stray or call.handler or call.tests or call.tries)
        if _makes_group(call.name):
            gone = False
        elif call.name == "torch.distributed.destroy_process_group":
            whole = not call.args and "group" not in call.kwargs
            gone = gone or (plain and whole and not call.looped)
        elif gone and plain and needs_group(call) and "Parallel" not in call.name:
            return call
    return None


def _makes_group(name: str) -> bool:
    return name == INIT or name.endswith(
        (
            "init_device_mesh",
            "init_distributed",
            "init_rpc",
            "ProcessGroupGloo",
            "init_process_group",
        )
    )


def needs_group(call: Call) -> bool:
    start, _, last = call.name.rpartition(".")
    if start == "torch.distributed" and last in COLLECTIVES:
        return True
    if call.name in ("torch.distributed.get_rank", "torch.distributed.get_world_size"):
        return True
    if call.name.endswith(".DistributedSampler"):
        return call.get("num_replicas", 1) is None or call.get("rank", 2) is None
    return call.name == "torch.nn.parallel.DistributedDataParallel"


def _elsewhere(facts: ScriptFacts) -> bool:
    """Whether a foreign library may make the group."""
    pattern = re.compile(
        r"init|setup|launch|dist|prepare|engine|runner|parallel|fabric|strategy|mesh", re.I
    )
    for call in facts.main.calls:
        top = call.name.partition(".")[0]
        if (
            "." in call.name
            and top in facts.imports
            and top
            not in (
                "torch",
                "os",
                "sys",
                "logging",
                "random",
                "numpy",
                "datetime",
                "time",
                "argparse",
                "multiprocessing",
                "socket",
            )
        ):
            last = call.name.rpartition(".")[2]
            if (
                pattern.search(call.name)
                and not isinstance(call.node, ast.For)
                and last != "ArgumentParser"
            ):
                return True
    return False


def local_as_global(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        for call in gang.streams[0]:
            if call.name == INIT:
                value, position, keyword = call.get("rank", 4), 4, "rank"
            elif call.name.endswith("DistributedSampler"):
                value, position, keyword = call.get("rank", 2), 2, "rank"
            else:
                continue
            if value is None or value.role != "local-rank":
                continue
            node = call.node_of(keyword, position) or call.node
            span = place(call.source, node)
            if facts.nnodes is not None and facts.nnodes > 1:
                sentence = (
                    "LOCAL_RANK is given as the rank: it starts at 0 on every node, so two nodes "
                    "have the "
                    "same ranks; the global one is RANK"
                )
                yield at(call, "local-rank-as-rank", sentence, value_span=span)
                return
            if facts.nnodes is None and facts.target.plan is None:
                sentence = "LOCAL_RANK is given as the rank, which is only right on a single node"
                yield at(call, "local-rank-as-rank-maybe", sentence, value_span=span)
                return


def world_size(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        for call in gang.streams[0]:
            if call.name != INIT or call.stray or call.tests:
                continue
            value, rank = call.get("world_size", 3), call.get("rank", 4)
            told = facts.value_of(value)
            if (
                not isinstance(told, int)
                or isinstance(told, bool)
                or gang.size is None
                or gang.many is None
            ):
                continue
            own = gang.process.number == 0 or (rank is not None and rank.role == "index")
            late = rank is not None and rank.role == "index" and (rank.number or 0) > 0
            if not own or (told == gang.size and not late):
                continue
            parent = any(c.name == INIT for c in facts.main.streams[0]) and gang.process.number
            if late and rank is not None:
                if parent:
                    continue
                sentence = (
                    f"ranks count from {rank.number} here, so rank 0, which hosts the "
                    "store, is never started"
                )
                begun = gang.process.call
                loop = begun.loops[-1] if begun is not None and begun.loops else None
                span = place(begun.source, loop) if begun is not None and loop else None
                more = {"loop": span, "loop_file": str(begun.source.path) if begun else ""}
                yield at(
                    call,
                    "rank-never-started",
                    sentence,
                    world_size=told,
                    started=gang.size,
                    **more,
                )
                return
            if told > gang.size and not parent:
                sentence = (
                    f"world_size is {told}, but {gang.size} processes are started: they "
                    "wait for ranks that nobody starts"
                )
                begun = gang.process.call
                node = begun.node_of("nprocs", 2) if begun is not None else None
                span = (
                    place(call.source, node)
                    if node is not None and begun is not None and begun.source is call.source
                    else None
                )
                yield at(
                    call,
                    "world-size-mismatch",
                    sentence,
                    world_size=told,
                    started=gang.size,
                    started_span=span,
                    value_span=_given_size(call),
                )
                return
            if told < gang.size:
                sentence = (
                    f"world_size is {told}, but {gang.size} processes are started: ranks "
                    f"from {told} on are refused"
                )
                yield at(
                    call,
                    "world-size-mismatch",
                    sentence,
                    world_size=told,
                    started=gang.size,
                    value_span=_given_size(call),
                )
                return


def _given_size(call: Call) -> list[int] | None:
    node = call.node_of("world_size", 3)
    return place(call.source, node) if node is not None else None


CHECKS = (
    group_twice,
    group_missing,
    local_as_global,
    world_size,
)
