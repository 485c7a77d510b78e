"""`ddp-assist run`: the user's command untouched, and a diagnosis when it fails or hangs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ddp_assist.app.cli import OK, UNREADABLE, Wrong
from ddp_assist.app.diagnose import Diagnosis, Question, diagnose, weights
from ddp_assist.app.diagnose import look as read_only
from ddp_assist.app.options import add_fleet, launch_of, parser, question, seconds, split
from ddp_assist.app.passthrough import Ended, Kept
from ddp_assist.app.passthrough import run as pass_through
from ddp_assist.app.verbs.diagnose import answer
from ddp_assist.probes.host.processes import look, snapshot
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.model import Target

USUAL = 300.0
IDLE = 0.05
"""A job that uses less of a core than this and prints nothing makes no progress."""
AT_WORK = frozenset({"job.healthy", "job.starting", "job.waits-briefly"})
"""What the ranks show when silence is no hang."""


def run(verb: str, words: list[str]) -> int:
    ours, launch = split(words)
    p = parser(verb, "Run a launch untouched; diagnose it when it fails or hangs.")
    p.add_argument(
        "--hang-after", type=seconds, metavar="S",
        help="after S seconds without output or work the job is looked at, and when it hangs, it"
        f" is diagnosed and ended (without this: after {USUAL:g} s it is diagnosed and goes on)",
    )  # fmt: skip
    p.add_argument("--no-trial", action="store_true", help="try no rendezvous here")
    add_fleet(p)
    p.add_argument("--json", action="store_true", help="print JSON; the job's output to stderr")
    p.add_argument("--out", type=Path, metavar="DIR", help="write case, reports and launch.sh")
    given = p.parse_args(ours)
    command = launch_of(launch, needed=True)
    if shutil.which(command[0]) is None:
        raise Wrong(f"there is no command {command[0]}", UNREADABLE)
    given.log, given.script, given.python, given.symptom = [], None, None, None
    asked = question(given, command)

    with tempfile.NamedTemporaryFile(prefix="ddp-assist-run-") as file:
        kept = Kept(file)
        code = OK

        def hangs(found: Diagnosis) -> bool:
            nonlocal code
            say(f"no output and no work for {watch.after:g} s, and the ranks do not go on")
            code = answer(
                found.question, given.no_trial, None, given.json, given.out, ready=found,
                fleet=given.fleet,
            )
            return given.hang_after is not None

        watch = Watch(kept, asked, given.hang_after or USUAL, hangs)
        try:
            ended = pass_through(command, kept, 2 if given.json else 1, watch.is_hung)
        except OSError as why:
            raise Wrong(f"{command[0]} can't be started: {why.strerror}", UNREADABLE) from why
        if ended.hung:
            return code
        if ended.code == 0:
            if tells_of_failure(kept.so_far()):
                say("the job ended with exit code 0, but its output tells of a failure")
                now = replace(asked, logs=(kept.so_far(),))
                answer(now, given.no_trial, None, given.json, given.out, fleet=given.fleet)
            return OK
        if ended.asked_for:
            return same_end(ended)
        say(f"the job failed with {'signal' if ended.code < 0 else 'exit code'} {abs(ended.code)}")
        now = replace(asked, logs=(kept.so_far(),))
        return answer(now, given.no_trial, None, given.json, given.out, fleet=given.fleet)


def tells_of_failure(log: str) -> bool:
    """A launch that only waits for its ranks ends with 0 whatever they met."""
    _, found, _ = read_only(Target(logs=(log,)), choose=lambda probe: probe.id == "log")
    weight = weights()
    return any(weight.get(finding.key) == "bad" for finding in found)


def say(text: str) -> None:
    print(f"ddp-assist: {text}", file=sys.stderr, flush=True)


def same_end(ended: Ended) -> int:
    """Whoever waits for us sees what he would have seen of the job."""
    if ended.code < 0:
        signal.signal(-ended.code, signal.SIG_DFL)
        os.kill(os.getpid(), -ended.code)
    return ended.code if ended.code >= 0 else 128 - ended.code


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
            try:
                self.found = diagnose(now)
            except LaunchError:
                self.found = None

        self.looking = threading.Thread(target=examine, daemon=True)
        self.looking.start()

    def _judge(self) -> bool:
        """Whether the job, silent before and during the look, is to be ended."""
        found, self.found, self.looking = self.found, None, None
        self.quiet_since = time.monotonic()
        if found is None or self.kept.last > self.begun or not is_evident(found, self.after):
            return False
        self.told = True
        return self.hangs(found)

    def _quiet(self, pid: int) -> float:
        """Seconds for which nothing was printed and no process of the job worked."""
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
        everyone = snapshot()
        family = [look(pid), *everyone.descendants(pid)]
        return {p.pid: p.cpu for p in family if p is not None}


def is_evident(found: Diagnosis, after: float) -> bool:
    """Whether the ranks show a hang, or everybody waits and something here explains it."""
    job = [f for f in found.findings if f.probe == "job"]
    if any(f.key in AT_WORK for f in job):
        return False
    quiet = [f.data["quiet_s"] for f in job if f.data.get("quiet_s") is not None]
    if quiet and min(quiet) < after / 2:
        return False
    if any(found.weights.get(f.key) == "bad" for f in job):
        return True
    return any(r.certainty != "possible" for r in found.causes)
