"""What a scene says: who is missing, who ended, and who is not where the others wait."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ddp_assist.probes.host.processes import read
from ddp_assist.probes.host.words import counted
from ddp_assist.probes.jobs.compared import compared
from ddp_assist.probes.jobs.scene import Scene, named
from ddp_assist.probes.jobs.sentences import finding, others
from ddp_assist.probes.jobs.state import Doing
from ddp_assist.probes.model import Finding
from ddp_assist.probes.text import clean

OUTCOMES: Mapping[str, Any] = {
    "healthy": "ok",
    "not-distributed": "info",
    "starting": "info",
    "waits-briefly": "info",
    "meeting": "info",
    "all-waiting": "info",
    "gpu-wait": "info",
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
    "rank-left-early": "bad",
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
STARTED = 5.0
"""Seconds within which a launcher has started all of its ranks."""


def judge(scene: Scene, still: bool, launched: frozenset[int] = frozenset()) -> list[Finding]:
    """All that can be said; `still` tells that nothing moved while we looked.

    `launched` are the ranks for which the launch that is still running has a command.
    """
    found = [
        *_there(scene, launched), *(_absent(scene, launched) if still else ()), *_ended(scene),
        *_states(scene), *_meeting_place(scene),
    ]  # fmt: skip
    if still and not any(f.outcome in ("rank-stopped", "ports-differ") for f in found):
        found += compared(scene)
    if not found:
        found += [_at_rest(scene, still)]
    if scene.job.is_left_over:
        found.append(finding(scene, "left-over", "whoever started these ranks is gone"))
    if scene.refused and not scene.at:
        because = Counter(scene.refused.values()).most_common(1)[0][0]
        found.append(finding(scene, "no-stacks", f"no stacks: {because}"))
    return found


def _there(scene: Scene, launched: frozenset[int]) -> Iterator[Finding]:
    job = scene.job
    dead = [d for d in job.dead if _code(d.pid) != 0]
    # As many processes as ranks, one number twice: nobody is missing, somebody has a wrong number.
    missing = [] if job.twice and len(job.ranks) >= (job.world_size or 0) else job.missing
    if missing and len(missing) != len(dead):
        if _is_watched(scene):
            outcome = "rank-left" if _had_met(scene) else "rank-left-early"
            though = ": it ended, and well, or whoever started it would have ended the others"
        elif _had_met(scene):
            outcome, though = "rank-died", ", though the group met"
        elif set(missing) <= launched:
            outcome, though = "rank-died", ", though the launch has a command for it"
        else:
            outcome, though = "rank-missing", ""
        numbers = ", ".join(map(str, missing[:16]))
        yield finding(
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
        yield finding(scene, "endpoint-shared",
                       f"two jobs (started by pid {pids}) meet at the same place: rank {numbers}"
                       " is there twice", **data)  # fmt: skip
    else:
        pids = ", ".join(str(r.process.pid) for r in both[:8])
        yield finding(
            scene, "duplicate-rank",
            f"{len(both)} processes all call themselves rank {numbers} (pids {pids})", **data,
        )  # fmt: skip


def _is_watched(scene: Scene) -> bool:
    """Whether one process started all ranks at once, and ends the others when one of them fails."""
    ranks = scene.job.ranks
    return (
        bool(ranks) and len({r.process.ppid for r in ranks}) == 1
        and ranks[0].process.ppid != 1
        and min(r.process.age() for r in ranks) > STARTED
        and (scene.job.kind == "spawn" or all("TORCHELASTIC_RUN_ID" in r.env for r in ranks))
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
        yield finding(scene, "rank-died",
                       f"the launch has a command for rank {numbers}, which runs no more; {clients}"
                       f" of {world} joined", **data)  # fmt: skip
    else:
        yield finding(scene, "rank-absent",
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
    ended = {d.rank.process.pid: d.rank.rank for d in gone}
    dead = [p.pid for p in scene.job.dead if p.pid not in ended]
    absent = scene.job.missing
    # As many corpses as ranks that lack: in the order in which they were started.
    numbers = absent if len(absent) == len(dead) else [None] * len(dead)
    ended |= dict(zip(dead, numbers, strict=True))
    for pid, number in ended.items():
        code = _code(pid)
        who = f"rank {number if number is not None else '?'} (pid {pid})"
        data = {"rank": number, "pid": pid, "code": code}
        if not scene.alive:
            continue
        if code is not None and code < 0:
            outcome = "rank-killed" if -code == signal.SIGKILL else "rank-died"
            sentence = f"{who} was ended by {_signal(-code)}, and {others(scene)}"
            yield finding(scene, outcome, sentence, signal=-code, **data)
        elif code:
            sentence = f"{who} has ended with exit code {code}, and {others(scene)}"
            yield finding(scene, "rank-died", sentence, **data)
        elif scene.waiting and scene.is_calm:
            word = "has ended well" if code == 0 else "has ended"
            outcome = "rank-left" if _had_met(scene) else "rank-left-early"
            yield finding(scene, outcome, f"{who} {word}, and {others(scene)}", **data)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
            yield finding(scene, outcome, f"{named([d.rank for d in those])} {word}, pid {shown}",
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
        yield finding(scene, "ports-differ", f"the ranks were told different ports ({told})",
                       ports=ports, rank=odd[0] if odd else None, ranks_odd=odd[:64])  # fmt: skip
        return
    lost = {port: who for port, who in dialled.items() if port not in heard}
    if lost and heard and job.kind == "spawn" and any(d.waits for d in scene.alive):
        port, who = next(iter(lost.items()))
        yield finding(
            scene, "ports-differ",
            f"{named([d.rank for d in who])} dials port {port}, where none of its own listens",
            ports=sorted([port, *([job.port] if job.port else [])]), rank=who[0].rank.rank,
        )  # fmt: skip
    elif lost and job.is_local:
        ports = sorted(lost)
        yield finding(
            scene, "endpoint-unheard",
            f"{sum(map(len, lost.values()))} ranks dial port {', '.join(map(str, ports))}, where"
            " no rank listens",
            ranks=[d.rank.rank for who in lost.values() for d in who][:64],
        )  # fmt: skip


def _at_rest(scene: Scene, still: bool) -> Finding:
    """Nothing speaks for a fault."""
    states = Counter(d.state for d in scene.doing)
    words = ", ".join(f"{n} {state}" for state, n in states.most_common())
    here = f"{counted(len(scene.doing), 'rank')} of {scene.job.world_size or '?'}: {words}"
    if not scene.doing:
        return finding(scene, "meeting", "a launcher without ranks: it waits, or has just started")
    in_own_code = scene.doing and not scene.waiting and len(scene.at) == len(scene.alive)
    if not in_own_code and all(d.waits or d.state == "idle" for d in scene.doing):
        if not still:
            return finding(scene, "waits-briefly", f"nothing stands still: {here}")
        return finding(scene, "meeting", f"all ranks wait: {words}")
    if all(d.state == "starting" for d in scene.doing):
        return finding(scene, "starting", f"the ranks are starting: {here}")
    unseen = [d for d in scene.alive if d.nccl and d.cpu > 0.5 and scene.stack(d) is None]
    if unseen:
        return finding(scene, "gpu-wait", f"{here}; who waits for a GPU uses a core as well, and"
                        " only a stack tells the two apart")  # fmt: skip
    if any(d.spins for d in scene.alive):
        return finding(scene, "waits-briefly", f"nothing stands still: {here}")
    return finding(scene, "healthy", here)
