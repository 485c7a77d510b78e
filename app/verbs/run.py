"""`ddp-assist run`: the user's command untouched, and a diagnosis when it fails or hangs."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddp_assist.app.before import troubles
from ddp_assist.app.cli import OK, UNREADABLE, Wrong
from ddp_assist.app.files import unnamed_file
from ddp_assist.app.options import add_fleet, launch_of, parser, question, seconds, split
from ddp_assist.app.passthrough import Ended, Kept, readable
from ddp_assist.app.passthrough import run as pass_through
from ddp_assist.app.question import Question
from ddp_assist.app.watch import Watch
from ddp_assist.probes.model import Target

if TYPE_CHECKING:
    from ddp_assist.app.diagnose import Diagnosis
# What looks at a job in trouble is imported when there is one: until then nobody waits for it.

USUAL = 300.0


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
    for sentence in troubles(asked):
        say(f"before the start: {sentence}")

    with unnamed_file() as (file, name):
        kept = Kept(file, name)
        code = OK

        def tell(about: Question, ready: Diagnosis | None = None) -> int:
            from ddp_assist.app.verbs.diagnose import answer

            return answer(
                about, given.no_trial, None, given.json, given.out, ready=ready,
                fleet=given.fleet,
            )  # fmt: skip

        def hangs(found: Diagnosis) -> bool:
            nonlocal code
            with readable():
                say(f"no output and no work for {watch.after:g} s, and the ranks do not go on")
                if watch.way is None:
                    code = tell(found.question, found)
                else:
                    code = tell_from_there(watch.way, found.question, given)
            return given.hang_after is not None

        watch = Watch(kept, asked, given.hang_after or USUAL, hangs)
        try:
            ended = pass_through(command, kept, 2 if given.json else 1, watch.is_hung)
        except OSError as why:
            raise Wrong(f"{command[0]} can't be started: {why.strerror}", UNREADABLE) from why
        if ended.hung:
            return code
        if ended.code == 0:
            if kept.size and tells_of_failure(kept.so_far()):
                say("the job ended with exit code 0, but its output tells of a failure")
                tell(replace(asked, logs=(kept.so_far(),)))
            return OK
        if ended.asked_for:
            return same_end(ended)
        say(f"the job failed with {'signal' if ended.code < 0 else 'exit code'} {abs(ended.code)}")
        return tell(replace(asked, logs=(kept.so_far(),)))


def tell_from_there(way: list[str], about: Question, given: argparse.Namespace) -> int:
    """What is wrong with it, and cures tried, where the job is."""
    from ddp_assist.app.inside import words

    options = ["--no-trial"] * given.no_trial + ["--json"] * given.json
    options += ["--out", str(given.out)] if given.out else []
    options += [f"--fleet={given.fleet}"] if given.fleet is not None else []
    return subprocess.call([*way, *words(about), *options, "--", *about.launch])


def tells_of_failure(log: str) -> bool:
    """A launch that only waits for its ranks ends with 0 whatever they met."""
    from ddp_assist.probes.logs.log import PROBES as READERS
    from ddp_assist.probes.runner import run as ask

    readers = [probe for probe in READERS if probe.id == "log"]
    found = ask(readers, Target(logs=(log,)))
    return any(readers[0].outcomes.get(finding.outcome) == "bad" for finding in found)


def say(text: str) -> None:
    print(f"ddp-assist: {text}", file=sys.stderr, flush=True)


def same_end(ended: Ended) -> int:
    """Whoever waits for us sees what he would have seen of the job."""
    if ended.code < 0:
        signal.signal(-ended.code, signal.SIG_DFL)
        os.kill(os.getpid(), -ended.code)
    return ended.code if ended.code >= 0 else 128 - ended.code
