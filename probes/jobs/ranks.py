"""A job and its ranks: who is there, who should be, and who is told twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddp_assist.probes.host.processes import Process

MOST_RANKS = 1 << 16
"""No world is larger; a variable may hold anything."""
LOOPBACK = ("", "localhost", "::1", "ip6-localhost")

Told = Literal["environment", "stack", "command line", "start order", ""]


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a job. `rank` is None where nothing tells it."""

    process: Process
    rank: int | None
    local_rank: int | None
    env: Mapping[str, str]
    told_by: Told = "environment"

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        number = "?" if self.rank is None else self.rank
        return f"rank {number} (pid {self.process.pid})"


@dataclass(slots=True)
class Job:
    """Ranks that were told to meet at the same place."""

    id: str
    launcher: Process | None
    kind: str
    host: str
    port: int | None
    world_size: int | None
    ranks: list[Rank] = field(default_factory=list)
    ports: dict[int, list[int]] = field(default_factory=dict)
    """Who was told which port, where the ranks were told different ones."""
    helpers: dict[int, list[Process]] = field(default_factory=dict)
    """What the ranks started themselves: workers of data loaders and compilers, trackers."""
    seen_at: float = 0.0
    """When its processes were read, on the monotonic clock."""
    dead: list[Process] = field(default_factory=list)
    """Ended children of the launcher that nobody fetched yet."""

    @property
    def is_local(self) -> bool:
        """Whether all ranks of it belong on this host."""
        sizes = [number_in(r.env, "LOCAL_WORLD_SIZE") for r in self.ranks]
        if any(size is not None for size in sizes):
            return all(size == self.world_size for size in sizes)
        return is_loopback(self.host)

    @property
    def missing(self) -> list[int]:
        """Ranks that should live here and do not."""
        here = self._here()
        return [n for n in self._expected() if n not in here]

    @property
    def elsewhere(self) -> list[int]:
        """Ranks that are not on this host, and need not be."""
        if self.world_size is None or None in self._here():
            return []
        known = {*self._expected(), *self._here()}
        return [n for n in range(min(self.world_size, MOST_RANKS)) if n not in known]

    @property
    def twice(self) -> list[int]:
        """Ranks that two processes claim to be."""
        seen: set[int] = set()
        again: set[int] = set()
        for r in self.ranks:
            if r.rank is not None:
                (again if r.rank in seen else seen).add(r.rank)
        return sorted(again)

    @property
    def uid(self) -> int | None:
        first = self.ranks[0].process if self.ranks else self.launcher
        return first.uid if first else None

    @property
    def is_left_over(self) -> bool:
        """Whether whoever started the ranks is gone."""
        orphans = [r for r in self.ranks if r.process.ppid == 1]
        return bool(orphans) and self.launcher is None and all(
            "TORCHELASTIC_RUN_ID" in r.env or is_spawned(r.process.argv or ()) for r in orphans
        )  # fmt: skip

    @property
    def pids(self) -> list[int]:
        return [r.process.pid for r in self.ranks]

    def _here(self) -> set[int | None]:
        return {r.rank for r in self.ranks}

    def _expected(self) -> Sequence[int]:
        """The ranks that belong to the nodes whose processes we see."""
        if self.world_size is None or None in self._here():
            return []
        if self.is_local:
            return range(min(self.world_size, MOST_RANKS))
        nodes: set[tuple[int, int]] = set()
        for r in self.ranks:
            size, node = number_in(r.env, "LOCAL_WORLD_SIZE"), number_in(r.env, "GROUP_RANK")
            if size is not None and node is not None and size <= self.world_size:
                nodes.add((node, size))
        return sorted({n for node, size in nodes for n in range(node * size, (node + 1) * size)})


def is_loopback(host: str) -> bool:
    return host in LOOPBACK or host.startswith("127.")


def is_spawned(words: Sequence[str]) -> bool:
    """A child of multiprocessing's spawn method."""
    return any("spawn_main(" in word for word in words[:8])


def number_in(env: Mapping[str, str], name: str) -> int | None:
    return as_number(env.get(name, ""))


def as_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
