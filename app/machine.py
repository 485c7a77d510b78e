"""Where a session's answers come from. `Live` asks this machine; a recording stands in for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ddp_assist.app.actions import Pinned
    from ddp_assist.app.diagnose import Diagnosis
    from ddp_assist.app.fixes.model import Fix
    from ddp_assist.app.fleet import Hosts
    from ddp_assist.app.question import Question
    from ddp_assist.app.trials import Trials
    from ddp_assist.app.walk import Ranked
    from ddp_assist.probes.runner import Told
    from ddp_assist.probes.trial.spec import Stage, TrialResult, TrialSpec

OnStage = Callable[["Stage"], None]
SoFar = Callable[[], dict[str, Any]]
"""What nodes have told until now; it may be asked from any thread."""
Begun = Callable[[SoFar], None]


class Machine(Protocol):
    """All that a session can ask for. Each call may take seconds and runs in a worker."""

    def look(self, question: Question, told: Told, cancel: threading.Event) -> Diagnosis: ...

    def fixes(self, diagnosis: Diagnosis, ranked: Ranked) -> list[Fix]: ...

    def prove(self, diagnosis: Diagnosis, fix: Fix, on_stage: OnStage) -> Fix: ...

    def meet(self, spec: TrialSpec, on_stage: OnStage, cancel: threading.Event) -> TrialResult: ...

    def jobs(self, with_stacks: bool) -> list[dict[str, Any]]: ...

    def hosts(
        self, nodes: str, question: Question, begun: Begun
    ) -> tuple[Diagnosis, list[Fix], dict[str, Any]]: ...

    def pin(self, pid: int, port: int | None) -> tuple[Pinned, list[str]]: ...

    def end(self, pinned: Pinned, force: bool) -> bool: ...

    def close(self) -> None: ...


class Live:
    """This machine. Everything heavy is imported where it is first needed."""

    def __init__(self) -> None:
        self.trials: Trials | None = None
        self.asking: Hosts | None = None
        self.turn = threading.Lock()
        self.leaving = threading.Event()

    def look(self, question: Question, told: Told, cancel: threading.Event) -> Diagnosis:
        from ddp_assist.app.diagnose import diagnose

        if question.launch or question.script or question.job:
            self._warm(question)
        return diagnose(question, told, cancel)

    def _warm(self, question: Question) -> Trials:
        """torch is imported while the probes look, so that a trial of a fix starts at once."""
        from ddp_assist.app.trials import Trials

        with self.turn:
            if self.trials is None or self.trials.python != question.python:
                if self.trials is not None:
                    self.trials.close()
                self.trials = Trials(question, cancel=self.leaving)
                self.trials.start()
            return self.trials

    def fixes(self, diagnosis: Diagnosis, ranked: Ranked) -> list[Fix]:
        from ddp_assist.app.prove import for_cause

        return by_change(for_cause(diagnosis, ranked))

    def prove(self, diagnosis: Diagnosis, fix: Fix, on_stage: OnStage) -> Fix:
        from ddp_assist.app.prove import prove

        trials = self._warm(diagnosis.question)
        trials.on_stage = on_stage
        proven = prove(diagnosis, fix, trials.meet, self.leaving)
        diagnosis.trial = trials.last
        return proven

    def meet(self, spec: TrialSpec, on_stage: OnStage, cancel: threading.Event) -> TrialResult:
        from ddp_assist.probes.trial.run import run_trial

        return run_trial(spec, on_stage, cancel)

    def jobs(self, with_stacks: bool) -> list[dict[str, Any]]:
        from ddp_assist.app.jobs import alive

        return alive(with_stacks)

    def hosts(
        self, nodes: str, question: Question, begun: Begun
    ) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
        from ddp_assist.app.diagnose import target_of
        from ddp_assist.app.fleet import Hosts
        from ddp_assist.app.nodes import by_srun, nodes_of

        names = nodes_of(nodes or None, None, None, target_of(question))
        if self.asking is not None:
            self.asking.stop()
        self.asking = hosts = Hosts(question, names, by_srun(names))
        begun(hosts.so_far)
        return hosts.ask(), hosts.fixes, hosts.result

    def pin(self, pid: int, port: int | None) -> tuple[Pinned, list[str]]:
        from ddp_assist.app.actions import facts, pin

        pinned = pin(pid, port)
        return pinned, facts(pinned)

    def end(self, pinned: Pinned, force: bool) -> bool:
        from ddp_assist.app.actions import end

        return end(pinned, force)

    def close(self) -> None:
        self.leaving.set()  # a trial that runs would be waited for
        if self.asking is not None:
            self.asking.stop()
        with self.turn:
            if self.trials is not None:
                self.trials.close()


LEAST_FIRST = ("command", "edit", "ends-process", "system")


def by_change(fixes: Iterable[Fix]) -> list[Fix]:
    """Those first that change least of the machine; among equals the page decides."""
    return sorted(fixes, key=lambda fix: LEAST_FIRST.index(fix.safety))
