"""Options that several verbs share: logs, script, launch, interpreter, where output goes."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ddp_assist.app.cli import UNREADABLE, USAGE, Wrong
from ddp_assist.app.question import Question
from ddp_assist.probes.model import Target


class Parser(argparse.ArgumentParser):
    """argparse that says one sentence instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        raise Wrong(f"{message} (see {self.prog} --help)")


def parser(verb: str, about: str) -> Parser:
    return Parser(prog=f"ddp-assist {verb}".strip(), description=about, allow_abbrev=False)


def split(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Our own words, and the launch behind the first `--`."""
    if "--" not in words:
        return list(words), None
    at = list(words).index("--")
    return list(words[:at]), list(words[at + 1 :])


def launch_of(words: list[str] | None, needed: bool = False) -> list[str]:
    if words is None:
        if needed:
            raise Wrong("there is no launch: give it behind --, e.g. -- torchrun train.py")
        return []
    if not words:
        raise Wrong("the launch behind -- is empty")
    return words


def add_question(into: argparse.ArgumentParser) -> None:
    into.add_argument(
        "--log", action="append", default=[], metavar="F|-", help="a log, or - for stdin"
    )
    into.add_argument("--script", metavar="F", help="the training script")
    into.add_argument("--python", metavar="PY", help="the interpreter whose torch is asked")
    into.add_argument("--symptom", metavar="ID", help="where the walk starts")


def question(given: argparse.Namespace, launch: list[str]) -> Question:
    """Checks that what was named is there, so that a typo is no finding."""
    for log in given.log:
        if log != "-" and not os.path.exists(log):
            raise Wrong(f"there is no log {log}", UNREADABLE)
        if log != "-" and not os.access(log, os.R_OK):
            raise Wrong(f"the log {log} may not be read", UNREADABLE)
    script = Path(given.script) if given.script else None
    if script is not None and not script.is_file():
        raise Wrong(f"there is no script {script}", UNREADABLE)
    python = given.python
    if python is not None and shutil.which(python) is None:
        raise Wrong(f"there is no interpreter {python}", UNREADABLE)
    symptom = given.symptom
    if symptom is not None:
        from ddp_assist.app.tree import symptoms

        known = symptoms()
        if symptom not in known:
            raise Wrong(f"there is no symptom {symptom!r}; one of: {', '.join(known)}")
    return Question(
        launch=tuple(launch),
        logs=tuple(given.log),
        script=script,
        job=getattr(given, "job", None),
        python=python or interpreter(),
        symptom=symptom,
        may_touch=getattr(given, "peek", False),
    )


def interpreter() -> str | None:
    """The active environment's interpreter; without one the launch's own, else ours."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        where = os.environ.get(name)
        if where and os.access(os.path.join(where, "bin", "python"), os.X_OK):
            return os.path.join(where, "bin", "python")
    return None


def port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def guided(words: list[str]) -> argparse.Namespace:
    ours, launch = split(words)
    p = parser("", "The guided session.")
    add_question(p)
    p.add_argument("--demo", action="store_true", help="walk through recorded cases")
    p.add_argument("--mouse", action="store_true", help="let the app have the mouse")
    p.add_argument("--ascii", action="store_true", help="plain ASCII marks and lines")
    p.add_argument("--resume", metavar="ID", help=argparse.SUPPRESS)
    given = p.parse_args(ours)
    given.question = question(given, launch_of(launch))
    return given


def add_fleet(into: argparse.ArgumentParser) -> None:
    into.add_argument(
        "--fleet", nargs="?", const="", metavar="NODES",
        help="ask the other nodes too: those of the launch, or these",
    )  # fmt: skip


def fleet_of(which: str | None, target: Target) -> list[str]:
    """The nodes that `diagnose` and `run` are to ask too: those named, or those of the launch where
    the user says yes to it."""
    if which is None and not any(p.host or (p.nnodes or (1, 1))[1] > 1 for p in target.plans):
        return []
    from ddp_assist.app.hosts_drawn import folded
    from ddp_assist.app.nodes import NodesUnclear, nodes_of

    try:
        names = nodes_of(which or None, None, None, target)
    except NodesUnclear as why:
        if which is None:
            return []
        raise Wrong(str(why), UNREADABLE if why.unreadable else USAGE) from why
    if which is not None:
        return names
    if len(names) < 2:
        return []
    shown = f"The launch spans {len(names)} hosts ({folded(names)})"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        print(f"{shown}: with --fleet they are all asked, over ssh or srun.", file=sys.stderr)
        return []
    print(f"{shown}. Ask them all, over ssh or srun? [y/N] ", end="", file=sys.stderr, flush=True)
    return names if sys.stdin.readline().strip().lower() in ("y", "yes") else []
