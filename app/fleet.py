"""Several hosts as one case: asked all at once, compared, and cured together."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddp_assist.app import prove
from ddp_assist.app.diagnose import Diagnosis, Question, conclude, target_of
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.hosts_cured import cures
from ddp_assist.app.hosts_drawn import HostRow, Picture, picture, rows
from ddp_assist.app.hosts_listed import as_started_here
from ddp_assist.app.nodes import by_srun, scheduler_env
from ddp_assist.app.saying import as_json, cleaned
from ddp_assist.app.tree import load
from ddp_assist.probes.fleet.engine import Fleet, Node
from ddp_assist.probes.fleet.meeting import Meeting
from ddp_assist.probes.fleet.parcel import PYTHONS
from ddp_assist.probes.host.python import interpreter
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.script.modules import for_nodes

SCHEMA = "ddp-assist/fleet/1"
STAGES = ("log in", "look", "reach", "meet", "conclude", "cure", "done")


@dataclass(slots=True)
class Hosts:
    """What the Hosts screen and the `fleet` verb show. `ask` blocks: a screen calls it in a thread
    of its own and draws `rows`, `picture` and `diagnosis` again whenever `told` was called."""

    question: Question
    names: Sequence[str]
    slurm: str | None = None
    """A job's number, empty for the allocation that we are in; None asks over ssh."""
    python: str | None = None
    trial: bool = True
    told: Callable[[], None] = lambda: None
    """Called from other threads, once for each answer: it must only note that there is news."""
    stage: str = "log in"
    meeting: Meeting = field(init=False)
    target: Target = field(init=False)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    """As they were before a cure was tried, for which they are asked again."""
    diagnosis: Diagnosis | None = None
    fixes: list[Fix] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    """The JSON of the verb; until all is done without the cures."""

    def __post_init__(self) -> None:
        self.target = target_of(self.question)
        pythons = [self.python] if self.python else [*filter(None, [self._own_python()])]
        first = [p for p in pythons if re.match(r"[\w./+-]+\Z", p)]
        fleet = Fleet(self.names, first if self.python else [*first, *PYTHONS], self.slurm,
                      self._heard)  # fmt: skip
        self.meeting = Meeting(
            self.names, self.question.launch, str(self.question.cwd), pythons, self.trial,
            fleet=fleet, env=scheduler_env(list(self.names), self.slurm),
            modules=for_nodes(self.target),
        )  # fmt: skip

    def _own_python(self) -> str | None:
        """The training environment here; mostly it lies under the same path there."""
        if self.question.python:
            return self.question.python
        return interpreter(self.target) if self.target.plan else None

    def _heard(self, node: Node, did: str) -> None:
        self.told()

    def _at(self, stage: str) -> None:
        self.stage = stage
        self.told()

    def stop(self) -> None:
        """From any thread: `ask` ends soon, with what is known."""
        self.meeting.fleet.stop()

    @property
    def answered(self) -> int:
        return sum(1 for node in self.meeting.nodes if node.state != "asked")

    def rows(self) -> list[HostRow]:
        return rows(self.meeting.table())

    def picture(self) -> Picture:
        return picture(self.meeting.links())

    def so_far(self) -> dict[str, Any]:
        """From any thread: what nodes have told until now, as the JSON will have it."""
        seen = {"nodes": self.nodes or self.meeting.table(), "links": self.meeting.links()}
        return {**self.result, "stage": self.stage, "answered": self.answered, **seen}

    def ask(self) -> Diagnosis:
        begun = time.monotonic()
        with self.meeting as meeting:
            self._at("look")
            meeting.look()
            load()  # while they reach for each other there is nothing to do here
            if len(meeting.seen) > 1:
                meeting.find_hub()
                self._at("reach")
                meeting.reach()
                if self.trial:
                    self._at("meet")
                    meeting.meet()
            self._at("conclude")
            self.diagnosis = diagnosis = self._conclude(meeting.findings())
            self.nodes, self.result = meeting.table(), as_json(diagnosis, ())
            self._at("cure")
            self.fixes = [*cures(diagnosis, meeting, self.trial)]
        mine = {fix.cause for fix in self.fixes}
        for ranked in diagnosis.causes[: prove.MOST]:
            if ranked.cause not in mine:
                self.fixes += prove.in_words(diagnosis, ranked)
        diagnosis.seconds = round(time.monotonic() - begun, 3)
        self.result = as_json(diagnosis, self.fixes) | cleaned(
            {"schema": SCHEMA, "nodes": self.nodes, "links": meeting.links()}
        )
        self._at("done")
        return diagnosis

    def _conclude(self, findings: tuple[Finding, ...]) -> Diagnosis:
        findings = as_started_here(findings, self.target, self.meeting)
        asked = frozenset(f.probe for f in findings) | {"fleet"}
        return conclude(Diagnosis(self.question, self.target, findings, asked=asked))


def together(
    local: Diagnosis, names: Sequence[str], trial: bool
) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
    """What is known here and what the nodes say, concluded as one; the cures that all nodes tried;
    and what the JSON has beside."""
    hosts = Hosts(local.question, names, by_srun(names), None, trial)
    far = hosts.ask()
    both = Diagnosis(
        local.question, local.target, (*far.findings, *local.findings),
        asked=local.asked | far.asked,
    )  # fmt: skip
    cured = [fix for fix in hosts.fixes if fix.nodes]
    return conclude(both), cured, {key: hosts.result[key] for key in ("nodes", "links")}


def sentences(result: Mapping[str, Any]) -> list[str]:
    """What only shows when the nodes are laid side by side."""
    fleet = (f for f in result["findings"] if f["probe"] == "fleet")
    return [f["sentence"] for f in fleet if f["outcome"] != "unknown"]
