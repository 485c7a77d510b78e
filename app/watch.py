"""Whether a job that we started hangs: silence, no work, and a look at its ranks that agrees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ddp_assist.app.passthrough import Kept
from ddp_assist.app.question import Question

if TYPE_CHECKING:
    from ddp_assist.app.diagnose import Diagnosis
    from ddp_assist.probes.host.processes import Process

IDLE = 0.05
"""A job that uses less of a core than this and prints nothing makes no progress."""
NO_PROOF = frozenset({"job.healthy", "job.starting", "job.waits-briefly", "job.gpu-wait"})
"""What the ranks show when silence is no hang."""


class Watch:
    """Silent for long enough, none of its processes works, and a look at the ranks agrees.

    The look goes on beside the job, whose output is passed through meanwhile: a job that only
    sleeps, or waits for a moment, never hears of it.
    """

    def __init__(
        self, kept: Kept, asked: Question, after: float, hangs: Callable[[Diagnosis], bool]
    ) -> None:
        self.kept, self.asked, self.after, self.hangs = kept, asked, after, hangs
        self.cpu: dict[int, float] = {}
        self.since = self.quiet_since = time.monotonic()
        self.looking: threading.Thread | None = None
        self.found: Diagnosis | None = None
        self.told = False
        self.way: list[str] | None = None
        """How we are started where the job is, if that is another network than ours."""
        self.stood: list[object] = []
        """Where ranks waited for their GPUs when they were last looked at."""

    def is_hung(self, pid: int) -> bool:
        if self.told:
            return False
        if self.looking is not None:
            return not self.looking.is_alive() and self._judge()
        if self._quiet(pid) >= self.after:
            self._begin(pid)
        return False

    def _begin(self, pid: int) -> None:
        now = replace(self.asked, logs=(self.kept.so_far(),), job=pid)
        self.begun = time.monotonic()

        def examine() -> None:
            from ddp_assist.app.diagnose import diagnose
            from ddp_assist.app.inside import seen, way_to
            from ddp_assist.probes.launch.plan import LaunchError

            try:
                self.way = way_to(pid)
                self.found = seen(self.way, now) if self.way else diagnose(now)
            except LaunchError:
                self.found = None

        self.looking = threading.Thread(target=examine, daemon=True)
        self.looking.start()

    def _judge(self) -> bool:
        """Whether the job, silent before and during the look, is to be ended."""
        found, self.found, self.looking = self.found, None, None
        self.quiet_since = time.monotonic()
        if found is None or self.kept.last > self.begun:
            return False
        before, self.stood = self.stood, at_gpus(found)
        if not (is_evident(found, self.after) or self.stood and self.stood == before):
            return False
        self.told = True
        return self.hangs(found)

    def _quiet(self, pid: int) -> float:
        """Seconds for which nothing was printed and no process of the job worked, those left out
        whose use of a core says nothing."""
        now = time.monotonic()
        if now - self.since >= min(2.0, self.after / 2):
            cpu = self._work(pid)
            used = max((cpu[p] - self.cpu.get(p, 0.0) for p in cpu), default=0.0)
            if used / (now - self.since) >= IDLE or not self.cpu:
                self.quiet_since = now
            self.cpu, self.since = cpu, now
        self.quiet_since = max(self.quiet_since, self.kept.last)
        return now - self.quiet_since

    def _work(self, pid: int) -> dict[int, float]:
        from ddp_assist.probes.host.processes import look, snapshot

        everyone = snapshot()
        family = [look(pid), *everyone.descendants(pid)]
        return {p.pid: p.cpu for p in family if p is not None and not in_nccl(p)}


def is_evident(found: Diagnosis, after: float) -> bool:
    """Whether the ranks show a hang, or everybody waits and something here explains it."""
    job = [f for f in found.findings if f.probe == "job"]
    if any(f.key in NO_PROOF for f in job):
        return False
    quiet = [f.data["quiet_s"] for f in job if f.data.get("quiet_s") is not None]
    if quiet and min(quiet) < after / 2:
        return False
    if any(found.weights.get(f.key) == "bad" for f in job):
        return True
    return any(r.certainty != "possible" for r in found.causes)


def at_gpus(found: Diagnosis) -> list[object]:
    """Where the ranks wait for their GPUs, where counters of their loops tell one turn from the
    next: the same twice, with a whole silence between, is no long step."""
    waits = [f.data for f in found.findings if f.key == "job.gpu-wait" and f.data.get("turns")]
    return [(data["where"], data["turns"]) for data in waits]


def in_nccl(process: Process) -> bool:
    return any(name.startswith("pt_nccl") for name in process.thread_names or ())
