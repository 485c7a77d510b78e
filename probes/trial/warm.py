"""torch imported once, in the background, for all trials of a session."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from ddp_assist.probes.trial.guarded import Event, Guard, NotStarted, launch_env
from ddp_assist.probes.trial.nccl import experiment, worth_experiments
from ddp_assist.probes.trial.run import (
    SPARE,
    attempt,
    finish,
    follow,
    interpreter,
    plan_for,
)
from ddp_assist.probes.trial.spec import TrialResult, TrialSpec
from ddp_assist.probes.trial.verdict import Course, OnStage

IDLE = 60.0
"""Seconds after which the memory of an idle child is given back."""
IMPORT = 60.0
"""The longest import that a trial would wait for; the guard is told of a trial, the import not."""
FIRST = 30.0
"""The same from the start to the first trial: where we are frozen meanwhile, it goes as soon as a
trial would, and where somebody was only slow, another one is started."""
# Read when they are used, so setting them after torch was imported is as good as before.
LATE = ("GLOO_", "NCCL_", "TORCH_NCCL_", "MASTER_", "CUDA_VISIBLE_DEVICES")


class WarmTorch:
    """One child with torch in it, from which the workers of each trial are forked.

    The guard ends it by itself when nothing was asked of it for a minute, or when we end. A trial
    that it cannot serve (another interpreter, an environment that is read on import) runs cold.
    """

    def __init__(
        self,
        python: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
    ) -> None:
        self.python = python
        self.env = dict(env or {})
        self.cwd = cwd
        self.guard: Guard | None = None
        self.heard: list[Event] = []
        """What was told of the start-up; every trial's result begins with it."""
        self.tried = False
        self.turn = threading.Lock()

    def __enter__(self) -> WarmTorch:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def start(self) -> None:
        """Begin to import; returns at once. An interpreter that cannot start shows in the trial."""
        with self.turn:
            self._start()

    def _start(self) -> Guard | None:
        """The living guard, after hearing what it has said meanwhile, or a new one."""
        if self.guard is not None:
            self.heard += self.guard.events(time.monotonic())
            if not self.guard.over and self.guard.process.poll() is None:
                return self.guard
        self._end()
        self.heard, self.tried = [], False
        with contextlib.suppress(NotStarted):  # the cold trial that follows says why
            self.guard = Guard(interpreter(self.python), self.env, self.cwd, FIRST, alarm=IMPORT)
        return self.guard

    def _end(self) -> None:
        if self.guard is not None:
            self.guard.end()
            self.guard = None

    def close(self) -> None:
        with self.turn:
            self._end()

    @property
    def pid(self) -> int | None:
        """The guard's pid while there is one."""
        guard = self.guard
        return guard.process.pid if guard is not None and guard.process.poll() is None else None

    def serves(self, spec: TrialSpec) -> bool:
        """Whether a trial forked here sees what one that starts afresh would see."""
        return (
            not spec.torchrun
            and path_of(spec.python) == path_of(self.python)
            and spec.cwd == self.cwd
            and all(name.startswith(LATE) for name in self._late(spec))
        )

    def _late(self, spec: TrialSpec) -> dict[str, str | None]:
        """What the trial's environment has and the warm child's has not; None: it must go."""
        want, have = launch_env(spec.env), launch_env(self.env)
        names = sorted(want.keys() | have.keys())
        return {n: want.get(n) for n in names if want.get(n) != have.get(n)}

    def run_trial(
        self,
        spec: TrialSpec,
        on_stage: OnStage | None = None,
        cancel: threading.Event | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> TrialResult:
        """As `run_trial`, with torch already there; one trial at a time."""
        result = self.attempt(spec, on_stage, cancel)
        if worth_experiments(spec, result):
            return experiment(spec, result, lambda other: self.attempt(other, None, cancel), say)
        return result

    def attempt(
        self, spec: TrialSpec, on_stage: OnStage | None, cancel: threading.Event | None
    ) -> TrialResult:
        """One trial, forked where that is possible."""
        if self.serves(spec):
            with self.turn:
                guard = self._start()
                if guard is not None:
                    return self._try(guard, spec, on_stage, cancel)
        return attempt(spec, on_stage, cancel)

    def _try(
        self, guard: Guard, spec: TrialSpec, on_stage: OnStage | None,
        cancel: threading.Event | None,
    ) -> TrialResult:  # fmt: skip
        course = Course(spec, on_stage)
        until = course.began + spec.deadline
        for event in self.heard:
            course.hear(event)
        plan = plan_for(spec, guard, until, self._late(spec))
        if self.tried:
            guard.begin_log()  # the first trial's log begins with what the import said
        self.tried = True
        guard.send(spec.deadline + SPARE, plan=plan)
        lives = follow(guard, course, until, cancel, self.heard)
        if not lives and cancel is not None and cancel.is_set():
            lives = _called_off(guard)
        if lives:
            guard.send(IDLE)
            return finish(course, spec, guard.tail(), cancel)
        self.guard = None
        return finish(course, spec, guard.end(), cancel)


def _called_off(guard: Guard) -> bool:
    """Any word ends a trial that runs; whether torch is still there afterwards."""
    guard.send(IDLE)
    return any(event["event"] == "over" for event in guard.events(time.monotonic() + SPARE))


def path_of(python: str | None) -> str | None:
    try:
        return interpreter(python)
    except NotStarted:
        return None
