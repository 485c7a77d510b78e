"""The words of the house: what is examined, what was seen, and where it was seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ddp_assist.probes.launch.plan import Launch, LaunchPlan

# "bad" may lead to a cause, "info" only steers the walk, "unknown" is never taken for "ok".
Weight = Literal["ok", "bad", "info", "noise", "unknown"]
Need = Literal["root", "gpu", "torch", "network", "ptrace"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where something was seen, the lines that say so, and how to see it yourself."""

    source: str
    lines: tuple[str, ...] = ()
    see: tuple[str, ...] = ()
    when: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of one probe. `data` holds JSON values only, so that a case can be saved."""

    probe: str
    outcome: str
    sentence: str
    data: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """The name the tree knows this answer by, e.g. `port.held-by-orphan`."""
        return f"{self.probe}.{self.outcome}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and port that ranks are told to meet at, and who says so."""

    host: str
    port: int | None
    origin: str


def here() -> Path:
    """The working directory; one that was removed meanwhile keeps the name the shell had for it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path(os.environ.get("PWD") or "/")


@dataclass(frozen=True, slots=True)
class Target:
    """What is examined. Everything is optional: a probe says by `applies` what it needs."""

    plan: LaunchPlan | None = None
    launch: Launch | None = None
    """The whole launch that `plan` is a part of: a shell script may start several commands."""
    script: Path | None = None
    logs: tuple[str, ...] = ()
    job: int | None = None
    python: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path = field(default_factory=here)
    endpoints: tuple[Endpoint, ...] = ()
    backend: str | None = None
    may_touch: bool = False
    """The user said yes to a connection to the store of his live job."""
    beside: int | None = None
    """A live job that is not what is looked at, but whose store is not to be touched either."""
    seen: tuple[Finding, ...] = ()
    """What earlier probes found: a later one may look where a log or a script pointed."""

    @property
    def plans(self) -> tuple[LaunchPlan, ...]:
        """Every command of the launch that starts ranks."""
        return self.launch.plans if self.launch else (self.plan,) if self.plan else ()

    def found(self, *keys: str) -> list[Finding]:
        """Earlier findings by key; a trailing `*` matches any outcome of that probe."""
        return [f for f in self.seen if any(matches(f.key, key) for key in keys)]


@dataclass(frozen=True, slots=True)
class Probe:
    """One question with a fixed set of answers. `unknown` is always among them."""

    id: str
    question: str
    outcomes: Mapping[str, Weight]
    look: Callable[[Target], Iterable[Finding]]
    applies: Callable[[Target], bool] = lambda target: True
    deadline: float = 5.0
    needs: frozenset[Need] = frozenset()
    disturbs: bool = False
    after: tuple[str, ...] = ()
    """Ids of probes whose findings must be in `target.seen` before this one looks."""
    look_so_far: Callable[[Target], Iterable[Finding]] = lambda target: ()
    """What can be told when it has to stop early; must not wait for anything."""

    def weight(self, outcome: str) -> Weight:
        return "unknown" if outcome == "unknown" else self.outcomes[outcome]


def matches(key: str, pattern: str) -> bool:
    """Whether a finding's key is meant by `probe.outcome` or `probe.*`."""
    return key == pattern or (pattern.endswith(".*") and key.startswith(pattern[:-1]))


def unknown(probe: str, because: str, *evidence: Evidence, **data: Any) -> Finding:
    """The honest answer of a probe that could not look."""
    return Finding(probe, "unknown", f"unknown, because {because}", data, tuple(evidence))
