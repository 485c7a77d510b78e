"""`ddp-assist jobs`: the distributed jobs alive on this host and what each rank is doing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from ddp_assist.app.cli import FOUND, OK
from ddp_assist.app.jobs import alive
from ddp_assist.app.options import parser

SCHEMA = "ddp-assist/jobs/1"


def run(verb: str, words: list[str]) -> int:
    p = parser(verb, "The distributed jobs alive on this host, and what each rank is doing.")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--stacks", action="store_true", help="ask py-spy where your ranks stand")
    p.add_argument("--peek", action="store_true",
                   help="ask the stores of jobs that wait in rendezvous who joined")  # fmt: skip
    given = p.parse_args(words)
    shown = alive(given.stacks, given.peek)
    if given.json:
        json.dump({"schema": SCHEMA, "jobs": shown}, sys.stdout, allow_nan=False, indent=1)
        print()
    else:
        print("\n".join(lines(shown)) or "no distributed job is alive here")
    return FOUND if any(job["verdict"]["cause"] for job in shown) else OK


def lines(jobs: Sequence[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for job in jobs:
        size = f"{len(job['ranks'])} of {job['world_size'] or '?'} ranks"
        age = time.strftime("%H:%M:%S", time.gmtime(job["age_s"]))
        found.append(
            f"{job['id']:<8} {job['launcher']:<12} {size:<16} {job['master']:<22}"
            f" {job['user']:<10} up {age}".rstrip()
        )
        found += [_line(entry) for entry in job["ranks"][:64]]
        if len(job["ranks"]) > 64:
            found.append(f"    and {len(job['ranks']) - 64} more ranks")
        cause = job["verdict"]["cause"]
        found.append(f"    {cause + ': ' if cause else ''}{job['verdict']['sentence']}")
    return found


def _line(rank: dict[str, Any]) -> str:
    number = "?" if rank["rank"] is None else rank["rank"]
    return f"    rank {number:<4} pid {rank['pid']:<8} {rank['state']:<18} {rank['where']}".rstrip()
