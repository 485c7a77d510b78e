"""The odd one out among ranks that should stand at the same place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.code import Parting, parting
from ddp_assist.probes.jobs.ranks import Rank
from ddp_assist.probes.jobs.scene import Scene, named, those
from ddp_assist.probes.jobs.sentences import finding, others, place, waits
from ddp_assist.probes.jobs.stacks import Stack
from ddp_assist.probes.jobs.state import Doing
from ddp_assist.probes.model import Finding


def compared(scene: Scene) -> list[Finding]:
    """The odd one out among ranks that should stand at the same place."""
    known = [(d, s) for d in scene.alive if (s := scene.stack(d)) is not None]
    locked = [(d, s) for d, s in known if s.in_lock and d.rests]
    if locked:
        return [_lock(scene, locked, len(known))]
    if forked := [(d, s) for d, s in known if not s.is_waiting and _lacks_threads(d)]:
        return [_without_threads(scene, forked)]
    stored = [(d, s) for d, s in known if s.phase == "store" and d.rests]
    if stored and _is_old(scene):
        first = stored[0][1]
        who = those([d.rank for d, _ in stored], "waits", "wait")
        sentence = f"{who} for a key of the store at {first.where}"
        return [finding(scene, "store-waiting", sentence, rank=stored[0][0].rank.rank,
                         where=first.where)]  # fmt: skip
    waiting = [(d, s) for d, s in known if d.spins or s.is_waiting and d.rests]
    others = [(d, s) for d, s in known if (d, s) not in waiting and d.state != "starting"]
    if not waiting:
        return []
    if others and len(known) == len(scene.alive):
        return _held_up(scene, waiting, others)
    if others or len(known) < len(scene.alive):
        return []
    places = {(s.where, s.waits_in) for _, s in waiting}
    if all(s.in_rendezvous for _, s in waiting):
        return []
    if len(places) > 1:
        return [_apart(scene, waiting)]
    return _all_at_one_place(scene, waiting)


def _is_old(scene: Scene) -> bool:
    return scene.quiet is None or scene.is_calm


def _lock(scene: Scene, locked: Sequence[tuple[Doing, Stack]], known: int) -> Finding:
    who = those([d.rank for d, _ in locked], "waits", "wait")
    stack = locked[0][1]
    waits = "" if len(locked) == known else f", while {others(scene)}"
    return finding(scene, "lock-waiting", f"{who} for a lock at {stack.where}{waits}",
                    where=stack.where, rank=locked[0][0].rank.rank)  # fmt: skip


def _lacks_threads(doing: Doing) -> bool:
    """Forked from a process with threads, and asleep for good in a lock of native code."""
    process = doing.rank.process
    parent = snapshot().get(process.ppid)
    return (
        doing.cpu == 0.0
        and doing.sleeps_in.startswith("futex")
        and parent is not None
        and parent.argv == process.argv
        and len(parent.thread_names or ()) > 1
    )


def _without_threads(scene: Scene, forked: Sequence[tuple[Doing, Stack]]) -> Finding:
    who, stack = those([d.rank for d, _ in forked], "was", "were"), forked[0][1]
    return finding(
        scene, "lock-waiting",
        f"{who} forked from a process with threads, and at {stack.where} there is a wait for"
        " what those would have to do: they are not in the fork",
        where=stack.where, rank=forked[0][0].rank.rank,
    )  # fmt: skip


def _held_up(
    scene: Scene, waiting: Sequence[tuple[Doing, Stack]], others: Sequence[tuple[Doing, Stack]]
) -> list[Finding]:
    """Some wait, and some do something else."""
    odd, stack = others[0]
    ranks = [d.rank for d, _ in others]
    who = those(ranks, "is", "are")
    held = waits(scene, [d for d, _ in waiting])
    way = parting(stack.spots, waiting[0][1].spots)
    data = {"rank": odd.rank.rank, "where": stack.where or (stack.frames or ("?",))[0],
            "ranks_odd": [d.rank.rank for d, _ in others][:64], "parted_by": way.text,
            "turns": dict(stack.turns)}  # fmt: skip
    if odd.works and not scene.is_long:
        return []
    at = f"at {data['where']}"
    if all(s.in_rendezvous for _, s in waiting):
        return [finding(scene, "not-yet-there",
                         f"{who} still {at}, and {held}", **data)]  # fmt: skip
    if odd.state == "loading-data" or stack.phase == "data":
        sentence = f"{who} in the data loader {at}, while {held}"
        return [finding(scene, "loading", sentence, **data)]
    if odd.works:
        who = those(ranks, "works alone", "work")
        return [finding(scene, "busy-alone", f"{who} {at}, while {held}", **data)]
    if way.how == "left-loop":
        return [_left_loop(scene, ranks, at, held, way, data)]
    if way.how in ("own-branch", "branches"):  # meant for it alone; it waits for something itself
        return [finding(scene, "busy-alone", f"{who} {at}{_by(way)}, while {held}", **data)]
    return [finding(scene, "behind", f"{who} {at}{_by(way)}, while {held}", **data)]


def _by(way: Parting) -> str:
    return f" (parted by '{way.text}')" if way.text else ""


def _left_loop(
    scene: Scene, ranks: Sequence[Rank], at: str, held: str, way: Parting, data: Mapping[str, Any]
) -> Finding:
    who = those(ranks, "has left", "have left")
    sentence = f"{who} the loop '{way.text}' (now {at}), while {held}"
    return finding(scene, "left-loop", sentence, **data)


def _apart(scene: Scene, waiting: Sequence[tuple[Doing, Stack]]) -> Finding:
    """All wait, but not for the same thing."""
    groups: dict[tuple[str, str], list[tuple[Doing, Stack]]] = {}
    for d, s in waiting:
        groups.setdefault((s.where, s.waits_in), []).append((d, s))
    *fewer, many = sorted(groups.values(), key=len)
    ways = [(some, parting(some[0][1].spots, many[0][1].spots)) for some in fewer]
    # Of several, who stands in a branch of its own; the others may only have got less far.
    few, way = next(((some, way) for some, way in ways if way.how), ways[0])
    if way.how != "left-loop" and len(few) == len(many):
        back = parting(many[0][1].spots, few[0][1].spots)
        if back.how == "left-loop":
            few, many, way = many, few, back
    odd, stack = few[0]
    ranks = [d.rank for d, _ in few]
    held = " and ".join(
        waits(scene, [d for d, _ in some])
        for some in (many, *[some for some in fewer if some is not few and some is not many][-2:])
    )
    does = place(scene, odd)
    who = named(ranks)
    if len(ranks) > 1:
        does = does.replace("waits ", "wait ", 1)
    data = {
        "rank": odd.rank.rank, "where": stack.where, "parted_by": way.text,
        "ranks_odd": [d.rank.rank for d, _ in few][:64], "turns": dict(stack.turns),
    }  # fmt: skip
    if way.how == "left-loop":
        return _left_loop(scene, ranks, does, held, way, data)
    if way.how in ("branch", "own-branch"):
        return finding(scene, "in-branch", f"{who} {does}{_by(way)}, while {held}", **data)
    return finding(scene, "apart",
                    f"the ranks wait at different places: {who} {does}{_by(way)}, while {held}",
                    **data)  # fmt: skip


def _all_at_one_place(scene: Scene, waiting: Sequence[tuple[Doing, Stack]]) -> list[Finding]:
    turns = {d.rank.rank: tuple(sorted(s.turns.items())) for d, s in waiting}
    votes = Counter(turns.values()).most_common()
    held = waits(scene, [d for d, _ in waiting])
    usual = dict(votes[0][0])
    if len(votes) > 1:
        odd = next(d for d, _ in waiting if turns[d.rank.rank] != votes[0][0])
        mine = dict(turns[odd.rank.rank])
        name = next((n for n in usual if n in mine and mine[n] != usual[n]), None)
        if name is not None:
            return [finding(scene, "turns-differ",
                             f"{named([odd.rank])} is at {name}={mine[name]}, others at"
                             f" {name}={usual[name]}: {held}", rank=odd.rank.rank,
                             where=waiting[0][1].where)]  # fmt: skip
    if any(d.spins for d, _ in waiting):
        return [finding(scene, "gpu-wait",
                         f"{held}, and have not moved between two looks: the GPUs have much to do,"
                         " or a collective does not end",
                         where=waiting[0][1].where, turns=usual)]  # fmt: skip
    if scene.job.elsewhere:
        lacking = ", ".join(map(str, scene.job.elsewhere[:8]))
        silent = [d for d, _ in waiting if d.wires.retrying]
        if silent:
            peer = silent[0].wires.retrying[0].peer
            return [finding(scene, "peer-silent",
                             f"{held}; {peer} does not answer any more (rank {lacking} is not on"
                             " this host)", peer=peer)]  # fmt: skip
        return [finding(scene, "waits-for-elsewhere",
                         f"{held}; rank {lacking} is on another host")]  # fmt: skip
    if scene.job.world_size == len(waiting) and waiting[0][1].waits_in != "barrier":
        return [finding(scene, "same-call", f"{held}: all are there, and none goes on",
                         where=waiting[0][1].where)]  # fmt: skip
    return [finding(scene, "all-waiting", held)]
