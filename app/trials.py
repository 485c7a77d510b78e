"""Trials for the fixes of one diagnosis: torch is imported once, while the probes look."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from ddp_assist.app.diagnose import Question
from ddp_assist.probes.trial.spec import TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch


class Trials:
    """A context: nothing of it survives the diagnosis."""

    def __init__(self, question: Question) -> None:
        self.python = question.python
        self.warm = WarmTorch(question.python)
        self.last: Mapping[str, Any] | None = None

    def __enter__(self) -> Trials:
        self.warm.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.warm.close()

    def meet(self, wanted: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether the ranks joined, and one sentence about it."""
        result = self.warm.run_trial(TrialSpec(**{"python": self.python, **wanted}))
        self.last = result.as_json()
        return result.outcome == "joined", result.sentence
