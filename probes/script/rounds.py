"""Loops that one rank leaves before the others, who then wait for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import Gang, ScriptFacts
from ddp_assist.probes.script.ranks import DDP, collectives, differs_by_rank
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call


def _wrapped_in(gang: Gang, loop: ast.AST) -> str:
    """The name of the DDP model that a loop calls, where nothing else in it needs all ranks."""
    inside = _inside(gang, loop)
    if collectives(tuple(inside)):
        return ""
    for call in inside:
        if call.name.startswith(f"{DDP}()") and isinstance(call.node, ast.Call):
            func = call.node.func
            if isinstance(func, ast.Name | ast.Attribute) and call.node in ast.walk(loop):
                name = call.source.code(func)
                return name if name.count(".") <= 1 else ""
    return ""


def uneven(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        if gang.many is False or any("Join" in w.kind for c in gang.streams[0] for w in c.within):
            continue
        wrapped = any(c.name == DDP for c in gang.streams[0])
        loops = [
            {id(c.node): c for c in stream if c.name == "for" and not c.stray}
            for stream in gang.streams
        ]
        found = _bounded(gang)
        if found is not None:
            call, bounds, span = found
            sentence = (
                f"this loop runs up to another number in each rank ({bounds[0]} on one, "
                f"{bounds[1]} on another): the one with fewer rounds leaves the others waiting"
            )
            yield at(call, "uneven-inputs", sentence, steps=bounds, bound_span=span)
            return
        for key, call in loops[0].items():
            twin = loops[-1].get(key)
            here, there = call.args[0], twin.args[0] if twin is not None else None
            if (
                there is None
                or "rank" not in here.of | there.of
                or not _together(gang, call.node, wrapped)
            ):
                continue
            if here.count is not None and there.count is not None:
                if here.count == there.count:
                    continue
                sentence = (
                    f"the ranks take a different number of steps in this loop ({here.count} on "
                    f"one, {there.count} on "
                    "another): the one with fewer leaves the others waiting"
                )
                model = _wrapped_in(gang, call.node)
                steps = [here.count, there.count]
                yield at(call, "uneven-inputs", sentence, steps=steps, model=model)
                return
            if "shard" in here.of:
                sentence = (
                    "this loop runs over the rank's own share: where the shares are uneven, the "
                    "rank "
                    "with fewer steps leaves the others waiting"
                )
                model = _wrapped_in(gang, call.node)
                yield at(call, "uneven-inputs-maybe", sentence, model=model)
                return


def _bounded(gang: Gang) -> tuple[Call, list[object], list[int] | None] | None:
    """A while loop with collectives whose limit is another one in each rank."""
    wrapped = any(c.name == DDP for c in gang.streams[0])
    twins = {id(c.node): c for c in gang.streams[-1] if c.name in ("while", "break")}
    for call in gang.streams[0]:
        twin = twins.get(id(call.node))
        if call.name not in ("while", "break") or call.stray or twin is None:
            continue
        if len(call.args) != 3 or len(twin.args) != 3:
            continue
        test = call.node.test if isinstance(call.node, ast.While | ast.If) else None
        parts = [test.left, *test.comparators] if isinstance(test, ast.Compare) else []
        for at_index, (mine, other) in enumerate(zip(call.args[1:], twin.args[1:], strict=False)):
            if differs_by_rank(mine, other) and _together(gang, _loop_of(call), wrapped):
                span = place(call.source, parts[at_index]) if at_index < len(parts) else None
                return call, [mine.const, other.const], span
    return None


def _loop_of(call: Call) -> ast.AST:
    return call.loops[-1] if call.name == "break" else call.node


def _together(gang: Gang, loop: ast.AST, wrapped: bool) -> bool:
    """Whether the ranks need each other in the body of a loop."""
    inside = _inside(gang, loop)
    return bool(collectives(tuple(inside))) or (
        wrapped and any(c.name.endswith(".backward") for c in inside)
    )


def _inside(gang: Gang, loop: ast.AST) -> list[Call]:
    """What one rank does in the body of a loop."""
    body = loop.body if isinstance(loop, ast.For | ast.While) else []
    nodes = {id(n) for part in body for n in ast.walk(part)}
    return [c for c in gang.streams[0] if any(id(n) in nodes for n in (*c.stack, c.node))]


CHECKS = (uneven,)
