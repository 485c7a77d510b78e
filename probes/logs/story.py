"""The probe `story`: what failed first, on which rank, and what only followed from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ddp_assist.probes.logs.announced import unannounced
from ddp_assist.probes.logs.ends import SIGNALS, End, ends
from ddp_assist.probes.logs.ranks import Line, Traceback, tracebacks
from ddp_assist.probes.logs.reading import read, read_so_far
from ddp_assist.probes.logs.scan import scanner
from ddp_assist.probes.logs.watchdog import ranks_apart
from ddp_assist.probes.model import Evidence, Finding, Probe, Target
from ddp_assist.probes.text import clean

# What a rank says because another one left, or because the launcher told it to stop.
_FOLLOWS = re.compile(
    r"(?i)closed by (?:remote )?peer|reset by peer|broken pipe|GLHF|remote process exited|"
    r"ncclRemoteError|connection was likely closed|pair closure|"
    r"should dump.{0,40}flag|SignalException|got signal: \d+|death signal|"
    r"RendezvousClosedError|received errors while waiting for send/recv|store may have|"
    r"connection is closed"
)
# What a rank says that gave up waiting: who was late is not in the line.
_WAITED = re.compile(
    r"(?i)timed? ?out|timeout|client socket has (?:timed out|failed)|failed to connect|"
    r"connection refused|RendezvousConnectionError|socket timeout|failed to pass monitoredBarrier"
)
# What a parent says about its children.
_REPORTS = re.compile(
    r"ChildFailedError$|ProcessRaisedException$|ProcessExitedException$|SignalException$|"
    r"CalledProcessError$|RemoteTraceback$|RayTaskError|TrainingFailedError$|"
    r"(?:ActorDied|ActorUnavailable|RayActor|WorkerCrashed|OwnerDied|NodeDied)Error$"
)
_NOT_A_FAILURE = frozenset({"KeyboardInterrupt", "SystemExit", "GeneratorExit", "StopIteration"})
# A program of the system, not one that starts or is a rank.
_ASIDE = re.compile(
    r"^/usr/s?bin/(?!torchrun|accelerate|deepspeed|horovodrun|composer|lightning|ray$|python)[\w.-]+$"
)
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python\d|^<|/importlib/|/torchrun$|/bin/\w+$")
_SHOWN = 600
_MOST_RANKS = 65_536


def look(target: Target) -> Iterator[Finding]:
    logs = [log for log in read(target.logs) if not log.unreadable]
    yield from told([line for log in logs for line in log.lines()])


def look_so_far(target: Target) -> Iterator[Finding]:
    """The story up to where the reading had to stop."""
    logs = [log for log in read_so_far(target.logs) if not log.unreadable]
    yield from told([line for log in logs for line in log.lines()])


def told(lines: list[Line]) -> Iterator[Finding]:
    """The findings of a log that is already taken apart."""
    failures = _in_time([one for one in tracebacks(lines) if not one.ignored])
    own = [one for one in failures if _kind(one) == "own"]
    every_end = ends(lines)
    exits = _of_themselves(every_end, lines)
    yield from _ended(exits)
    if missing := unannounced(lines):
        yield missing
    if own and own[0].rank is None:
        _rank_from_table(own[0], exits)
    killed = [end for end in exits if end.first and _is_sudden(end, own)]
    if own and not (killed and _before(killed[0].line, own[0].at)):
        yield from _own(own[0], failures)
    elif killed:
        yield _killed_first(killed[0], failures)
    else:
        if apart := ranks_apart(lines):
            yield apart
        silent = _silent(lines, failures, every_end)
        yield from _only_followers(failures, lines, silent is not None)
        if silent:
            yield silent


# The program ended well, and its threads of gloo were still there.
_AT_EXIT = "terminate called without an active exception"
_WATCHDOG = re.compile(r"Watchdog caught collective operation timeout|entire process down")


def _of_themselves(exits: list[End], lines: list[Line]) -> list[End]:
    """Without what the launcher ended, and without aborts that only follow from something."""
    if any(not end.told for end in exits):
        exits = [end for end in exits if not end.told]
    if any(_AT_EXIT in line.text or _WATCHDOG.search(line.text) for line in lines):
        exits = [end for end in exits if end.signal != 6]
    return exits


def _rank_from_table(one: Traceback, exits: list[End]) -> None:
    """Before the group exists no line names its rank; a launcher that saw one fail knows it."""
    ranks = {end.rank for end in exits if end.signal is None and end.code}
    if len(ranks) == 1:
        one.first = replace(one.first, rank=ranks.pop())


def _kind(one: Traceback) -> str:
    name, message = one.exception, f"{one.exception}: {one.message}"
    if _REPORTS.search(name) or name.rpartition(".")[2] in _NOT_A_FAILURE:
        return "report"
    if one.frames and _ASIDE.match(one.frames[0][0]):
        return "aside"
    if _FOLLOWS.search(message):
        return "follows"
    distributed = "torch.distributed" in name or name.startswith("Dist") or _in_torch(one)
    distributed = distributed or not one.frames
    return "waited" if distributed and _WAITED.search(message) else "own"


def _in_torch(one: Traceback) -> bool:
    return bool(one.frames) and "/torch/" in one.frames[-1][0]


def _in_time(failures: list[Traceback]) -> list[Traceback]:
    """By the clock where every one names a time, else as they stand in the log."""
    if all(one.at.when is not None for one in failures):
        return sorted(failures, key=lambda one: one.at.when or 0.0)
    return failures


def _before(one: Line, other: Line) -> bool:
    if one.when is not None and other.when is not None and one.file != other.file:
        return one.when < other.when
    return one.file == other.file and one.number < other.number


def _is_sudden(end: End, own: list[Traceback]) -> bool:
    """A death from outside; abort() after an error of the same rank's own is that error's end."""
    spoke = any(one.rank == end.rank for one in own)
    return end.signal in (4, 7, 8, 9, 11) or (end.signal == 6 and not spoke)


def _own(one: Traceback, failures: list[Traceback]) -> Iterator[Finding]:
    root = one.root if _kind(one.root) == "own" else one
    data = _data(root) | {"followers": _followers(failures, one), "known_as": _known_as(root)}
    who = "" if root.rank is None else f"rank {root.rank} "
    said = clean(f"{root.exception}: {root.message}" if root.message else root.exception)[:_SHOWN]
    yield Finding("story", "first-failure", f"{who}failed first: {said}", data, (_evidence(root),))
    frame = root.frames[-1] if root.frames else None
    plain = not root.exception.startswith(("torch.", "c10", "Dist"))
    if frame and plain and not _LIBRARY.search(frame[0]):
        where = {"script": clean(frame[0]), "script_line": frame[1], "function": clean(frame[2])}
        sentence = f"{clean(frame[0])}, line {frame[1]}: {said}"
        yield Finding("story", "script-error", sentence, data | where, (_evidence(root),))


def _known_as(one: Traceback) -> list[str]:
    """The signatures that know its last line, wherever else that line was met first."""
    said = f"{one.exception}: {one.message}".encode()
    return sorted({hit.signature.id for hit in scanner().scan_bytes(said)})


def _data(one: Traceback) -> dict[str, Any]:
    data: dict[str, Any] = {
        "exception": clean(one.exception), "message": clean(one.message)[:_SHOWN],
        "line": one.at.number, "file": clean(one.at.file),
    }  # fmt: skip
    if one.rank is not None:
        data["rank"] = one.rank
    if one.at.host:
        data["host"] = clean(one.at.host)
    return data


def _followers(failures: list[Traceback], first: Traceback) -> list[int]:
    ranks = {one.rank for one in failures if _kind(one) in ("follows", "waited")}
    return sorted(rank for rank in ranks if rank is not None and rank != first.rank)


def _evidence(one: Traceback) -> Evidence:
    shown = [one.first.text, f"{one.exception}: {one.message}"]
    if one.frames:
        path, line, where = one.frames[-1]
        shown.insert(1, f'  File "{path}", line {line}, in {where}')
    lines = tuple(clean(text)[:_SHOWN] for text in shown)
    return Evidence(clean(one.at.file), lines, _see(one.first.number, one.at.number, one.at.file))


def _see(first: int, last: int, file: str) -> tuple[str, ...]:
    return ("sed", "-n", f"{first},{last}p", file)


def _ended(exits: list[End]) -> Iterator[Finding]:
    """Each way in which processes ended, once, the first of its kind."""
    shown: set[str] = set()
    for end in exits:
        outcome = SIGNALS.get(end.signal, "killed-by-signal") if end.signal else "exit-code"
        if outcome in shown or (end.signal is None and end.code == 0):
            continue
        shown.add(outcome)
        data: dict[str, Any] = {"line": end.line.number, "file": clean(end.line.file)}
        data |= {name: value for name, value in (
            ("rank", end.rank), ("pid", end.pid), ("signal", end.signal), ("code", end.code),
        ) if value is not None}  # fmt: skip
        evidence = Evidence(clean(end.line.file), (clean(end.line.text)[:_SHOWN],),
                            _see(end.line.number, end.line.number, end.line.file))  # fmt: skip
        yield Finding("story", outcome, end.sentence, data, (evidence,))


def _killed_first(end: End, failures: list[Traceback]) -> Finding:
    others = {one.rank for one in failures if _kind(one) in ("follows", "waited")}
    data: dict[str, Any] = {
        "line": end.line.number, "file": clean(end.line.file), "signal": end.signal,
        "followers": sorted(rank for rank in others if rank is not None and rank != end.rank),
    }  # fmt: skip
    if end.rank is not None:
        data["rank"] = end.rank
    evidence = Evidence(clean(end.line.file), (clean(end.line.text)[:_SHOWN],),
                        _see(end.line.number, end.line.number, end.line.file))  # fmt: skip
    return Finding("story", "first-failure", f"{end.sentence}, before any other failure",
                   data, (evidence,))  # fmt: skip


# A log in which everybody waited names whom they waited for only if that one is in it, too.
_ELSEWHERE = "; whom it waited for is not told here: the logs of the other nodes are needed"


def _only_followers(
    failures: list[Traceback], lines: list[Line], late_one_known: bool
) -> Iterator[Finding]:
    followers = [one for one in failures if _kind(one) == "follows"]
    waited = [one for one in failures if _kind(one) == "waited"]
    if waited:
        one = waited[0]
        who = "a rank" if one.rank is None else f"rank {one.rank}"
        sentence = f"{who} gave up waiting first: {clean(one.message)[:_SHOWN]}"
        sentence += "" if late_one_known else _ELSEWHERE
        yield Finding("story", "first-timeout", sentence, _data(one), (_evidence(one),))
    elif watchdog := next((line for line in lines if _WATCHDOG.search(line.text)), None):
        who = "a rank" if watchdog.rank is None else f"rank {watchdog.rank}"
        where: dict[str, Any] = {"line": watchdog.number, "file": clean(watchdog.file)}
        if watchdog.rank is not None:
            where["rank"] = watchdog.rank
        seen = Evidence(where["file"], (clean(watchdog.text)[:_SHOWN],),
                        _see(watchdog.number, watchdog.number, watchdog.file))  # fmt: skip
        sentence = f"{who} gave up waiting first, in a collective"
        sentence += "" if late_one_known else _ELSEWHERE
        yield Finding("story", "first-timeout", sentence, where, (seen,))
    elif followers:
        one = followers[0]
        sentence = (
            "all failures here follow from a rank that ended elsewhere: its own log is needed"
        )
        yield Finding("story", "cascade-only", sentence, _data(one), (_evidence(one),))


_WORLD = re.compile(
    r"(?i)\bworld[_ ]?size\s*[=:]\s*(\d{1,6})\b|"
    r"(?:GLOBAL_RANK|MEMBER): \d+(?:, MEMBER: \d+)?/(\d{1,6})"
)


def _silent(lines: list[Line], failures: list[Traceback], exits: list[End]) -> Finding | None:
    """Who neither failed nor was ended although the others waited for somebody in vain."""
    waited = {one.rank for one in failures if _kind(one) == "waited"}
    waited |= {line.rank for line in lines if _WATCHDOG.search(line.text)}
    lost = {one.rank for one in failures if _kind(one) == "follows"}
    ended = {end.rank for end in exits}
    # Whoever was late does not time out: it is cut off, ended by its launcher, or says nothing.
    heard = {rank for rank in (waited or lost | ended) if rank is not None}
    world = _world(lines, heard, exits)
    left = set(range(world)) - heard if world <= _MOST_RANKS else set()
    if not waited:
        left = (left - {line.rank for line in lines}) or left
    elif not _every_node_is_here(exits):
        return None
    if not heard or not left or len(left) > len(heard) or (len(heard) < 2 and world != 2):
        return None
    silent = sorted(left)
    shown = ", ".join(map(str, silent[:16]))
    lacks = "did not time out" if waited else "reports no failure"
    sentence = f"rank {shown} {lacks}, while {len(heard)} others waited for or lost a rank"
    if waited and len(_bases(exits)) == 1:
        sentence += "; if the job has other nodes, their logs are needed to be sure"
    data = {"ranks": silent[:64], "rank": silent[0], "world_size": world}
    return Finding("story", "silent-rank", sentence, data)


def _bases(exits: list[End]) -> list[int]:
    """The lowest rank of each node that a table of torchrun names."""
    return sorted({end.rank - end.local for end in exits
                   if end.rank is not None and end.local is not None})  # fmt: skip


def _every_node_is_here(exits: list[End]) -> bool:
    """Whether no node below those seen is missing; one above can't be told from none."""
    bases = _bases(exits)
    return not bases or bases[0] == 0


def _world(lines: list[Line], heard: set[int], exits: list[End]) -> int:
    """How many ranks the job has; where nobody says it, a gap below the highest is seen at most."""
    sizes = {
        int(next(filter(None, m.groups()))) for line in lines if (m := _WORLD.search(line.text))
    }
    if len(sizes) == 1:
        return sizes.pop()
    bases = _bases(exits)
    if len(bases) > 1:
        return bases[-1] + min(b - a for a, b in zip(bases, bases[1:], strict=False))
    named = heard | {end.rank for end in exits if end.rank is not None}
    return max(named) + 1 if 0 in named else 0


PROBES = (
    Probe(
        id="story",
        question="What failed first, and what only followed?",
        outcomes={
            "first-failure": "bad",
            "script-error": "bad",
            **dict.fromkeys(SIGNALS.values(), "bad"),
            "killed-by-signal": "bad",
            "exit-code": "info",
            "silent-rank": "bad",
            "op-differs": "bad",
            "number-differs": "bad",
            "size-differs": "bad",
            "rank-behind": "bad",
            "ranks-unannounced": "bad",
            "first-timeout": "info",
            "cascade-only": "info",
        },
        look=look,
        look_so_far=look_so_far,
        applies=lambda target: bool(target.logs),
        deadline=900.0,
        after=("log",),
    ),
)
