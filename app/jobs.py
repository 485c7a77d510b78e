"""Jobs alive on this host, as the `jobs` verb prints them and the screens list them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.find import Job, find_jobs
from ddp_assist.probes.jobs.stacks import Stack, stacks
from ddp_assist.probes.jobs.state import Doing, watch
from ddp_assist.probes.text import clean


def alive(with_stacks: bool = False) -> list[dict[str, Any]]:
    """Every job with what each rank is doing; stacks are asked of py-spy, and only on request."""
    jobs = find_jobs(snapshot())
    doing = watch(jobs)
    at = stacks([r.process.pid for job in jobs for r in job.ranks]) if with_stacks else {}
    return [as_json(job, doing[job.id], at) for job in jobs]


def as_json(job: Job, doing: Sequence[Doing], at: dict[int, Stack]) -> dict[str, Any]:
    return {
        "id": job.id,
        "launcher": clean(job.kind),
        "master": clean(f"{job.host}:{job.port}" if job.port else ""),
        "world_size": job.world_size,
        "ranks": [
            {
                "rank": d.rank.rank,
                "pid": d.rank.process.pid,
                "state": d.state,
                "where": clean(
                    at[d.rank.process.pid].where if d.rank.process.pid in at else d.where
                ),
            }
            for d in sorted(doing, key=lambda d: (d.rank.rank is None, d.rank.rank or 0))
        ],
        "missing": job.missing,
        "verdict": verdict(job, doing),
    }


def verdict(job: Job, doing: Sequence[Doing]) -> dict[str, str | None]:
    """What can be said without stacks; `diagnose --job PID` walks on from here."""
    stopped = [d for d in doing if d.state == "stopped"]
    if stopped:
        named = ", ".join(str(d.rank.rank) for d in stopped)
        return {"cause": "rank-stopped", "sentence": f"rank {named} is stopped"}
    if job.missing:
        named = ", ".join(map(str, job.missing))
        return {"cause": "rank-never-started", "sentence": f"rank {named} is not here"}
    if not doing:
        return {
            "cause": None,
            "sentence": "a launcher without ranks: it waits, or has just started",
        }
    if all(d.waits or d.state == "idle" for d in doing):
        return {"cause": None, "sentence": f"all {len(doing)} ranks wait"}
    return {"cause": None, "sentence": "nothing looks wrong from outside"}
