"""What screens ask of the app, and what its workers tell it. A screen changes nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from ddp_assist.app.diagnose import Diagnosis
    from ddp_assist.app.fixes.model import Fix
    from ddp_assist.app.tree import Symptom, To
    from ddp_assist.probes.model import Finding, Probe
    from ddp_assist.probes.trial.spec import Stage, TrialResult

Kind = Literal["launch", "log", "script", "paste", "job"]


@dataclass
class SymptomPicked(Message):
    """Start the walk here."""

    symptom: Symptom


@dataclass
class Given(Message):
    """The user named or pasted something to look at."""

    kind: Kind
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
class ProofWanted(Message):
    """Look again with this fix in place, and let ranks meet."""

    place: int


@dataclass
class TrialWanted(Message):
    """Let ranks meet here, whatever the launch says."""

    backend: str
    ranks: int


@dataclass
class JobsWanted(Message):
    """Look for jobs alive on this machine; with stacks, py-spy is asked where their ranks stand."""

    with_stacks: bool = False


@dataclass
class HostsWanted(Message):
    """Ask these nodes, or those the launch names."""

    nodes: str


@dataclass
class CaseWanted(Message):
    """Go on with this saved case."""

    name: str


@dataclass
class StoryWanted(Message):
    """Walk through this recorded case."""

    name: str


@dataclass
class EndWanted(Message):
    """Look at each of these processes, and ask whether it may be ended."""

    pids: tuple[int, ...]
    port: int | None


@dataclass
class CopyWanted(Message):
    """Copy this text."""

    text: str


@dataclass
class ExportWanted(Message):
    """Write the report."""

    path: str


@dataclass
class Probed(Message):
    """A probe has answered."""

    probe: Probe
    found: tuple[Finding, ...]


@dataclass
class Looked(Message):
    """All probes have answered, and this follows."""

    diagnosis: Diagnosis
    fixes: list[Fix]


@dataclass
class Staged(Message):
    """A rank of the trial that runs now got this far."""

    stage: Stage


@dataclass
class Proven(Message):
    """What a fix has earned."""

    place: int
    fix: Fix


@dataclass
class Tried(Message):
    """What came of a trial."""

    result: TrialResult


@dataclass
class JobsSeen(Message):
    """The jobs alive now."""

    jobs: list[dict[str, Any]]


@dataclass
class HostsSeen(Message):
    """What all nodes say together."""

    diagnosis: Diagnosis
    result: dict[str, Any]
    fixes: list[Fix]


@dataclass
class Asked(Message):
    """A worker has a question whose default answer is no."""

    title: str
    facts: list[str]
    yes: str
    answered: Callable[[bool], None]


@dataclass
class Said(Message):
    """One line for the user, from wherever it was noticed."""

    text: str
