"""`ddp-assist run`: the user's command untouched, and a diagnosis when it fails or hangs."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from ddp_assist.app.cli import OK, UNREADABLE, Wrong
from ddp_assist.app.options import launch_of, parser, question, seconds, split
from ddp_assist.app.passthrough import Ended, Kept
from ddp_assist.app.passthrough import run as pass_through
from ddp_assist.app.verbs.diagnose import answer
from ddp_assist.probes.host.processes import look, snapshot

USUAL = 300.0
IDLE = 0.05
"""A job that uses less of a core than this and prints nothing makes no progress."""


def run(verb: str, words: list[str]) -> int:
    ours, launch = split(words)
    p = parser(verb, "Run a launch untouched; diagnose it when it fails or hangs.")
    p.add_argument(
        "--hang-after", type=seconds, metavar="S",
        help=f"a job idle and silent for S seconds hangs: it is diagnosed and ended"
        f" (without this it is diagnosed after {USUAL:g} s and goes on)",
    )  # fmt: skip
    p.add_argument("--no-trial", action="store_true", help="try no rendezvous here")
    p.add_argument("--json", action="store_true", help="print JSON; the job's output to stderr")
    p.add_argument("--out", type=Path, metavar="DIR", help="write case, reports and launch.sh")
    given = p.parse_args(ours)
    command = launch_of(launch, needed=True)
    if shutil.which(command[0]) is None:
        raise Wrong(f"there is no command {command[0]}", UNREADABLE)
    given.log, given.script, given.python, given.symptom = [], None, None, None
    asked = question(given, command)

    def diagnosed(log: str, job: int | None) -> int:
        now = replace(asked, logs=(log,), job=job)
        return answer(now, given.no_trial, None, given.json, given.out)

    with tempfile.NamedTemporaryFile(prefix="ddp-assist-run-") as file:
        kept = Kept(file)
        watch = Watch(kept, given.hang_after or USUAL)
        code = OK

        def on_hang(pid: int) -> bool:
            nonlocal code
            say(f"no output and no work for {watch.after:g} s: looking at the job")
            code = diagnosed(kept.finish(), pid)
            return given.hang_after is not None

        ended = pass_through(command, kept, 2 if given.json else 1, watch.is_hung, on_hang)
        if ended.hung:
            return code
        if ended.code == 0:
            return OK
        if ended.asked_for:
            return same_end(ended)
        say(f"the job failed with {'signal' if ended.code < 0 else 'exit code'} {abs(ended.code)}")
        return diagnosed(kept.finish(), None)


def say(text: str) -> None:
    print(f"ddp-assist: {text}", file=sys.stderr, flush=True)


def same_end(ended: Ended) -> int:
    """Whoever waits for us sees what he would have seen of the job."""
    if ended.code < 0:
        signal.signal(-ended.code, signal.SIG_DFL)
        os.kill(os.getpid(), -ended.code)
    return ended.code if ended.code >= 0 else 128 - ended.code


class Watch:
    """Silent for long enough, and none of its processes works."""

    def __init__(self, kept: Kept, after: float) -> None:
        self.kept, self.after = kept, after
        self.cpu: dict[int, float] = {}
        self.since = time.monotonic()

    def is_hung(self, pid: int) -> bool:
        now = time.monotonic()
        if now - self.kept.last < self.after:
            return False
        cpu = self._work(pid)
        if not self.cpu:
            self.cpu, self.since = cpu, now
            return False
        took = now - self.since
        if took < min(5.0, self.after):
            return False
        used = max((cpu[p] - self.cpu.get(p, 0.0) for p in cpu), default=0.0)
        self.cpu, self.since = cpu, now
        return used / took < IDLE

    def _work(self, pid: int) -> dict[int, float]:
        everyone = snapshot()
        family = [look(pid), *everyone.descendants(pid)]
        return {p.pid: p.cpu for p in family if p is not None}
