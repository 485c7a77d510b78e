"""Jobs alive on this host, as the `jobs` verb prints them and the screens list them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ddp_assist.app.diagnose import weights
from ddp_assist.app.tree import load, recognised
from ddp_assist.app.walk import rank
from ddp_assist.probes.jobs.live import Shown, live
from ddp_assist.probes.jobs.peek import asked
from ddp_assist.probes.model import Finding
from ddp_assist.probes.network.holder import user_name
from ddp_assist.probes.text import clean


def alive(with_stacks: bool = False, touch: bool = False) -> list[dict[str, Any]]:
    """Every job with what each rank is doing; stacks are asked of py-spy, and only on request.

    `touch` is the user's yes to a connection to the stores of own jobs that wait in rendezvous.
    """
    every = live(with_stacks)
    if touch:
        every = [
            Shown(s.scene, (*s.findings, *asked(s.scene))) if s.scene.job.uid == os.getuid() else s
            for s in every
        ]
    return [as_json(shown) for shown in every]


def as_json(shown: Shown) -> dict[str, Any]:
    scene, job = shown.scene, shown.scene.job
    first = job.launcher or (job.ranks[0].process if job.ranks else None)
    return {
        "id": job.id,
        "launcher": clean(job.kind),
        "master": clean(f"{job.host}:{job.port}" if job.port else ""),
        "world_size": job.world_size,
        "user": "" if job.uid is None else clean(user_name(job.uid)),
        "age_s": round(first.age()) if first else 0,
        "left_over": job.is_left_over,
        "quiet_s": None if scene.quiet is None else round(scene.quiet, 1),
        "ranks": [
            {
                "rank": d.rank.rank,
                "pid": d.rank.process.pid,
                "state": d.state,
                "where": clean(d.where),
                "told_by": d.rank.told_by,
            }
            for d in scene.doing
        ],
        "missing": job.missing or _told_missing(shown.findings),
        "verdict": verdict(shown.findings),
    }


def _told_missing(findings: Sequence[Finding]) -> list[int]:
    """Ranks that the job's own store misses."""
    peeked = (f.data.get("missing") for f in findings if f.probe == "store-peek")
    return next(filter(None, peeked), [])


def verdict(findings: Sequence[Finding]) -> dict[str, str | None]:
    """The likeliest cause, from what the job shows alone; `diagnose --job PID` asks the rest."""
    weigh = weights()
    bad = [f for f in findings if weigh.get(f.key) == "bad"]
    if not bad:
        sentence = findings[0].sentence if findings else "nothing is known"
        return {"cause": None, "sentence": sentence}
    tree = load()
    probes = {f.probe for f in findings}
    ranked = rank(tree, findings, recognised(tree, bad), probes, weigh)
    sentence = "; ".join(dict.fromkeys(f.sentence for f in bad[:1] + _peeked(bad)))
    return {"cause": ranked[0].cause if ranked else None, "sentence": sentence}


def _peeked(findings: Sequence[Finding]) -> list[Finding]:
    return [f for f in findings if f.probe == "store-peek"]
