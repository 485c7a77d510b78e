"""What a rank does right now: from its state, its processor time, its sockets and its threads."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ddp_assist.probes.host.processes import look
from ddp_assist.probes.jobs.find import Job, Rank
from ddp_assist.probes.network.sockets import Socket, tcp

WINDOW = 0.3
BUSY = 0.3
"""A rank that uses more of a core than this computes, or loads data."""


@dataclass(frozen=True, slots=True)
class Doing:
    """One rank with a word for what it does, and where."""

    rank: Rank
    state: str
    where: str = ""

    @property
    def waits(self) -> bool:
        return self.state in ("waiting-for-store", "in-rendezvous", "in-group")


def watch(jobs: Sequence[Job]) -> dict[str, list[Doing]]:
    """All ranks of all jobs over one window."""
    before = {r.process.pid: r.process.cpu for job in jobs for r in job.ranks}
    time.sleep(WINDOW)
    sockets = tcp()
    return {job.id: [_doing(job, rank, before, sockets) for rank in job.ranks] for job in jobs}


def _doing(job: Job, rank: Rank, before: dict[int, float], sockets: Sequence[Socket]) -> Doing:
    now = look(rank.process.pid)
    if now is None or now.started != rank.process.started:
        return Doing(rank, "gone")
    if now.state in "Tt":
        return Doing(rank, "stopped")
    if now.state == "Z":
        return Doing(rank, "zombie")
    own = _sockets(rank, sockets)
    dialled = sorted({s.peer_port for s in own if s.state == "syn-sent"})
    if now.state == "D" and (look(now.pid) or now).state == "D":
        return Doing(rank, "disk-sleep", now.wait_channel or "")
    if (now.cpu - before[now.pid]) / WINDOW > BUSY:
        return Doing(rank, "computing")
    names = now.thread_names or ()
    if any(name.startswith(("gloo", "pt_gloo", "pt_nccl")) for name in names):
        return Doing(rank, "in-group")
    if dialled:
        return Doing(rank, "waiting-for-store", f"dials port {dialled[0]}")
    if job.port is not None and any(s.peer_port == job.port for s in own):
        return Doing(rank, "in-rendezvous", f"connected to port {job.port}")
    if any(name.startswith("pt_tcpstore") for name in names):
        return Doing(rank, "in-rendezvous", "hosts the store")
    return Doing(rank, "idle")


def _sockets(rank: Rank, sockets: Sequence[Socket]) -> list[Socket]:
    """The sockets that this process has open, where we may look."""
    inodes: set[str] = set()
    try:
        with os.scandir(f"/proc/{rank.process.pid}/fd") as entries:
            for entry in entries:
                try:
                    inodes.add(os.readlink(entry.path))
                except OSError:
                    continue
    except OSError:
        return []
    return [s for s in sockets if f"socket:[{s.inode}]" in inodes]
