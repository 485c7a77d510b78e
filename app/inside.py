"""A job with a network of its own, as in a container: looked at from there, which root can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from ddp_assist.app.case import from_json
from ddp_assist.app.diagnose import Diagnosis, conclude, target_of
from ddp_assist.app.question import Question
from ddp_assist.probes.jobs.target import elsewhere, way_in

ENTERED = "DDP_ASSIST_ENTERED"
LONGEST = 120.0


def way_to(pid: int) -> list[str] | None:
    """The command that starts us there; None where that is here, or we may not."""
    where = elsewhere(pid) if ENTERED not in os.environ else None
    way = way_in(where) if where is not None else None
    if way is None:
        return None
    return [*way, "env", f"{ENTERED}=1", sys.executable, "-I", "-m", "ddp_assist"]


def words(asked: Question) -> list[str]:
    """What `diagnose` is asked there."""
    logs = [word for log in asked.logs for word in ("--log", log)]
    return ["diagnose", "--job", str(asked.job), *logs]


def seen(way: Sequence[str], asked: Question) -> Diagnosis | None:
    """What is seen from there, concluded here."""
    command = [*way, *words(asked), "--no-trial", "--json", "--", *asked.launch]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LONGEST, check=False,
            cwd=asked.cwd,
        )  # fmt: skip
        said = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    findings = tuple(from_json(finding) for finding in said["findings"])
    probes = frozenset(f.probe for f in findings)
    return conclude(Diagnosis(asked, target_of(asked), findings, asked=probes))
