"""What a trial is asked to do, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

STAGES = (
    "python", "torch-import", "backend", "name", "listen", "connect", "rendezvous", "group",
    "all-reduce", "clean-up",
)  # fmt: skip
MOST_RANKS = 64
LONGEST = 60.0
GPU_MIB = 1024
"""What must be free on a GPU; rank.py's neighbour gpu.py holds the trial to it."""
SCHEMA = "ddp-assist/trial/1"

State = Literal["begun", "passed", "failed"]


class SpecError(ValueError):
    """A trial that cannot be asked for; the text says what to ask for instead."""


@dataclass(frozen=True)
class TrialSpec:
    """A rendezvous and one all_reduce between `nproc` ranks, here, within `deadline` seconds."""

    backend: str = "gloo"
    """gloo, nccl, or store: the rendezvous alone."""
    nproc: int = 2
    addr: str = "127.0.0.1"
    port: int = 0
    python: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    """What the launch sets beside our own environment, None for what it takes away; variables that
    say which rank somebody is have no effect."""
    init: str = "env"
    """env or tcp: a TCPStore at addr and port. file: a fresh file store."""
    interface: str | None = None
    deadline: float = 30.0
    keep_log: bool = False
    cwd: str | None = None
    ranks: tuple[int, ...] = ()
    """The ranks that run on this host, all when empty. Without rank 0 the store is elsewhere."""
    key: str = ""
    """Shared by the hosts of one trial; random when empty."""
    gpus: tuple[int, ...] = ()
    """With NCCL the GPU of each rank of this host, counted as the launch counts them; the first
    rank takes GPU 0, the next GPU 1, and so on, when empty."""
    torchrun: tuple[str, ...] = ()
    """Options of a real torchrun that is to start the ranks (`--full`); empty: our own worker."""

    def __post_init__(self) -> None:
        here = self.ranks or range(self.nproc)
        for wrong, advice in (
            (self.backend not in ("gloo", "nccl", "store"),
             f"no backend {self.backend!r} can be tried: choose gloo, nccl or store"),
            (not 1 <= self.nproc <= MOST_RANKS,
             f"{self.nproc} ranks cannot be tried on one host: choose 1 to {MOST_RANKS}; "
             "what 2 ranks cannot do, more cannot either"),
            (not 0 <= self.port <= 65535,
             f"there is no port {self.port}: choose 1 to 65535, or 0 for any free one"),
            (not 0 < self.deadline <= LONGEST,
             f"a trial of {self.deadline:g} s is not possible: choose up to {LONGEST:g} s"),
            (self.init not in ("env", "tcp", "file"),
             f"no init method {self.init!r} can be tried: choose env, tcp or file"),
            (not self.addr or "\0" in self.addr, "an address is needed, for instance 127.0.0.1"),
            (any(not 0 <= rank < self.nproc for rank in here),
             f"the ranks of this host must lie between 0 and {self.nproc - 1}"),
            (bool(self.gpus) and (len(self.gpus) != len(here) or min(self.gpus) < 0),
             f"each of the {len(here)} ranks of this host needs a GPU in the list, from 0 on"),
            (0 not in here and (not self.port or not self.key or self.init == "file"),
             "ranks without rank 0 need the port and the key of the trial that hosts the store"),
        ):  # fmt: skip
            if wrong:
                raise SpecError(advice)

    @property
    def cost(self) -> str:
        """What it takes of the GPUs, to be said before; a trial on CPUs takes nothing to speak of.
        """
        if self.backend != "nccl":
            return ""
        gpus = self.gpus or range(len(self.ranks) or self.nproc)
        which = "GPU " if len(set(gpus)) == 1 else "each of the GPUs "
        which += ", ".join(str(index) for index in sorted(set(gpus)))
        return f"a trial takes up to {GPU_MIB} MiB of {which} for at most {self.deadline:g} s"


@dataclass(frozen=True)
class Stage:
    """How far one rank, or the whole trial (rank None), got with one stage."""

    stage: str
    rank: int | None = None
    seconds: float = 0.0
    error: str | None = None
    state: State = "passed"
    kind: str = ""
    """What sort of error, for who reads it by program: refused, no-answer, absent, ended, ..."""
    pid: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "rank": self.rank,
            "seconds": round(self.seconds, 4),
            "error": self.error,
        }


@dataclass(frozen=True)
class TrialResult:
    """What came of a trial. `outcome` is "joined" or the first stage that not all ranks passed."""

    backend: str
    nproc: int
    outcome: str
    missing: tuple[int, ...] = ()
    stages: tuple[Stage, ...] = ()
    seconds: float = 0.0
    sentence: str = ""
    address: str = ""
    port: int = 0
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    log: str = ""
    log_path: str | None = None
    kind: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    experiments: tuple[Mapping[str, Any], ...] = ()

    @property
    def joined(self) -> bool:
        return self.outcome == "joined"

    @property
    def undecided(self) -> bool:
        """It was called off, or time ran out before a rank came to meet: no word on the launch."""
        early = self.outcome in ("python", "torch-import")
        return self.kind == "cancelled" or (self.kind == "left" and early)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "backend": self.backend,
            "nproc": self.nproc,
            "outcome": self.outcome,
            "missing": list(self.missing),
            "stages": [stage.as_json() for stage in self.stages],
            "seconds": round(self.seconds, 4),
            "sentence": self.sentence,
            "address": self.address,
            "port": self.port,
            "errors": list(self.errors),
            "notes": list(self.notes),
            "versions": dict(self.versions),
            "experiments": [dict(e) for e in self.experiments],
        }
