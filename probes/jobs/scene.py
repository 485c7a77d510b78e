"""One look at a job with all that is seen in it, and whether anything moved between two looks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddp_assist.probes.jobs.ranks import Job, Rank
from ddp_assist.probes.jobs.stacks import Stack, stacks
from ddp_assist.probes.jobs.state import ENDED, Doing, State, watch

CALM = 5.0
"""Seconds without a byte between the ranks before a wait is called one."""
PATIENT = 10.0
"""Seconds that others may wait for a rank that works before it is worth a word."""
PATIENCE = 3.0
"""Between two looks, where the sockets do not tell for how long it has been quiet."""
PHASES: Mapping[str, State] = {
    "rendezvous": "in-rendezvous", "collective": "in-collective", "data": "loading-data",
    "import": "starting", "compile": "compiling", "checkpoint": "checkpointing",
    "lock": "in-lock",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """A job, what each of its ranks does, and the stacks that could be had."""

    job: Job
    doing: tuple[Doing, ...]
    at: Mapping[int, Stack] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
    quiet: float | None = field(init=False, default=None)
    """Seconds since anything went between ranks that wait; None where nothing tells."""

    def stack(self, doing: Doing) -> Stack | None:
        return self.at.get(doing.rank.process.pid)

    @property
    def alive(self) -> list[Doing]:
        return [d for d in self.doing if d.state not in ENDED]

    @property
    def waiting(self) -> list[Doing]:
        """Ranks in a call that needs the others."""
        return [d for d in self.alive if d.waits and d.rests]

    def __post_init__(self) -> None:
        """Asked for many times, and each time of every connection."""
        spans = [d.wires.quiet if d.wires.peers else d.wires.store_quiet for d in self.waiting]
        known = [span for span in spans if span is not None]
        object.__setattr__(self, "quiet", min(known) if known else None)

    @property
    def is_calm(self) -> bool:
        return self.quiet is not None and self.quiet >= CALM

    @property
    def is_long(self) -> bool:
        """Whether the wait is long enough even for a rank that works meanwhile."""
        return self.quiet is None or self.quiet >= PATIENT


def see(job: Job, with_stacks: bool = True) -> Scene:
    """Looks once."""
    doing = watch([job])[job.id]
    return seen(job, doing, with_stacks)


def seen(job: Job, doing: Sequence[Doing], with_stacks: bool = True) -> Scene:
    """What is known of a job that was just watched."""
    live = [d.rank.process.pid for d in doing if d.state not in (*ENDED, "stopped", "frozen")]
    found = stacks(live) if with_stacks else None
    at = found.at if found else {}
    told = [_told(job, d, at.get(d.rank.process.pid)) for d in doing]
    told.sort(key=lambda d: (d.rank.rank is None, d.rank.rank or 0, d.rank.process.started))
    job.ranks = [d.rank for d in told]
    if job.world_size is None:
        sizes = {s.world_size for s in at.values() if s.world_size}
        job.world_size = sizes.pop() if len(sizes) == 1 else None
    return Scene(job, tuple(told), at, found.refused if found else {})


def _told(job: Job, doing: Doing, stack: Stack | None) -> Doing:
    """What the stack knows better than the outside: the number of the rank, and what it is in."""
    if stack is None:
        return doing
    rank = doing.rank
    number = stack.given
    if number is None and rank.told_by != "environment":
        number = stack.rank
    if number is not None and number != rank.rank:
        rank = replace(rank, rank=number, told_by="stack")
    state = PHASES.get(stack.phase)
    if doing.nccl and doing.cpu > 0.5 and (stack.waits_in or stack.phase == "sync"):
        return replace(doing, rank=rank, state="in-collective", where=stack.where, spins=True)
    if state is None or doing.state == "disk-sleep":
        # Threads of a group are no sign of waiting where the stack shows a line of the script.
        state = "idle" if doing.state == "in-group" and stack.where else doing.state
        if doing.state == "starting" and stack.where:
            state = "computing"  # the imports are behind it: it is in its own code
    elif stack.waits_in and doing.cpu > 0.5:
        state = "computing"  # a backward pass, or a reduction on the processor
    return replace(doing, rank=rank, state=state, where=stack.where or doing.where)


def settled(job: Job, with_stacks: bool = True) -> tuple[Scene, bool]:
    """A scene and whether it stands still: what waits for a moment is no hang.

    Silence on the sockets tells it in one look; where that is short or unknown, a second look
    must show the same picture.
    """
    first = see(job, with_stacks)
    if not first.waiting and not any(d.state in ("in-lock", "idle") for d in first.alive):
        return first, False
    spins = any(d.spins for d in first.alive)
    needed = PATIENT if spins or any(d.works for d in first.alive) else CALM
    if first.quiet is not None and first.quiet >= needed and not spins:
        return first, True
    left = needed - first.quiet if first.quiet is not None else PATIENCE
    if spins:  # a long step looks like it, and between GPUs of one host no socket tells
        left = PATIENT
    time.sleep(max(0.2, left + 0.1))
    second = see(job, with_stacks)
    return second, _is_same(first, second)


def _is_same(first: Scene, second: Scene) -> bool:
    before = {d.rank.process.pid: d for d in first.doing}
    for now in second.doing:
        then = before.get(now.rank.process.pid)
        if then is None or then.state != now.state or then.wires.moved != now.wires.moved:
            return False
        one, other = first.stack(then), second.stack(now)
        if one and other and not now.works and (one.where, one.turns) != (other.where, other.turns):
            return False
    return True


def named(ranks: Sequence[Rank]) -> str:
    """How a sentence lists them."""
    numbers = ["?" if r.rank is None else str(r.rank) for r in ranks]
    shown = numbers if len(numbers) <= 8 else [*numbers[:8], f"{len(numbers) - 8} more"]
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(shown)


def those(ranks: Sequence[Rank], does: str, do: str) -> str:
    """Ranks with the verb that fits their number."""
    return f"{named(ranks)} {does if len(ranks) == 1 else do}"
