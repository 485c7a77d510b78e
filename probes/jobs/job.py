"""Is every rank of this job there, and does each do what the others wait for?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.find import Job, family, find_jobs, unnamed
from ddp_assist.probes.jobs.stacks import Stack, stacks
from ddp_assist.probes.jobs.state import Doing, watch
from ddp_assist.probes.model import Evidence, Finding, Probe, Target
from ddp_assist.probes.network.sockets import LISTEN, tcp


def job_of(pid: int) -> Job | None:
    processes = snapshot()
    below = {pid} | {p.pid for p in processes.descendants(pid)}
    for job in find_jobs(processes):
        if pid in family(job, processes) or below & {r.process.pid for r in job.ranks}:
            return job
    return unnamed(pid, processes)


def look(target: Target) -> Iterator[Finding]:
    assert target.job is not None
    job = job_of(target.job)
    if job is None:
        yield Finding(
            "job", "not-distributed", f"no rank was found at or below pid {target.job}",
            {"pid": target.job}, (Evidence("/proc", (), ("ps", "--forest", "-e")),),
        )  # fmt: skip
        return
    doing = watch([job])[job.id]
    seen = [*_there(job), *_states(doing), *_endpoint(job, doing)]
    if not seen or all(f.outcome in ("rank-missing", "endpoint-unheard") for f in seen):
        seen += _compared(job, doing, stacks([d.rank.process.pid for d in doing]))
    yield from seen or [_healthy(job, doing)]


def _data(job: Job, doing: list[Doing]) -> dict[str, object]:
    return {
        "world_size": job.world_size,
        "port": job.port,
        "host": job.host,
        "ranks": {str(d.rank.rank): f"{d.state} {d.where}".strip() for d in doing},
    }


def _there(job: Job) -> Iterator[Finding]:
    if job.missing:
        named = ", ".join(map(str, job.missing))
        yield Finding(
            "job", "rank-missing",
            f"rank {named} of {job.world_size} is not among the processes of this host",
            {"missing": job.missing, "world_size": job.world_size, "port": job.port},
        )  # fmt: skip
    if job.twice:
        named = ", ".join(map(str, job.twice))
        pids = [r.process.pid for r in job.ranks if r.rank in job.twice]
        yield Finding(
            "job", "duplicate-rank", f"{len(pids)} processes all call themselves rank {named}",
            {"rank": job.twice[0], "pids": pids},
        )  # fmt: skip


def _states(doing: list[Doing]) -> Iterator[Finding]:
    for state, outcome, word in (
        ("stopped", "rank-stopped", "is stopped (state T)"),
        ("zombie", "rank-zombie", "has ended and was not waited for"),
        ("gone", "rank-zombie", "has just ended"),
        ("disk-sleep", "rank-d-state", "hangs in the kernel (state D)"),
    ):
        for d in (d for d in doing if d.state == state):
            pid = d.rank.process.pid
            yield Finding(
                "job", outcome, f"rank {d.rank.rank} (pid {pid}) {word}",
                {"rank": d.rank.rank, "pid": pid, "where": d.where},
                (Evidence(f"/proc/{pid}/status", (), ("ps", "-o", "stat,args", "-p", str(pid))),),
            )  # fmt: skip


def _endpoint(job: Job, doing: list[Doing]) -> Iterator[Finding]:
    """Everybody dials, and on this host nobody listens."""
    dialling = [d for d in doing if d.state == "waiting-for-store"]
    if dialling and job.port and job.is_local:
        heard = {s.port for s in tcp(LISTEN)}
        ports = {int(d.where.split()[-1]) for d in dialling}
        if not ports & heard:
            named = ", ".join(map(str, sorted(ports)))
            yield Finding(
                "job", "endpoint-unheard",
                f"{len(dialling)} ranks dial port {named}, where nobody listens on this host",
                {"port": min(ports), "ranks": [d.rank.rank for d in dialling]},
            )  # fmt: skip


def _compared(job: Job, doing: list[Doing], at: dict[int, Stack]) -> list[Finding]:
    """The odd one out among ranks that should stand at the same place."""
    known = [(d, at[d.rank.process.pid]) for d in doing if d.rank.process.pid in at]
    locked = [(d, s) for d, s in known if s.in_lock]
    if locked and len(locked) == len(known):
        return [
            Finding(
                "job",
                "lock-waiting",
                f"{len(locked)} ranks wait for a lock at {locked[0][1].where}",
                {"where": locked[0][1].where},
            )  # fmt: skip
        ]
    waiting = [(d, s) for d, s in known if s.is_waiting]
    others = [(d, s) for d, s in known if not s.is_waiting]
    lines = Counter(f"{s.where} waits in {s.waits_in}" for _, s in waiting)
    data = _data(job, doing) | {"stacks": {str(d.rank.rank): s.where for d, s in known}}
    if waiting and others and all(s.waits_in != "init_process_group" for _, s in waiting):
        odd, stack = others[0]
        return [
            Finding(
                "job",
                "behind",
                f"rank {odd.rank.rank} is at {stack.where or odd.state}, while"
                f" {len(waiting)} others wait: {lines.most_common(1)[0][0]}",
                data | {"rank": odd.rank.rank, "where": stack.where},
            )  # fmt: skip
        ]
    if len(lines) > 1 and all(s.waits_in != "init_process_group" for _, s in waiting):
        first, *rest = [line for line, _ in lines.most_common()]
        return [
            Finding(
                "job",
                "apart",
                f"the ranks wait at different places: {first}; {'; '.join(rest)}",
                data,
            )
        ]
    if waiting and not others and waiting[0][1].waits_in == "init_process_group":
        return [Finding("job", "meeting", f"all ranks wait: {next(iter(lines))}", data)]
    if waiting and not others:
        return [Finding("job", "all-waiting", f"all ranks wait: {next(iter(lines))}", data)]
    return []


def _healthy(job: Job, doing: list[Doing]) -> Finding:
    words = ", ".join(f"{n} {state}" for state, n in Counter(d.state for d in doing).items())
    if doing and all(d.waits or d.state == "idle" for d in doing):
        return Finding("job", "meeting", f"all ranks wait: {words}", _data(job, doing))
    return Finding(
        "job",
        "healthy",
        f"{len(doing)} ranks of {job.world_size or '?'}: {words}",
        _data(job, doing),
    )


PROBES = (
    Probe(
        "job",
        "Is every rank there, and does each do what the others wait for?",
        {
            "healthy": "ok",
            "not-distributed": "info",
            "all-waiting": "info",
            "meeting": "info",
            "rank-missing": "bad",
            "rank-stopped": "bad",
            "rank-zombie": "bad",
            "rank-d-state": "info",
            "duplicate-rank": "bad",
            "endpoint-unheard": "info",
            "behind": "bad",
            "apart": "bad",
            "lock-waiting": "bad",
        },
        look,
        lambda target: target.job is not None,
        deadline=15.0,
    ),
)
