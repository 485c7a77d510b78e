"""Recorded cases to walk through: no torch, no network, nothing of this machine is looked at.

A story is what `diagnose --json` printed somewhere, with a title, the script it was about, and
what `jobs`, `trial` and `fleet` printed there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ddp_assist.app.actions import Pinned, Refused
from ddp_assist.app.case import from_json
from ddp_assist.app.diagnose import Diagnosis, conclude
from ddp_assist.app.fixes.model import FileEdit, Fix
from ddp_assist.app.machine import Begun, OnStage, by_change
from ddp_assist.app.question import Question
from ddp_assist.app.saying import as_json
from ddp_assist.app.walk import Ranked
from ddp_assist.probes.catalogue import probes
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.runner import Told
from ddp_assist.probes.trial.spec import Stage, TrialResult, TrialSpec

HOME = Path("/home/you/job")


@dataclass(frozen=True, slots=True)
class Story:
    name: str
    title: str
    about: str
    data: Mapping[str, Any]

    @property
    def question(self) -> Question:
        launch = tuple(self.data["launch"].split())
        job = self.jobs[0]["id"] if self.jobs and not launch else None
        return Question(launch, job=int(job) if job else None, env={}, cwd=HOME)

    @property
    def jobs(self) -> Sequence[dict[str, Any]]:
        jobs: Sequence[dict[str, Any]] = self.data["jobs"]
        return jobs

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(from_json(finding) for finding in self.data["findings"])


def stories() -> Iterator[Story]:
    folder = files("ddp_assist.assets") / "demo"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        data = json.loads(entry.read_text("utf-8"))
        yield Story(entry.name.removesuffix(".json"), data["title"], data["about"], data)


def story(name: str) -> Story:
    return next(told for told in stories() if told.name == name)


class Recorded:
    """Answers as they were given where the story happened. Nothing is done here."""

    def __init__(self, told: Story) -> None:
        self.story = told

    def look(self, question: Question, told: Told, cancel: threading.Event) -> Diagnosis:
        found = self.story.findings
        for probe in probes():
            own = tuple(finding for finding in found if finding.probe == probe.id)
            if own and not cancel.is_set():
                told(probe, own)
        launch = read_launch(list(question.launch), {}, HOME) if question.launch else None
        target = Target(launch.main if launch else None, launch, env={}, cwd=HOME, seen=found)
        asked = frozenset(self.story.data["asked"])
        return conclude(Diagnosis(question, target, found, asked=asked))

    def fixes(self, diagnosis: Diagnosis, ranked: Ranked) -> list[Fix]:
        return by_change(
            replace(self._fix(data), badge="not-tried", why="")
            for data in self.story.data["fixes"]
            if data["cause"] == ranked.cause
        )

    def _fix(self, data: Mapping[str, Any]) -> Fix:
        return Fix(
            data["cause"],
            data["title"],
            data["safety"],
            launch=read_launch(data["launch"].split(), {}, HOME) if data["launch"] else None,
            files=tuple(self._edit(file) for file in data["files"]),
            steps=tuple(data["steps"]),
            does_not=data["does_not"],
            badge=data["badge"],
            why=data["why"],
        )

    def _edit(self, file: Mapping[str, str]) -> FileEdit:
        before = self.story.data["files"][file["path"]]
        return FileEdit(Path(file["path"]), before, patched(before, file["diff"]))

    def prove(self, diagnosis: Diagnosis, fix: Fix, on_stage: OnStage) -> Fix:
        for tried in map(self._fix, self.story.data["fixes"]):
            if tried.title == fix.title:
                if tried.badge == "ran":
                    diagnosis.trial = self.story.data["trial"]
                    _play(self.story.data["trial"], on_stage)
                why = tried.why if tried.badge != "not-tried" else "not tried in this recording"
                return replace(tried, why=why)
        return fix

    def meet(self, spec: TrialSpec, on_stage: OnStage, cancel: threading.Event) -> TrialResult:
        told = self.story.data.get("meet")
        if told is None:
            return TrialResult(
                spec.backend, spec.nproc, "python", sentence="no trial is in this recording"
            )
        known = {k: v for k, v in told.items() if k not in ("schema", "stages")}
        return TrialResult(**{**known, "stages": tuple(_play(told, on_stage))})

    def jobs(self, with_stacks: bool) -> list[dict[str, Any]]:
        return list(self.story.jobs)

    def hosts(
        self, nodes: str, question: Question, begun: Begun
    ) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
        diagnosis = self.look(question, lambda probe, found: None, threading.Event())
        seen = self.story.data.get("hosts", {"nodes": [], "links": []})
        return diagnosis, [], {**as_json(diagnosis, []), **seen}

    def pin(self, pid: int, port: int | None) -> tuple[Pinned, list[str]]:
        raise Refused("this is a recording")

    def end(self, pinned: Pinned, force: bool) -> bool:
        raise Refused("this is a recording")

    def close(self) -> None:
        pass


def _play(trial: Mapping[str, Any], on_stage: OnStage) -> list[Stage]:
    stages = [Stage(**stage) for stage in trial["stages"]]
    for stage in stages:
        on_stage(stage)
    return stages


def patched(before: str, diff: str) -> str:
    """The text with a unified diff in place."""
    old = before.splitlines(keepends=True)
    new: list[str] = []
    at = 0
    for line in diff.splitlines(keepends=True):
        if line.startswith("@@"):
            start = int(line.split()[1].removeprefix("-").split(",")[0]) - 1
            new += old[at:start]
            at = start
        elif line.startswith(("---", "+++")):
            continue
        elif line.startswith("+"):
            new.append(line[1:])
        elif line.startswith("-"):
            at += 1
        else:
            new.append(old[at])
            at += 1
    return "".join([*new, *old[at:]])
