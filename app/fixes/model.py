"""A fix: what changes, how sure it is, and how it is checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ddp_assist.probes.launch.plan import Launch
from ddp_assist.probes.model import Finding, Target

Safety = Literal["command", "edit", "ends-process", "system"]
Badge = Literal["not-tried", "holds", "ran", "failed"]


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A corrected copy of one of the user's files; the original stays as it is."""

    path: Path
    before: str
    after: str

    @property
    def diff(self) -> str:
        name = str(self.path)
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True), self.after.splitlines(keepends=True), name, name
        )
        return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Fix:
    """One cure of one cause. Without a command that cures it, `steps` say what does."""

    cause: str
    title: str
    safety: Safety
    launch: Launch | None = None
    nodes: Mapping[str, Launch] = field(default_factory=dict)
    """Where a job spans hosts: the corrected launch of each node."""
    files: tuple[FileEdit, ...] = ()
    steps: tuple[str, ...] = ()
    does_not: str = ""
    """What stays as it is although this fix is applied."""
    trial: Mapping[str, Any] | None = None
    """What a trial rendezvous must be told to prove this fix (backend, nproc, addr, port, env)."""
    holds_if: tuple[str, ...] = ()
    """Keys of findings that must be gone, or patterns that must be seen, when probes run again."""
    badge: Badge = "not-tried"
    why: str = ""
    ends: tuple[int, ...] = ()
    """Processes that this cure ends, one question each."""
    frees: int | None = None
    """The port that ending them frees."""
    left: tuple[str, ...] = ()
    """Other causes that were still seen when the probes looked again with this fix in place."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a builder may look at: the target, all findings, what speaks for the cause."""

    target: Target
    findings: tuple[Finding, ...]
    cause: str
    speaks_for: tuple[Finding, ...] = field(default=())

    def value(self, name: str) -> Any:
        """The first value of that name in the data of the findings that speak for the cause."""
        for finding in (*self.speaks_for, *self.findings):
            if finding.data.get(name) is not None:
                return finding.data[name]
        return None


Builder = Callable[[Situation], Fix | None]
