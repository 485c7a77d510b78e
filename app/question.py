"""What the user gave: a launch, logs, a script, a live job, and what was seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddp_assist.probes.model import here


@dataclass(frozen=True, slots=True)
class Question:
    """What the user gave."""

    launch: Sequence[str] = ()
    logs: tuple[str, ...] = ()
    script: Path | None = None
    job: int | None = None
    python: str | None = None
    symptom: str | None = None
    may_touch: bool = False
    """The user said yes to a connection to the store of his live job."""
    beside: int | None = None
    """A live job that is not what is asked about, but whose store is not to be touched either."""
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path = field(default_factory=here)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given that could be looked at."""
        return not (self.launch or self.logs or self.script or self.job)
