"""`ddp-assist jobs`: the distributed jobs alive on this host and what each rank is doing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from ddp_assist.app.cli import FOUND, OK
from ddp_assist.app.options import parser
from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.find import Job, find_jobs
from ddp_assist.probes.jobs.stacks import Stack, stacks
from ddp_assist.probes.jobs.state import Doing, watch
from ddp_assist.probes.text import clean

SCHEMA = "ddp-assist/jobs/1"


def run(verb: str, words: list[str]) -> int:
    p = parser(verb, "The distributed jobs alive on this host, and what each rank is doing.")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--stacks", action="store_true", help="ask py-spy where your ranks stand")
    given = p.parse_args(words)
    jobs = find_jobs(snapshot())
    doing = watch(jobs)
    at = stacks([r.process.pid for job in jobs for r in job.ranks]) if given.stacks else {}
    shown = [as_json(job, doing[job.id], at) for job in jobs]
    if given.json:
        json.dump({"schema": SCHEMA, "jobs": shown}, sys.stdout, allow_nan=False, indent=1)
        print()
    else:
        print("\n".join(table(shown)) or "no distributed job is alive here")
    return FOUND if any(job["verdict"]["cause"] for job in shown) else OK


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


def _where(doing: Doing, at: dict[int, Stack]) -> str:
    stack = at.get(doing.rank.process.pid)
    return stack.where if stack else doing.where


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


def table(jobs: Sequence[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for job in jobs:
        size = f"{len(job['ranks'])} of {job['world_size'] or '?'} ranks"
        lines.append(f"{job['id']:<8} {job['launcher']:<12} {size:<16} {job['master']}")
        lines += [_line(entry) for entry in job["ranks"]]
        lines.append(f"    {job['verdict']['sentence']}")
    return lines


def _line(rank: dict[str, Any]) -> str:
    number = "?" if rank["rank"] is None else rank["rank"]
    return f"    rank {number:<4} pid {rank['pid']:<8} {rank['state']:<18} {rank['where']}".rstrip()
