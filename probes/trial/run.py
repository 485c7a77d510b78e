"""A trial rendezvous from start to end: cold in a guard of its own, or in a warm one."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ddp_assist.probes.trial.full import run_under_torchrun
from ddp_assist.probes.trial.guarded import Event, Guard, NotStarted
from ddp_assist.probes.trial.nccl import (
    experiment,
    what_it_took,
    what_nccl_said,
    worth_experiments,
)
from ddp_assist.probes.trial.spec import GPU_MIB, Stage, TrialResult, TrialSpec
from ddp_assist.probes.trial.verdict import Course, OnStage

__all__ = ["Stage", "TrialResult", "TrialSpec", "run_trial"]

SPARE = 2.0
"""Seconds between a trial's deadline and the guard's."""


def run_trial(
    spec: TrialSpec,
    on_stage: OnStage | None = None,
    cancel: threading.Event | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> TrialResult:
    """Try it, and leave nothing behind. Never raises for what the machine may contain.

    `say` is told what else is tried where NCCL fails."""
    result = attempt(spec, on_stage, cancel)
    if worth_experiments(spec, result):
        return experiment(spec, result, lambda other: attempt(other, None, cancel), say)
    return result


def attempt(
    spec: TrialSpec, on_stage: OnStage | None, cancel: threading.Event | None
) -> TrialResult:
    """One trial in a guard of its own."""
    course = Course(spec, on_stage)
    until = course.began + spec.deadline
    try:
        python = interpreter(spec.python)
        if spec.torchrun:
            log = run_under_torchrun(spec, python, dict(spec.env), course, until, cancel)
            return finish(course, spec, log, cancel)
        guard = Guard(python, spec.env, spec.cwd, spec.deadline + SPARE)
    except NotStarted as problem:
        course.fail("python", str(problem), "not-started")
        return course.result("")
    try:
        guard.send(spec.deadline + SPARE, once=True, plan=plan_for(spec, guard, until))
        follow(guard, course, until, cancel)
    finally:
        log = guard.end()
    return finish(course, spec, log, cancel)


def interpreter(python: str | None) -> str:
    """The path of an interpreter as given, its links not followed (a venv is one)."""
    if python is None:
        return sys.executable
    found = shutil.which(python)
    if found is None:
        what = "is no program" if os.path.exists(python) else "does not exist"
        raise NotStarted(f"the interpreter {python} {what}: name another one with --python")
    return os.path.abspath(found)


def plan_for(
    spec: TrialSpec, guard: Guard, until: float, late: Mapping[str, str | None] | None = None
) -> dict[str, Any]:
    """What the worker is told. `until` is the kernel's monotonic clock, the same for all; `late`
    is what the environment of a warm worker lacks."""
    key = spec.key or secrets.token_hex(16)
    name = secrets.token_hex(4)
    late = late or {}
    return {
        "id": name,
        "backend": spec.backend,
        "addr": spec.addr,
        "port": spec.port,
        "world": spec.nproc,
        "ranks": list(spec.ranks or range(spec.nproc)),
        "gpu_mib": GPU_MIB,
        "gpus": list(spec.gpus or range(len(spec.ranks) or spec.nproc)),
        "init": spec.init,
        "file": str(guard.shelter.path / f"store-{name}"),
        "interface": spec.interface or "",
        "env": {n: value for n, value in late.items() if value is not None},
        "unset": [n for n, value in late.items() if value is None],
        "key": f"ddp-assist/{key[:32]}",
        # With a shared key the secret must be shared too; else it never leaves these processes.
        "secret": spec.key or secrets.token_hex(16),
        "until": until,
        "shelter": str(guard.shelter.path),
    }


def follow(
    guard: Guard,
    course: Course,
    until: float,
    cancel: threading.Event | None = None,
    kept: list[Event] | None = None,
) -> bool:
    """Hear the events until the trial is over; whether the worker lives on.

    What is told of the start-up goes to `kept`, for the next trial of the same worker."""
    for event in guard.events(until + 0.5, cancel):
        if event["event"] == "over":
            return True
        if event["event"] == "noise" and not course.stages:
            break
        if event["event"] == "ended":
            break
        if kept is not None and event.get("stage") in ("python", "torch-import"):
            kept.append(event)
        course.hear(event)
    if cancel is not None and cancel.is_set():
        return False
    if guard.killed():
        course.note("the guard of this trial was killed, and the trial with it")
    elif not course.stages:
        course.fail("python", "the interpreter does not run our program: is it Python 3.8 or "
                    "newer?", "not-python")  # fmt: skip
    return False


def finish(
    course: Course, spec: TrialSpec, log: str, cancel: threading.Event | None = None
) -> TrialResult:
    """Close the books: what has not ended by now did not end in time."""
    seconds = time.monotonic() - course.began
    cancelled = cancel is not None and cancel.is_set()
    course.close("cancelled" if cancelled else f"still not done after {seconds:.1f} s")
    result = course.result(log)
    if cancelled and not result.joined:
        sentence = f"cancelled before all ranks were through {result.outcome}"
        result = replace(result, kind="cancelled", sentence=sentence)
    if spec.backend == "nccl":
        result = replace(result, notes=(*result.notes, *what_it_took(result), *what_nccl_said(log)))
    if spec.keep_log:
        return replace(result, log_path=keep(log))
    return result


def keep(log: str) -> str:
    """A copy of the log that outlives the trial, because it was asked for."""
    fd, path = tempfile.mkstemp(prefix="ddp-assist-log-", suffix=".txt")
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        out.write(log)
    return path
