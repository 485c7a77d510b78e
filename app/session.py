"""A guided session without its screens: what was asked, what is known, where the walk stands.

The tree and the probes are loaded when something is known: the first screen does not wait for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from ddp_assist.app.case import Case
from ddp_assist.app.question import Question
from ddp_assist.app.tree import Step, Symptom, To, Tree, load, recognised, symptoms
from ddp_assist.probes.model import Finding, Probe, matches

if TYPE_CHECKING:
    from ddp_assist.app.diagnose import Diagnosis
    from ddp_assist.app.fixes.model import Fix
    from ddp_assist.app.walk import Ranked
    from ddp_assist.probes.trial.picture import Picture
    from ddp_assist.probes.trial.spec import TrialResult

READ_LOGS = ("log", "story")

Mark = Literal["ok", "BAD", "note", "?", "run", "-"]
MARKS: dict[str, Mark] = {"ok": "ok", "bad": "BAD", "info": "note", "noise": "note", "unknown": "?"}


@dataclass(frozen=True, slots=True)
class RowView:
    """One line of a live list: a word, a fact, the seconds it took."""

    mark: Mark
    text: str
    seconds: float | None = None
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One way on from a step, and what was seen that points there."""

    to: To
    label: str
    seen: tuple[Finding, ...]


@cache
def catalogue() -> Mapping[str, Probe]:
    from ddp_assist.probes.catalogue import probes

    return {probe.id: probe for probe in probes()}


@dataclass(slots=True)
class Session:
    question: Question
    case: Case = field(default_factory=Case)
    recorded: str = ""
    """The title of the recording this session walks through, if it does."""
    diagnosis: Diagnosis | None = None
    findings: tuple[Finding, ...] = ()
    answered: set[str] = field(default_factory=set)
    looking: bool = False
    began: float = 0.0
    trail: list[str] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """What was done to this machine on the user's word."""
    trying: Picture | None = None
    """What a trial that runs now has told, stage by stage."""
    tried: TrialResult | None = None
    jobs: list[dict[str, Any]] | None = None
    hosts: dict[str, Any] | None = None
    asking: bool = False
    """Whether other hosts are asked now: what this one is asked ends by itself."""
    hosts_so_far: Callable[[], dict[str, Any]] | None = None
    """While nodes are asked: what they have told until now."""
    cancel: threading.Event = field(default_factory=threading.Event)

    @property
    def standing(self) -> str:
        """What always holds, for the right end of the first line."""
        return "DEMO: recorded answers" if self.recorded else "asks before it changes anything"

    @property
    def doing(self) -> str:
        """What is waited for, in a line."""
        return self._reading() or f"{len(self.answered)} probes have answered"

    def _reading(self) -> str:
        """How far a large log is read, and what was found in it so far."""
        if not self.question.logs:
            return ""
        from ddp_assist.app.progress import reading_now

        return reading_now()

    @property
    def tree(self) -> Tree:
        return load()

    @property
    def symptoms(self) -> Mapping[str, Symptom]:
        return symptoms()

    @property
    def catalogue(self) -> Mapping[str, Probe]:
        return catalogue()

    def begin(self) -> None:
        self.case.add(
            "question",
            launch=list(self.question.launch),
            logs=list(self.question.logs),
            script=str(self.question.script) if self.question.script else None,
            job=self.question.job,
            python=self.question.python,
        )

    def start_looking(self) -> None:
        self.findings, self.diagnosis, self.fixes = (), None, []
        self.answered.clear()
        self.began = time.monotonic()
        self.looking, self.cancel = True, threading.Event()

    def told(self, probe: Probe, found: Sequence[Finding]) -> None:
        """What a probe said is known from now on, and reaches the saved case at once."""
        self.answered.add(probe.id)
        self.findings = (*(f for f in self.findings if f.probe != probe.id), *found)
        self.case.add("asked", probe=probe.id)
        for finding in found:
            self.case.add_finding(finding)

    def done(self, diagnosis: Diagnosis, fixes: list[Fix]) -> None:
        self.looking, self.fixes = False, fixes
        if diagnosis.question.symptom != self.question.symptom:  # picked while the probes looked
            self._conclude(diagnosis)
        diagnosis.changed = self.changed
        self.diagnosis = diagnosis
        self.case.add("asked-all", probes=sorted(diagnosis.asked))

    def _conclude(self, diagnosis: Diagnosis) -> None:
        from ddp_assist.app.diagnose import conclude

        diagnosis.question = self.question
        conclude(diagnosis, self.tree)

    def pick(self, symptom: Symptom) -> None:
        self.question = replace(self.question, symptom=symptom.id)
        self.trail = [symptom.start]
        self.case.add("symptom", id=symptom.id)
        if self.diagnosis is not None:
            self._conclude(self.diagnosis)

    @property
    def causes(self) -> list[Ranked]:
        return self.diagnosis.causes if self.diagnosis else []

    @property
    def step(self) -> Step | None:
        return self.tree.steps[self.trail[-1]] if self.trail else None

    def go(self, to: To) -> None:
        self.case.add("went", step=self.trail[-1] if self.trail else None, to=to.name)
        if to.is_step:
            self.trail.append(to.name)

    def back(self) -> bool:
        """One step back on the path; False at its start."""
        if len(self.trail) > 1:
            self.trail.pop()
            self.case.add("back")
            return True
        return False

    def recognised(self) -> list[tuple[Symptom, Finding]]:
        """Symptoms that something points at, each with what says so."""
        if not self.findings:
            return []
        return [(symptom, self._hint(symptom)) for symptom in recognised(self.tree, self.findings)]

    def _hint(self, symptom: Symptom) -> Finding:
        return next(
            f for f in self.findings if any(matches(f.key, key) for key in symptom.recognised_by)
        )

    def rows(self, names: Sequence[str]) -> list[RowView]:
        """What these probes said, or that they still look; those that had nothing to ask last."""
        rows: list[RowView] = []
        idle: list[RowView] = []
        for name in names:
            found = [f for f in self.findings if f.probe == name]
            probe = self.catalogue[name]
            if found:
                rows += [self.row(f) for f in found]
            elif self.looking and name not in self.answered:
                waited = time.monotonic() - self.began
                reads = self._reading() if name in READ_LOGS else ""
                doing = reads or f"{probe.question}  (at most {probe.deadline:g} s)"
                rows.append(RowView("run", doing, waited))
            else:
                idle.append(RowView("-", f"nothing to ask: {probe.question}"))
        return rows + idle

    def row(self, finding: Finding) -> RowView:
        weight = self.catalogue[finding.probe].weight(finding.outcome)
        return RowView(MARKS[weight], finding.sentence, finding.seconds, finding)

    def choices(self, step: Step) -> list[Choice]:
        """Every way on, those first that something seen points to."""
        seen: dict[To, list[Finding]] = {}
        for key, tos in step.on.items():
            for finding in self.findings:
                if matches(finding.key, key):
                    for to in tos:
                        seen.setdefault(to, []).append(finding)
        asked = not step.probes or bool(self.answered & set(step.probes))
        if not seen and not self.looking:
            for to in step.otherwise if asked else step.unknown:
                seen.setdefault(to, [])
        order = [*seen, *(to for to in step.targets() if to not in seen)]
        once = {(to.name, to.is_step): to for to in reversed(order)}
        return [
            Choice(to, self.label(to), tuple(seen.get(to, ())))
            for to in order
            if to in once.values()
        ]

    def label(self, to: To) -> str:
        if to.is_step:
            return self.tree.steps[to.name].question
        return self.tree.pages[to.name].title
