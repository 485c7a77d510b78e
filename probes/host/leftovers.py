"""What earlier runs left: ranks without a launcher, launchers without a shell, stopped ones."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ddp_assist.probes.host.ancestry import launcher, launcher_above
from ddp_assist.probes.host.processes import Process, Processes, look, snapshot
from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown

SPAWNED = re.compile(r"multiprocessing\.spawn import spawn_main.*parent_pid=(\d+)")
# Present in every rank that this launcher started, and gone with no good run.
STARTED_BY = {
    "TORCHELASTIC_RUN_ID": "torchrun",
    "OMPI_COMM_WORLD_RANK": "mpirun",
    "SLURM_STEP_ID": "srun",
}
ASIDE = frozenset({"orphan-ranks", "stopped"})
"""Bad for the job they belong to; beside a launch that has yet to start they only steer."""
MOMENT = 0.15
"""Seconds; waiting for a disk passes, waiting for a dead server or GPU does not."""


def _look(target: Target) -> Iterator[Finding]:
    for finding in _seen():
        aside = finding.outcome in ASIDE and not _is_about(target)
        yield replace(finding, outcome=f"{finding.outcome}-aside") if aside else finding


def _is_about(target: Target) -> bool:
    """Whether a job that is alive may be the one in question: a launch to come is not yet."""
    return target.plan is None or target.job is not None or bool(target.logs)


def _seen() -> Iterator[Finding]:
    processes = snapshot()
    if processes.get(os.getpid()) is None:
        yield unknown("left-overs", "/proc shows no processes here", Evidence("/proc"))
        return
    ranks, launchers = distributed(processes)
    ours = {p.pid for p in processes.ancestors(os.getpid())} | {os.getpid()}
    found = [
        *_orphan_ranks(processes, ranks),
        *_orphan_launchers(processes, [p for p in launchers if p.pid not in ours]),
        *_zombies(processes, {p.pid for p in (*ranks, *launchers)}),
        *_stopped([*ranks, *launchers]),
        *_stuck(ranks),
    ]
    yield from found
    if processes.hidden:
        sentence = f"other users' processes are not all seen: {brief(processes.hidden)}"
        yield Finding("left-overs", "hidden", sentence, {"because": brief(processes.hidden)})
    if not found:
        others = f"; ranks alive here: {len(ranks)}" if ranks else ""
        data = {"ranks": [p.pid for p in ranks[:64]], "seen": len(processes)}
        yield Finding("left-overs", "none", f"nothing is left over of an earlier run{others}", data)


def distributed(processes: Processes) -> tuple[list[Process], list[Process]]:
    """All ranks and all launchers that may be seen."""
    ranks, launchers = [], []
    for process in processes:
        if process.kernel or process.state == "Z":
            continue
        name = launcher(process)
        if name and name != "ray":
            launchers.append(process)
        elif is_rank(process):
            ranks.append(process)
    return ranks, launchers


def is_rank(process: Process) -> bool:
    """A Python process that a launcher, or somebody by hand, made a rank."""
    argv = process.argv
    if not argv or not re.search(
        r"python|pypy|pt_|^ray::", f"{os.path.basename(argv[0])} {process.comm}"
    ):
        return False
    if SPAWNED.search(" ".join(argv[:4])):
        return True
    env = process.environ or {}
    return bool(env.get("RANK") and env.get("WORLD_SIZE")) or any(n in env for n in STARTED_BY)


def _orphan_ranks(processes: Processes, ranks: Sequence[Process]) -> Iterator[Finding]:
    orphans: list[tuple[Process, str]] = []
    for process in ranks:
        if spawned := SPAWNED.search(" ".join((process.argv or ())[:4])):
            # spawn's children see their parent's end only when they next touch a queue of it.
            # In a container it names its parent by a number that is another process's here.
            if (
                processes.get(int(spawned[1])) is None
                and process.ppid != int(spawned[1])
                and not process.numbered_elsewhere
            ):
                orphans.append((process, "the script that spawned it"))
            continue
        env = process.environ or {}
        by = next((by for name, by in STARTED_BY.items() if name in env), None)
        if by and launcher_above(processes, process.pid) is None and _visible(processes, process):
            orphans.append((process, by))
    if orphans:
        pids = [p.pid for p, _ in orphans]
        gone = orphans[0][1]
        sentence = (
            f"{several(map(_name, [p for p, _ in orphans]), 4)}: still running, but {gone} is gone"
        )
        yield _finding("orphan-ranks", sentence, [p for p, _ in orphans], pids=pids, launcher=gone)


def _visible(processes: Processes, process: Process) -> bool:
    """Whether the way up to the first process is seen; behind a gap a launcher may hide."""
    above = processes.ancestors(process.pid)
    return bool(above) and above[-1].ppid == 0


def _orphan_launchers(processes: Processes, launchers: Sequence[Process]) -> Iterator[Finding]:
    """A launcher whose shell is gone: left over, or meant to go on alone (nohup)."""
    top = [
        p
        for p in launchers
        if p.comm not in ("slurmstepd", "orted", "prted", "raylet")
        and _adopts(processes.get(p.ppid))
        and launcher_above(processes, p.pid) is None
    ]
    if top:
        sentence = f"{several(map(_name, top), 4)}: its shell is gone, and it still runs"
        yield _finding("orphan-launcher", sentence, top, pids=[p.pid for p in top])


def _adopts(parent: Process | None) -> bool:
    return parent is not None and (parent.pid == 1 or parent.comm == "systemd")


def _zombies(processes: Processes, jobs: set[int]) -> Iterator[Finding]:
    dead = [p for p in processes if p.state == "Z" and p.ppid in jobs]
    if dead:
        parents = sorted({p.ppid for p in dead})
        sentence = (
            f"{len(dead)} ended children of {several(map(str, parents))} were not fetched yet"
        )
        pids = [p.pid for p in dead[:64]]
        yield _finding("zombies", sentence, dead, pids=pids, parents=parents)


def _stopped(jobs: Sequence[Process]) -> Iterator[Finding]:
    stopped = [p for p in jobs if p.state == "T"]
    if stopped:
        ranks = {str(p.pid): brief((p.environ or {}).get("RANK", "")) for p in stopped[:64]}
        sentence = (
            f"{several(map(_name, stopped), 4)}: stopped (state T), and everybody waits for it"
        )
        yield _finding("stopped", sentence, stopped, pids=[p.pid for p in stopped], ranks=ranks)


def _stuck(ranks: Sequence[Process]) -> Iterator[Finding]:
    waiting = [p for p in ranks if p.state == "D"]
    if not waiting:
        return
    time.sleep(MOMENT)
    stuck = [p for p in waiting if (now := look(p.pid)) and now.state == "D" and now.cpu == p.cpu]
    if stuck:
        where = stuck[0].wait_channel
        at = f" in {brief(where)}" if where else ""
        sentence = f"{several(map(_name, stuck), 4)}: hangs in the kernel{at} (state D)"
        yield _finding("d-state", sentence, stuck, pids=[p.pid for p in stuck], where=where)


def _name(process: Process) -> str:
    words = [os.path.basename(w) for w in (process.argv or ())[:3] if not w.startswith("-")]
    return f"pid {process.pid} ({brief(' '.join(words) or process.comm, 60)})"


def _finding(outcome: str, sentence: str, about: Sequence[Process], **data: Any) -> Finding:
    lines = tuple(
        brief(f"{p.pid} ppid {p.ppid} uid {p.uid} {p.state} {' '.join(p.argv or (p.comm,))}", 200)
        for p in about[:8]
    )
    pids = ",".join(str(p.pid) for p in about[:8])
    see = ("ps", "-o", "pid,ppid,user,stat,etime,args", "-p", pids)
    ages = [round(p.age()) for p in about[:64]]
    uids = sorted({p.uid for p in about})
    return Finding(
        "left-overs",
        outcome,
        sentence,
        data | {"ages": ages, "uids": uids, "mine": uids == [os.getuid()]},
        (Evidence("/proc", lines, see),),
    )


LEFT_OVERS = Probe(
    "left-overs",
    "Is anything of an earlier run still here?",
    {
        "none": "ok",
        "orphan-ranks": "bad",
        "orphan-launcher": "info",
        "zombies": "info",
        "stopped": "bad",
        "orphan-ranks-aside": "info",
        "stopped-aside": "info",
        "d-state": "bad",
        "hidden": "info",
    },
    _look,
)
PROBES: tuple[Probe, ...] = (LEFT_OVERS,)
