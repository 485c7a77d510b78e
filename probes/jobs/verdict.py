"""What a scene says: who is missing, who ended, and who is not where the others wait."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddp_assist.probes.host.processes import read, snapshot
from ddp_assist.probes.host.words import counted
from ddp_assist.probes.jobs.code import Parting, parting
from ddp_assist.probes.jobs.scene import Scene, named
from ddp_assist.probes.jobs.stacks import Stack
from ddp_assist.probes.jobs.state import Doing
from ddp_assist.probes.model import Evidence, Finding
from ddp_assist.probes.text import clean

OUTCOMES: Mapping[str, Any] = {
    "healthy": "ok",
    "not-distributed": "info",
    "starting": "info",
    "waits-briefly": "info",
    "meeting": "info",
    "all-waiting": "info",
    "waits-for-elsewhere": "info",
    "no-stacks": "info",
    "left-over": "info",
    "rank-d-state": "info",
    "endpoint-unheard": "info",
    "peer-silent": "bad",
    "rank-missing": "bad",
    "rank-absent": "bad",
    "rank-died": "bad",
    "rank-killed": "bad",
    "rank-left": "bad",
    "rank-stopped": "bad",
    "duplicate-rank": "bad",
    "endpoint-shared": "bad",
    "ports-differ": "bad",
    "lock-waiting": "bad",
    "store-waiting": "bad",
    "not-yet-there": "bad",
    "loading": "bad",
    "busy-alone": "bad",
    "behind": "bad",
    "left-loop": "bad",
    "in-branch": "bad",
    "apart": "bad",
    "turns-differ": "bad",
    "same-call": "bad",
}


def judge(scene: Scene, still: bool, launched: frozenset[int] = frozenset()) -> list[Finding]:
    """All that can be said; `still` tells that nothing moved while we looked.

    `launched` are the ranks for which the launch that is still running has a command.
    """
    found = [
        *_there(scene, launched), *(_absent(scene, launched) if still else ()), *_ended(scene),
        *_states(scene), *_meeting_place(scene),
    ]  # fmt: skip
    if still and not any(f.outcome in ("rank-stopped", "ports-differ") for f in found):
        found += _compared(scene)
    if not found:
        found += [_at_rest(scene, still)]
    if scene.job.is_left_over:
        found.append(_finding(scene, "left-over", "whoever started these ranks is gone"))
    if scene.refused and not scene.at:
        because = Counter(scene.refused.values()).most_common(1)[0][0]
        found.append(_finding(scene, "no-stacks", f"no stacks: {because}"))
    return found


def _finding(scene: Scene, outcome: str, sentence: str, **data: Any) -> Finding:
    about = {
        "world_size": scene.job.world_size,
        "port": scene.job.port,
        "host": clean(scene.job.host),
        "quiet_s": None if scene.quiet is None else round(scene.quiet),
        "ranks": {
            str(d.rank.rank): clean(f"{d.state} {d.where}".strip()) for d in scene.doing[:64]
        },
    }
    return Finding("job", outcome, clean(sentence), about | data, tuple(_evidence(scene)))


def _evidence(scene: Scene) -> Iterator[Evidence]:
    """Equal ranks are one line, the odd ones first."""
    lines = tuple(clean(f"{named([d.rank for d in same])}: {what}")
                  for what, same in folded(scene)[:16])  # fmt: skip
    pids = ",".join(str(pid) for pid in scene.job.pids[:16])
    yield Evidence("/proc", lines, ("ps", "-o", "pid,stat,etime,args", "-p", pids or "1"))
    if scene.at:
        pid = next(iter(scene.at))
        yield Evidence("py-spy", (), ("py-spy", "dump", "--nonblocking", "--pid", str(pid)))


def folded(scene: Scene) -> list[tuple[str, list[Doing]]]:
    """The ranks in groups of equals, the smallest group first."""
    groups: dict[str, list[Doing]] = {}
    for d in scene.doing:
        groups.setdefault(_place(scene, d), []).append(d)
    return sorted(groups.items(), key=lambda each: len(each[1]))


def _place(scene: Scene, doing: Doing) -> str:
    stack = scene.stack(doing)
    if stack is None:
        return f"{doing.state} {doing.where}".strip()
    waits = f"waits in {stack.waits_in} at" if stack.waits_in else f"{doing.state} at"
    return f"{waits} {stack.where or (stack.frames[0] if stack.frames else '?')}"


def _there(scene: Scene, launched: frozenset[int]) -> Iterator[Finding]:
    job = scene.job
    dead = [d for d in job.dead if _code(d.pid) != 0]
    missing = job.missing
    if missing and len(missing) != len(dead):
        if _had_met(scene):
            outcome, though = "rank-died", ", though the group met"
        elif set(missing) <= launched:
            outcome, though = "rank-died", ", though the launch has a command for it"
        else:
            outcome, though = "rank-missing", ""
        numbers = ", ".join(map(str, missing[:16]))
        yield _finding(
            scene, outcome,
            f"rank {numbers} of {job.world_size} is not among the processes of this host{though}",
            missing=missing[:64], rank=missing[0],
        )  # fmt: skip
    if not job.twice:
        return
    both = [d.rank for d in scene.doing if d.rank.rank in job.twice]
    numbers = ", ".join(map(str, job.twice[:16]))
    data = {"rank": job.twice[0], "pids": [r.process.pid for r in both[:64]]}
    starters = Counter(r.process.ppid for r in both)
    whole = Counter(r.process.ppid for r in job.ranks if r.process.ppid in starters)
    if len(starters) > 1 and len(set(whole.values())) == 1 and len(job.ranks) > len(both) // 2 > 1:
        pids = ", ".join(map(str, starters))
        yield _finding(scene, "endpoint-shared",
                       f"two jobs (started by pid {pids}) meet at the same place: rank {numbers}"
                       " is there twice", **data)  # fmt: skip
    else:
        pids = ", ".join(str(r.process.pid) for r in both[:8])
        yield _finding(
            scene, "duplicate-rank",
            f"{len(both)} processes all call themselves rank {numbers} (pids {pids})", **data,
        )  # fmt: skip


def _absent(scene: Scene, launched: frozenset[int]) -> Iterator[Finding]:
    """Ranks that are not on this host and did not come, by the connections of the store here."""
    world, absent = scene.job.world_size, scene.job.elsewhere
    clients = max((d.wires.clients for d in scene.alive), default=0)
    if not (world and absent and clients) or clients >= world or _had_met(scene):
        return
    if not all(d.state == "in-rendezvous" for d in scene.alive):
        return
    numbers = ", ".join(map(str, absent[:16]))
    data = {"missing": absent[:64], "rank": absent[0], "joined": clients}
    if set(absent) <= launched:
        yield _finding(scene, "rank-died",
                       f"the launch has a command for rank {numbers}, which runs no more; {clients}"
                       f" of {world} joined", **data)  # fmt: skip
    else:
        yield _finding(scene, "rank-absent",
                       f"{clients} of {world} joined; rank {numbers}, which is not on this host,"
                       " did not", **data)  # fmt: skip


def _had_met(scene: Scene) -> bool:
    """Whether the group was complete once: then whoever lacks has gone."""
    for d in scene.alive:
        stack = scene.stack(d)
        if (stack and not stack.in_rendezvous and d.state == "in-collective") or (
            stack is None and d.state == "in-group"
        ):
            return True
    return False


def _code(pid: int) -> int | None:
    """How an ended process ended, where the kernel tells us: a code, or minus a signal."""
    stat = read(f"/proc/{pid}/stat", 4096) or b""
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 50 or fields[0] != b"Z":
        return None
    status = int(fields[49])
    return -(status & 0x7F) if status & 0x7F else status >> 8


def _ended(scene: Scene) -> Iterator[Finding]:
    """Ranks that ended while others go on."""
    gone = [d for d in scene.doing if d.state in ("zombie", "gone")]
    named_gone = {d.rank.process.pid: d.rank.rank for d in gone}
    absent = scene.job.missing
    dead = [p.pid for p in scene.job.dead if p.pid not in named_gone]
    for place, pid in enumerate([*named_gone, *dead]):
        number = named_gone.get(pid)
        if number is None and len(absent) == len(dead):
            number = absent[place - len(named_gone)]
        code = _code(pid)
        who = f"rank {number if number is not None else '?'} (pid {pid})"
        data = {"rank": number, "pid": pid, "code": code}
        if not scene.alive:
            continue
        if code is not None and code < 0:
            outcome = "rank-killed" if -code == signal.SIGKILL else "rank-died"
            sentence = f"{who} was ended by {_signal(-code)}, and {_others(scene)}"
            yield _finding(scene, outcome, sentence, signal=-code, **data)
        elif code:
            sentence = f"{who} has ended with exit code {code}, and {_others(scene)}"
            yield _finding(scene, "rank-died", sentence, **data)
        elif scene.waiting and scene.is_calm:
            word = "has ended well" if code == 0 else "has ended"
            yield _finding(scene, "rank-left", f"{who} {word}, and {_others(scene)}", **data)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _others(scene: Scene) -> str:
    if not scene.waiting:
        return f"{len(scene.alive)} go on"
    return f"{_waits(scene, scene.waiting)}"


def _waits(scene: Scene, waiting: Sequence[Doing]) -> str:
    """`ranks 0, 2 wait in all_reduce at train.py:9 for 17 s`."""
    what, same = max(_folded(scene, waiting).items(), key=lambda each: len(each[1]))
    for_so_long = f" for {scene.quiet:.0f} s" if scene.quiet and scene.quiet >= 1 else ""
    if len(same) > 1:
        what = what.replace("waits in ", "wait in ", 1)
    return f"{named([d.rank for d in same])} {what}{for_so_long}"


def _folded(scene: Scene, some: Sequence[Doing]) -> dict[str, list[Doing]]:
    groups: dict[str, list[Doing]] = {}
    for d in some:
        groups.setdefault(_place(scene, d), []).append(d)
    return groups


def _states(scene: Scene) -> Iterator[Finding]:
    for states, outcome, word in (
        (("stopped",), "rank-stopped", "is stopped (state T)"),
        (("frozen",), "rank-stopped", "is frozen by its control group"),
        (("disk-sleep",), "rank-d-state", "hangs in the kernel (state D)"),
    ):
        those = [d for d in scene.doing if d.state in states]
        if those:
            pids = [d.rank.process.pid for d in those]
            shown = ", ".join(map(str, pids[:8]))
            yield _finding(scene, outcome, f"{named([d.rank for d in those])} {word}, pid {shown}",
                           rank=those[0].rank.rank, pid=pids[0], pids=pids[:64],
                           where=clean(those[0].where))  # fmt: skip


def _meeting_place(scene: Scene) -> Iterator[Finding]:
    """Whether all dial where somebody listens."""
    job = scene.job
    heard = {port for d in scene.alive for port in d.wires.listening}
    dialled: dict[int, list[Doing]] = {}
    for d in scene.alive:
        for port in d.wires.dialled:
            dialled.setdefault(port, []).append(d)
    if job.ports and not _had_met(scene):
        ports = sorted(job.ports, key=lambda port: -len(job.ports[port]))
        odd = job.ports[ports[-1]]
        told = "; ".join(f"port {p}: rank {', '.join(map(str, job.ports[p]))}" for p in ports)
        yield _finding(scene, "ports-differ", f"the ranks were told different ports ({told})",
                       ports=ports, rank=odd[0] if odd else None, ranks_odd=odd[:64])  # fmt: skip
        return
    lost = {port: who for port, who in dialled.items() if port not in heard}
    if lost and heard and job.kind == "spawn" and any(d.waits for d in scene.alive):
        port, who = next(iter(lost.items()))
        yield _finding(
            scene, "ports-differ",
            f"{named([d.rank for d in who])} dials port {port}, where none of its own listens",
            ports=sorted([port, *([job.port] if job.port else [])]), rank=who[0].rank.rank,
        )  # fmt: skip
    elif lost and job.is_local:
        ports = sorted(lost)
        yield _finding(
            scene, "endpoint-unheard",
            f"{sum(map(len, lost.values()))} ranks dial port {', '.join(map(str, ports))}, where"
            " no rank listens",
            ranks=[d.rank.rank for who in lost.values() for d in who][:64],
        )  # fmt: skip


def _compared(scene: Scene) -> list[Finding]:
    """The odd one out among ranks that should stand at the same place."""
    known = [(d, s) for d in scene.alive if (s := scene.stack(d)) is not None]
    locked = [(d, s) for d, s in known if s.in_lock and d.cpu < 0.5]
    if locked:
        return [_lock(scene, locked, len(known))]
    if forked := [(d, s) for d, s in known if not s.is_waiting and _lacks_threads(d)]:
        return [_without_threads(scene, forked)]
    stored = [(d, s) for d, s in known if s.phase == "store" and d.cpu < 0.5]
    if stored and _is_old(scene):
        first = stored[0][1]
        who = named([d.rank for d, _ in stored])
        sentence = f"{who} waits for a key of the store at {first.where}"
        return [_finding(scene, "store-waiting", sentence, rank=stored[0][0].rank.rank,
                         where=first.where)]  # fmt: skip
    waiting = [(d, s) for d, s in known if s.is_waiting and d.cpu < 0.5]
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
    who = named([d.rank for d, _ in locked])
    stack = locked[0][1]
    waits = "" if len(locked) == known else f", while {_others(scene)}"
    return _finding(scene, "lock-waiting", f"{who} waits for a lock at {stack.where}{waits}",
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
    who, stack = named([d.rank for d, _ in forked]), forked[0][1]
    return _finding(
        scene, "lock-waiting",
        f"{who} was forked from a process with threads, and waits at {stack.where} for what"
        " those would have to do: they are not in the fork",
        where=stack.where, rank=forked[0][0].rank.rank,
    )  # fmt: skip


def _held_up(
    scene: Scene, waiting: Sequence[tuple[Doing, Stack]], others: Sequence[tuple[Doing, Stack]]
) -> list[Finding]:
    """Some wait, and some do something else."""
    odd, stack = others[0]
    who = named([d.rank for d, _ in others])
    held = _waits(scene, [d for d, _ in waiting])
    way = parting(stack.spots, waiting[0][1].spots)
    data = {"rank": odd.rank.rank, "where": stack.where or (stack.frames or ("?",))[0],
            "ranks_odd": [d.rank.rank for d, _ in others][:64], "parted_by": way.text,
            "turns": dict(stack.turns)}  # fmt: skip
    if odd.works and not scene.is_long:
        return []
    at = f"at {data['where']}"
    if all(s.in_rendezvous for _, s in waiting):
        return [_finding(scene, "not-yet-there",
                         f"{who} is still {at}, and {held}", **data)]  # fmt: skip
    if odd.state == "loading-data" or stack.phase == "data":
        sentence = f"{who} is in the data loader {at}, while {held}"
        return [_finding(scene, "loading", sentence, **data)]
    if odd.works:
        return [_finding(scene, "busy-alone", f"{who} works alone {at}, while {held}", **data)]
    if way.how == "left-loop":
        return [_left_loop(scene, who, f"is {at}", held, way, data)]
    return [_finding(scene, "behind", f"{who} is {at}{_by(way)}, while {held}", **data)]


def _by(way: Parting) -> str:
    return f" (parted by '{way.text}')" if way.text else ""


def _left_loop(
    scene: Scene, who: str, does: str, held: str, way: Parting, data: Mapping[str, Any]
) -> Finding:
    sentence = f"{who} has left the loop '{way.text}' and {does}, while {held}"
    return _finding(scene, "left-loop", sentence, **data)


def _apart(scene: Scene, waiting: Sequence[tuple[Doing, Stack]]) -> Finding:
    """All wait, but not for the same thing."""
    groups: dict[tuple[str, str], list[tuple[Doing, Stack]]] = {}
    for d, s in waiting:
        groups.setdefault((s.where, s.waits_in), []).append((d, s))
    few, *_, many = sorted(groups.values(), key=len)
    way = parting(few[0][1].spots, many[0][1].spots)
    if way.how != "left-loop" and len(few) == len(many):
        back = parting(many[0][1].spots, few[0][1].spots)
        if back.how == "left-loop":
            few, many, way = many, few, back
    odd, stack = few[0]
    who = named([d.rank for d, _ in few])
    held = _waits(scene, [d for d, _ in many])
    does = f"waits in {stack.waits_in} at {stack.where}"
    data = {
        "rank": odd.rank.rank, "where": stack.where, "parted_by": way.text,
        "ranks_odd": [d.rank.rank for d, _ in few][:64], "turns": dict(stack.turns),
    }  # fmt: skip
    if way.how == "left-loop":
        return _left_loop(scene, who, does, held, way, data)
    if way.how == "branch":
        return _finding(scene, "in-branch", f"{who} {does}{_by(way)}, while {held}", **data)
    return _finding(scene, "apart",
                    f"the ranks wait at different places: {who} {does}{_by(way)}, while {held}",
                    **data)  # fmt: skip


def _all_at_one_place(scene: Scene, waiting: Sequence[tuple[Doing, Stack]]) -> list[Finding]:
    turns = {d.rank.rank: tuple(sorted(s.turns.items())) for d, s in waiting}
    votes = Counter(turns.values()).most_common()
    held = _waits(scene, [d for d, _ in waiting])
    if len(votes) > 1:
        usual = dict(votes[0][0])
        odd = next(d for d, _ in waiting if turns[d.rank.rank] != votes[0][0])
        mine = dict(turns[odd.rank.rank])
        name = next((n for n in usual if n in mine and mine[n] != usual[n]), None)
        if name is not None:
            return [_finding(scene, "turns-differ",
                             f"{named([odd.rank])} is at {name}={mine[name]}, others at"
                             f" {name}={usual[name]}: {held}", rank=odd.rank.rank,
                             where=waiting[0][1].where)]  # fmt: skip
    if scene.job.elsewhere:
        lacking = ", ".join(map(str, scene.job.elsewhere[:8]))
        silent = [d for d, _ in waiting if d.wires.retrying]
        if silent:
            peer = silent[0].wires.retrying[0].peer
            return [_finding(scene, "peer-silent",
                             f"{held}; {peer} does not answer any more (rank {lacking} is not on"
                             " this host)", peer=peer)]  # fmt: skip
        return [_finding(scene, "waits-for-elsewhere",
                         f"{held}; rank {lacking} is on another host")]  # fmt: skip
    if scene.job.world_size == len(waiting) and waiting[0][1].waits_in != "barrier":
        return [_finding(scene, "same-call", f"{held}: all are there, and none goes on",
                         where=waiting[0][1].where)]  # fmt: skip
    return [_finding(scene, "all-waiting", held)]


def _at_rest(scene: Scene, still: bool) -> Finding:
    """Nothing speaks for a fault."""
    states = Counter(d.state for d in scene.doing)
    words = ", ".join(f"{n} {state}" for state, n in states.most_common())
    here = f"{counted(len(scene.doing), 'rank')} of {scene.job.world_size or '?'}: {words}"
    if not scene.doing:
        return _finding(scene, "meeting", "a launcher without ranks: it waits, or has just started")
    in_own_code = scene.doing and not scene.waiting and len(scene.at) == len(scene.alive)
    if not in_own_code and all(d.waits or d.state == "idle" for d in scene.doing):
        if not still:
            return _finding(scene, "waits-briefly", f"nothing stands still: {here}")
        return _finding(scene, "meeting", f"all ranks wait: {words}")
    if all(d.state == "starting" for d in scene.doing):
        return _finding(scene, "starting", f"the ranks are starting: {here}")
    return _finding(scene, "healthy", here)
