"""Trials for the fixes of one diagnosis: torch is imported once, while the probes look."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ddp_assist.app.diagnose import Question
from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import TrialSpec


class Trials:
    """A context: nothing of it survives the diagnosis."""

    def __init__(self, question: Question) -> None:
        self.python = question.python

    def __enter__(self) -> Trials:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def meet(self, wanted: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether the ranks joined, and one sentence about it."""
        result = run_trial(TrialSpec(**{"python": self.python, **wanted}))
        return result.outcome == "joined", result.sentence
