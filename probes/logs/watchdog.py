"""What the NCCL watchdogs of several ranks report, held against each other.

Each watchdog names the collective that its rank waited for in vain, by number, kind and size. Ranks
that wait for the same one were let down by somebody else; ranks that differ went separate ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ddp_assist.probes.logs.ranks import Line
from ddp_assist.probes.model import Evidence, Finding
from ddp_assist.probes.text import clean

WORK = re.compile(
    r"WorkNCCL\(SeqNum=(?P<number>\d{1,12}), OpType=(?P<kind>\w{1,40}), "
    r"(?:NumelIn=(?P<into>\d{1,18}), NumelOut=(?P<out>\d{1,18}), )?Timeout"
)
QUEUE = re.compile(r"last enqueued (?:NCCL )?work: (?P<number>\d{1,12})\b", re.IGNORECASE)
GAVE_UP = re.compile(r"\b(?:at work|at NCCL work|work sequence id): (?P<number>\d{1,12})\b")
# A group's number on its own rank says nothing to the others; its GUID does.
GROUP = re.compile(r"\[PG (?:ID \S+ PG GUID )?(?P<group>[^\s\](]{1,40})")
MEMBER = re.compile(r"\bRank (?P<rank>\d{1,7})\]")
WORLD = "the whole job"
SAME_SIZE = re.compile(r"_?(ALLREDUCE|BROADCAST|REDUCE|ALLGATHER|REDUCE_SCATTER)(_BASE|_SPARSE)?\Z")
"""Collectives to which every rank must hand as much as the others."""


BETWEEN_TWO = frozenset({"SEND", "RECV", "COALESCED", "UNKNOWN"})
"""What ranks do with one another by twos, each its own part."""


@dataclass(frozen=True, slots=True)
class Work:
    """The collective that one rank waited for in vain."""

    number: int
    kind: str
    size: str
    line: Line

    @property
    def name(self) -> str:
        size = f" of {self.size} elements" if self.size else ""
        return f"{self.kind} number {self.number}{size}"


@dataclass(slots=True)
class Group:
    """What the ranks of one process group told."""

    waits: dict[int, Work] = field(default_factory=dict)
    unclear: bool = False
    """Whether a rank waited for several things."""
    queued: dict[int, Line] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)


def ranks_apart(lines: Sequence[Line]) -> Finding | None:
    """In what the ranks of a process group differ, if they do."""
    found = (_apart(group.waits) or _behind(group) for group in _groups(lines).values())
    return next(filter(None, found), None)


def _groups(lines: Sequence[Line]) -> Mapping[str, Group]:
    """By process group; what a rank reports first is what it waited for."""
    told = [line for line in lines if line.rank is not None and "ork" in line.text]
    gave_up = _gave_up(told)
    groups: dict[str, Group] = {}
    for line in told:
        work, queue = WORK.search(line.text), QUEUE.search(line.text)
        if line.rank is None or (work is None and queue is None):
            continue
        number = int(work["number"]) if work else -1
        named = _named(line) or gave_up.get((line.rank, number), WORLD)
        group = groups.setdefault(named, Group())
        if work is not None and work["kind"] not in BETWEEN_TWO:
            one = Work(number, work["kind"], work["into"] or "", line)
            group.unclear |= (group.waits.setdefault(line.rank, one).name != one.name)
        if queue is not None:
            group.queued.setdefault(line.rank, line)
            group.numbers.setdefault(line.rank, int(queue["number"]))
    # Lines that name no group are of one only where no rank has another number in it than in the
    # job, and none waited for two things.
    if WORLD in groups and (groups[WORLD].unclear or any(map(_is_of_a_part, told))):
        del groups[WORLD]
    return groups


def _named(line: Line) -> str | None:
    named = GROUP.search(line.text)
    return named["group"] if named else None


def _gave_up(lines: Sequence[Line]) -> Mapping[tuple[int | None, int], str]:
    """The group of what a rank gave up, which another line of its watchdog may tell."""
    found = ((line, GAVE_UP.search(line.text), _named(line)) for line in lines)
    return {(line.rank, int(at["number"])): group for line, at, group in found if at and group}


def _is_of_a_part(line: Line) -> bool:
    member = MEMBER.search(line.text)
    return line.labelled and member is not None and int(member["rank"]) != line.rank


def _apart(waits: Mapping[int, Work]) -> Finding | None:
    """In what two ranks differ, the kind before the number and the number before the size."""
    first = min(waits, default=None)
    if first is None:
        return None
    one = waits[first]
    others = [(rank, work) for rank, work in sorted(waits.items()) if rank != first]
    for outcome in ("op-differs", "number-differs", "size-differs"):
        for rank, work in others:
            if _differ(outcome, one, work):
                sentence = f"rank {first} waited for {one.name}, rank {rank} for {work.name}"
                data = {"ranks": [first, rank], "kinds": [one.kind, work.kind],
                        "numbers": [one.number, work.number]}  # fmt: skip
                return Finding("story", outcome, sentence, data, _seen(one.line, work.line))
    return None


def _differ(outcome: str, one: Work, other: Work) -> bool:
    if outcome == "number-differs":
        return one.number != other.number
    if outcome == "op-differs":
        return one.number == other.number and one.kind != other.kind
    alike = one.number == other.number and one.kind == other.kind
    return alike and one.size != other.size and SAME_SIZE.match(one.kind) is not None


def _behind(group: Group) -> Finding | None:
    """Who had not even begun what the others waited for."""
    if len(group.numbers) < 2 or len(set(group.numbers.values())) < 2:
        return None
    most = max(group.numbers.values())
    behind = sorted(rank for rank, number in group.numbers.items() if number < most)
    if len(behind) * 2 > len(group.numbers):
        return None
    late, ahead = behind[0], max(group.numbers, key=lambda rank: group.numbers[rank])
    shown = ", ".join(map(str, behind[:16]))
    sentence = (
        f"rank {shown} had not begun collective {most} that the others waited for: its last is "
        f"{group.numbers[late]}"
    )
    data = {"ranks": behind[:64], "rank": late, "number": most}
    seen = _seen(group.queued[late], group.queued[ahead])
    return Finding("story", "rank-behind", sentence, data, seen)


def _seen(*lines: Line) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(
            clean(line.file),
            (clean(line.text)[:400],),
            ("sed", "-n", f"{line.number}p", line.file),
        )
        for line in lines
    )
