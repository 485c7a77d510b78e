"""Trials for the fixes of one diagnosis: torch is imported once, while the probes look."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

from ddp_assist.app.question import Question
from ddp_assist.probes.trial.nccl import UNTRIED
from ddp_assist.probes.trial.spec import TrialResult, TrialSpec
from ddp_assist.probes.trial.verdict import OnStage
from ddp_assist.probes.trial.warm import WarmTorch


class Trials:
    """A context: nothing of it survives the diagnosis.

    `on_stage` hears of each stage of each rank as it comes, and `say` what a trial takes of the
    GPUs before it begins, and what else is tried when NCCL fails; both in the caller's thread.
    `cancel` ends a trial that runs."""

    def __init__(
        self,
        question: Question,
        on_stage: OnStage | None = None,
        say: Callable[[str], None] = lambda text: None,
        cancel: threading.Event | None = None,
    ) -> None:
        self.python = question.python
        self.on_stage = on_stage
        self.say = say
        self.cancel = cancel
        self.warm = WarmTorch(question.python)
        self.last: Mapping[str, Any] | None = None

    def start(self) -> None:
        self.warm.start()

    def close(self) -> None:
        self.warm.close()

    def __enter__(self) -> Trials:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def meet(self, wanted: Mapping[str, Any]) -> tuple[bool | None, str]:
        """Whether the ranks joined, and one sentence about it; None where nobody can tell."""
        spec = TrialSpec(**{"python": self.python, **wanted})
        result = self._try(spec)
        said = result.sentence
        if result.kind in UNTRIED:
            why, result = said, self._try(replace(spec, backend="gloo", gpus=()))
            said = f"{result.sentence}; NCCL itself could not be tried here: {why}"
        self.last = result.as_json()
        return None if result.undecided else result.joined, said

    def _try(self, spec: TrialSpec) -> TrialResult:
        if spec.cost:
            self.say(spec.cost)
        return self.warm.run_trial(spec, self.on_stage, self.cancel, self.say)
