"""One case: what was asked, seen, concluded and done, as events that are only ever appended."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ddp_assist.probes.model import Evidence, Finding

SCHEMA = "ddp-assist/case/1"


class CaseUnreadable(ValueError):
    """A saved case that is not there or not ours; the message is one sentence for the user."""


def state_dir() -> Path:
    """Where cases and crash files live: private to the user."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local/state")
    return Path(base) / "ddp-assist"


def to_json(finding: Finding) -> dict[str, Any]:
    """A finding as it stands in files and on stdout."""
    return asdict(finding)


def from_json(data: Mapping[str, Any]) -> Finding:
    evidence = tuple(
        Evidence(e["source"], tuple(e["lines"]), tuple(e["see"]), e["when"])
        for e in data.get("evidence", ())
    )
    return Finding(
        data["probe"],
        data["outcome"],
        data["sentence"],
        data.get("data", {}),
        evidence,
        data.get("seconds", 0.0),
    )


@dataclass(slots=True)
class Case:
    """Events in order. `saved` is None until the case is kept in a file."""

    id: str = field(default_factory=lambda: time.strftime("%Y%m%d-%H%M%S-") + os.urandom(2).hex())
    events: list[dict[str, Any]] = field(default_factory=list)
    saved: Path | None = None
    trouble: str = ""
    """Why the case could not be saved; said once, and the session goes on."""

    def add(self, kind: str, **what: Any) -> None:
        event = {"at": time.time(), "kind": kind, **what}
        self.events.append(event)
        if self.saved is not None:
            self._append(event)

    def add_finding(self, finding: Finding) -> None:
        self.add("finding", finding=to_json(finding))

    def keep(self) -> None:
        """From now on every event reaches the disk as it happens."""
        folder = state_dir() / "cases"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.saved = folder / f"{self.id}.jsonl"
            handle = os.open(
                self.saved, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
            )
            os.close(handle)
        except OSError as why:
            self.saved, self.trouble = None, f"this case is not saved: {why.strerror}: {folder}"
            return
        self._append({"schema": SCHEMA, "id": self.id})
        for event in self.events:
            self._append(event)

    def _append(self, event: Mapping[str, Any]) -> None:
        assert self.saved is not None
        line = json.dumps(event, ensure_ascii=True, allow_nan=False, default=str) + "\n"
        try:
            handle = os.open(self.saved, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            try:
                os.write(handle, line.encode("ascii"))
            finally:
                os.close(handle)
        except OSError as why:
            self.trouble = f"this case is no longer saved: {why.strerror}: {self.saved}"
            self.saved = None

    @property
    def findings(self) -> list[Finding]:
        """The newest answers: a probe that looked again replaces what it said before."""
        rounds: dict[str, list[Finding]] = {}
        last: dict[str, int] = {}
        for place, event in enumerate(self.events):
            if event["kind"] == "asked":
                last[event["probe"]] = place
                rounds[event["probe"]] = []
            elif event["kind"] == "finding":
                finding = from_json(event["finding"])
                rounds.setdefault(finding.probe, []).append(finding)
        return [finding for found in rounds.values() for finding in found]

    def last(self, kind: str) -> dict[str, Any] | None:
        return next((e for e in reversed(self.events) if e["kind"] == kind), None)


def load(path: Path) -> Case:
    """A saved case. A last line that was cut by a crash is left out."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as why:
        raise CaseUnreadable(f"the case {path.name} can't be read: {why}") from why
    events: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(event, dict):
            raise CaseUnreadable(f"{path.name} is not a case of ddp-assist")
        events.append(event)
    if not events or events[0].get("schema") != SCHEMA:
        raise CaseUnreadable(f"{path.name} is not a case of ddp-assist ({SCHEMA})")
    return Case(str(events[0]["id"]), events[1:], path)


def saved_cases() -> Iterator[Path]:
    """The newest first."""
    folder = state_dir() / "cases"
    if folder.is_dir():
        yield from sorted(folder.glob("*.jsonl"), reverse=True)


def find(name: str | None) -> Path:
    for path in saved_cases():
        if name is None or path.stem == name:
            return path
    raise CaseUnreadable(f"there is no saved case {name}" if name else "there is no saved case")
