"""A correction of a script in the making: edits of its text, read again before they are offered."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddp_assist.app.fixes.model import FileEdit, Fix, Situation
from ddp_assist.app.fixes.script_text import Text
from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.check import OUTCOMES, findings
from ddp_assist.probes.script.facts import read_facts, script_of
from ddp_assist.probes.script.read import ScriptError


@dataclass(slots=True)
class Draft:
    """A correction in the making."""

    situation: Situation
    finding: Finding
    texts: dict[Path, Text] = field(default_factory=dict)
    new: list[FileEdit] = field(default_factory=list)

    @property
    def data(self) -> Mapping[str, Any]:
        return self.finding.data

    @property
    def text(self) -> Text:
        return self.file(self.data["file"])

    def file(self, name: str) -> Text:
        path = Path(name)
        if path not in self.texts:
            self.texts[path] = Text.of(path)
        return self.texts[path]

    @property
    def place(self) -> list[int]:
        return [self.data[k] for k in ("line", "col", "end_line", "end_col")]

    @property
    def call(self) -> ast.Call:
        node = self.text.node_at(self.place, ast.Call)
        if not isinstance(node, ast.Call):
            raise NoEdit("the call can't be found any more")
        return node

    @property
    def alike(self) -> list[Finding]:
        """All findings of the same outcome in the same file."""
        seen = (*self.situation.speaks_for, *self.situation.findings)
        same = [
            f for f in seen if f.key == self.finding.key and f.data.get("file") == self.data["file"]
        ]
        return list({(f.data.get("line"), f.data.get("col"), f.sentence): f for f in same}.values())


class NoEdit(Exception):
    """An edit here would be a guess."""


class NotMine(Exception):
    """Another cure is meant for this finding."""


Maker = Callable[[Draft], None]


@dataclass(frozen=True, slots=True)
class Cure:
    """What is said of a correction, and who makes it."""

    title: str
    steps: tuple[str, ...]
    make: Maker | None = None
    causes: tuple[str, ...] = ()
    does_not: str = ""

    def build(self, situation: Situation) -> Fix | None:
        finding = _finding(situation, self.causes)
        if finding is None:
            return None
        steps = tuple(
            f"{finding.data.get('where', '')}: {s}" if i == 0 else s
            for i, s in enumerate(self.steps)
        )
        files: tuple[FileEdit, ...] = ()
        left = ""
        if self.make is not None and not finding.data.get("notebook"):
            try:
                files, left = _edits(situation, finding, self.make)
            except NotMine:
                return None
        return Fix(
            cause=situation.cause,
            title=self.title,
            safety="edit",
            files=files,
            steps=() if files else steps,
            does_not=" ".join(part for part in (self.does_not, left) if part),
            holds_if=(finding.key,) if files else (),
        )


def _finding(situation: Situation, causes: tuple[str, ...]) -> Finding | None:
    """What the script probe said about this cause."""
    wanted = (situation.cause, *causes)
    for outcome in (*wanted, *(f"{cause}-maybe" for cause in wanted)):
        for finding in (*situation.speaks_for, *situation.findings):
            if finding.key == f"script.{outcome}":
                return finding
    return None


def _edits(situation: Situation, finding: Finding, make: Maker) -> tuple[tuple[FileEdit, ...], str]:
    """The edits, and what is still wrong with them in place; none where they do not hold."""
    draft = Draft(situation, finding)
    try:
        make(draft)
        made = [t.corrected() for t in draft.texts.values() if t.changed]
    except (NoEdit, ScriptError, OSError, KeyError, IndexError, TypeError, ValueError):
        return (), ""
    if not all(made) or not (made or draft.new):
        return (), ""
    files = (*(e for e in made if e is not None), *draft.new)
    still = remaining(situation, files)
    if still is None or any(
        f.key == finding.key and f.data.get("name") == finding.data.get("name") for f in still
    ):
        return (), ""
    left = "; ".join(f.sentence for f in still if OUTCOMES[f.outcome] == "bad")
    return files, f"Still wrong afterwards: {left}" if left else ""


def remaining(situation: Situation, files: tuple[FileEdit, ...]) -> list[Finding] | None:
    """What the checks say of the corrected files; None where they can't be read."""
    script = script_of(situation.target)
    if script is None:
        return None
    instead = {edit.path: edit.after for edit in files}
    try:
        return [
            f
            for f in findings(read_facts(situation.target, script, instead))
            if f.outcome != "module-shadowed"
            or not any(str(e.path) == f.data["file"] for e in files)
        ]
    except ScriptError:
        return None
