"""What screens ask of the app. A screen changes nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.message import Message

from ddp_assist.app.tree import Symptom, To


@dataclass
class SymptomPicked(Message):
    """Start the walk here."""

    symptom: Symptom


@dataclass
class Given(Message):
    """The user named or pasted something to look at."""

    kind: Literal["launch", "log", "script", "paste"]
    text: str


@dataclass
class Went(Message):
    """On to this step or cause."""

    to: To


@dataclass
class Again(Message):
    """Ask every probe again."""


@dataclass
class FixWanted(Message):
    """Show the fixes of this cause."""

    cause: str


@dataclass
class TrialWanted(Message):
    """Look again with this fix in place, and let ranks meet."""

    place: int


@dataclass
class EndWanted(Message):
    """End this process; the user said yes to exactly these facts."""

    pid: int
    port: int | None


@dataclass
class CopyWanted(Message):
    """Copy this text."""

    text: str


@dataclass
class ExportWanted(Message):
    """Write the report."""

    format: str
    path: str
