"""`ddp-assist diagnose`: the same walk without a screen, as text or JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddp_assist.app import prove
from ddp_assist.app.cli import DEADLINE, FOUND, INCONCLUSIVE, OK, UNREADABLE, Wrong
from ddp_assist.app.diagnose import Diagnosis, Question, diagnose
from ddp_assist.app.export import write_all
from ddp_assist.app.files import WriteFailed, unnamed_file
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.hosts_drawn import summary
from ddp_assist.app.inside import way_to
from ddp_assist.app.options import (
    add_fleet,
    add_question,
    count,
    fleet_of,
    launch_of,
    parser,
    port,
    question,
    seconds,
    split,
)
from ddp_assist.app.progress import reading_in_sight
from ddp_assist.app.saying import as_json, as_text
from ddp_assist.probes.launch.plan import LaunchError

if TYPE_CHECKING:
    from ddp_assist.app.trials import Trials


def run(verb: str, words: list[str]) -> int:
    ours, launch = split(words)
    p = parser(verb, "Find the cause without a screen.")
    add_question(p)
    p.add_argument("--job", type=count, metavar="PID", help="a live process of the job")
    p.add_argument(
        "--peek", action="store_true",
        help="with --job: ask the job's own store who has joined (one connection, changes nothing)",
    )  # fmt: skip
    p.add_argument("--no-trial", action="store_true", help="try no rendezvous here")
    add_fleet(p)
    p.add_argument("--timeout", type=seconds, metavar="S", help="stop looking after S seconds")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--out", type=Path, metavar="DIR", help="write case, reports and launch.sh")
    p.add_argument("--yes-end", type=count, metavar="PID", help="end this left-over process first")
    p.add_argument("--port", type=port, metavar="N", help="the port that PID holds")
    p.add_argument("--write", action="store_true", help="write the correction over your files")
    p.add_argument(
        "--yes-write", action="append", default=[], type=Path, metavar="F",
        help="with --write and no terminal to ask on: F may be written",
    )  # fmt: skip
    given = p.parse_args(ours)
    if given.yes_write and not given.write:
        raise Wrong("--yes-write only says which files --write may write")
    allowed = given.yes_write if given.write else None
    asked = question(given, launch_of(launch))
    if given.job is not None:
        _go_where_it_is(given.job, [verb, *words])
    changed: list[str] = []
    if given.yes_end is not None:
        from ddp_assist.app.verbs.end import end_now

        changed.append(end_now(given.yes_end, given.port))
    with _stdin_as_file(asked) as asked:
        return answer(
            asked, given.no_trial, given.timeout, given.json, given.out, changed,
            allowed=allowed, fleet=given.fleet,
        )  # fmt: skip


def _go_where_it_is(pid: int, words: list[str]) -> None:
    way = way_to(pid)
    if way is not None:
        os.execv(way[0], [*way, *words])


def answer(
    asked: Question,
    no_trial: bool,
    timeout: float | None,
    want_json: bool,
    out: Path | None,
    changed: Sequence[str] = (),
    ready: Diagnosis | None = None,
    allowed: Sequence[Path] | None = None,
    fleet: str | None = None,
) -> int:
    """Diagnoses (unless that is `ready`), proves, prints and writes; returns the exit code."""
    begun = time.monotonic()
    cancel = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: cancel.set())
    with _trials(asked, no_trial) as trials:
        try:
            with reading_in_sight(sys.stderr):
                diagnosis = ready or diagnose(asked, cancel=cancel, deadline=timeout)
        except LaunchError as why:
            raise Wrong(str(why)) from why
        if cancel.is_set():
            return 128 + signal.SIGTERM
        cured: list[Fix] = []
        beside: dict[str, Any] = {}
        if names := fleet_of(fleet, diagnosis.target):
            from ddp_assist.app.fleet import together

            diagnosis, cured, beside = together(diagnosis, names, not no_trial)
        mine = {fix.cause for fix in cured}
        fixes = prove.all_of(diagnosis, trials.meet if trials else None)
        fixes = [*cured, *(fix for fix in fixes if fix.cause not in mine)]
        diagnosis.trial = trials.last if trials else None
        diagnosis.changed = list(changed)
    diagnosis.seconds = round(time.monotonic() - begun, 3)
    result = as_json(diagnosis, fixes) | beside
    if want_json:
        json.dump(result, sys.stdout, ensure_ascii=True, allow_nan=False, indent=1)
        print()
    else:
        print("\n".join([*summary(beside["nodes"], beside["links"]), ""]) if beside else "", end="")
        print(as_text(result))
    if out is not None:
        sys.stdout.flush()
        try:
            write_all(out, diagnosis, fixes, result)
            if cured:
                from ddp_assist.app.hosts_written import write_for_nodes

                write_for_nodes(out, cured, diagnosis.target.launch, names)
        except WriteFailed as why:
            raise Wrong(f"--out {out}: {why}") from why
    if allowed is not None:
        from ddp_assist.app.verbs.write import write_over

        sys.stdout.flush()
        write_over(diagnosis, fixes, allowed)
    if timeout is not None and diagnosis.seconds >= timeout and not diagnosis.causes:
        return DEADLINE
    return exit_code(diagnosis)


def exit_code(diagnosis: Diagnosis) -> int:
    if diagnosis.causes:
        return FOUND
    if any(f.data.get("unreadable") for f in diagnosis.findings):
        return UNREADABLE
    # A log that names no cause is no proof of health: it may be the wrong one, or end too early.
    return INCONCLUSIVE if diagnosis.unanswered or diagnosis.question.logs else OK


@contextmanager
def _trials(asked: Question, no_trial: bool) -> Iterator[Trials | None]:
    """Ranks that meet here when a fix wants proof; torch is imported while the probes look."""
    if no_trial or not (asked.launch or asked.script or asked.job):
        yield None
        return
    from ddp_assist.app.trials import Trials

    with Trials(asked) as trials:
        yield trials


@contextmanager
def _stdin_as_file(asked: Question) -> Iterator[Question]:
    """A log on stdin is kept in a private file while it is read: probes want to look twice."""
    if "-" not in asked.logs:
        yield asked
        return
    from dataclasses import replace

    with unnamed_file() as (kept, name):
        while block := sys.stdin.buffer.read(1 << 20):
            kept.write(block)
        kept.flush()
        logs = tuple(name if log == "-" else log for log in asked.logs)
        yield replace(asked, logs=logs)
