"""What a rank does right now: from its state, its processor time, its sockets and its threads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddp_assist.probes.host.processes import Process, look, read
from ddp_assist.probes.jobs.find import AS_GOOD, GROUP_THREADS, MOST_KEPT
from ddp_assist.probes.jobs.ranks import Job, Rank
from ddp_assist.probes.network.sockets import Socket, tcp

WINDOW = 0.08
FRESH = 0.5
"""Older readings of processor time are taken anew."""
BUSY = 0.3
"""A rank that uses more of a core than this computes, or loads data."""

State = Literal[
    "starting", "waiting-for-store", "in-rendezvous", "in-collective", "in-group", "loading-data",
    "computing", "compiling", "checkpointing", "in-lock", "idle", "stopped", "frozen",
    "disk-sleep", "zombie", "gone",
]  # fmt: skip
ENDED: tuple[State, ...] = ("zombie", "gone")
WAITING: tuple[State, ...] = ("waiting-for-store", "in-rendezvous", "in-collective", "in-group")


@dataclass(frozen=True, slots=True)
class Wires:
    """The connections of one rank, as far as we may see them."""

    store: tuple[Socket, ...] = ()
    peers: tuple[Socket, ...] = ()
    dialled: tuple[int, ...] = ()
    listening: tuple[int, ...] = ()
    clients: int = 0
    """Connections to the store that this rank hosts, its own among them."""
    known: bool = False

    @property
    def quiet(self) -> float | None:
        """Seconds since anything went to or came from another rank."""
        return _quiet(self.peers)

    @property
    def store_quiet(self) -> float | None:
        return _quiet(self.store)

    @property
    def moved(self) -> int:
        """A number that grows with everything that goes over the wires."""
        every = (s.traffic for s in (*self.store, *self.peers) if s.traffic)
        return sum(t.acked + t.received for t in every)

    @property
    def retrying(self) -> list[Socket]:
        """Connections whose other end does not answer."""
        return [s for s in self.peers if s.traffic and s.traffic.retransmits > 2]


def _quiet(sockets: Iterable[Socket]) -> float | None:
    return min((s.traffic.quiet for s in sockets if s.traffic), default=None)


@dataclass(frozen=True, slots=True)
class Doing:
    """One rank with a word for what it does, and where."""

    rank: Rank
    state: State
    where: str = ""
    wires: Wires = field(default=Wires())
    cpu: float = 0.0
    """Share of a core over the window."""
    sleeps_in: str = ""
    """The kernel function that its main thread waits in, where we may know."""
    nccl: bool = False
    """Whether it is in a group of NCCL: who waits for a GPU uses a whole core meanwhile."""
    spins: bool = False
    """Whether its stack shows that this is what the core is used for."""

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def rests(self) -> bool:
        """Whether no work of its own shows."""
        return self.cpu < 0.5 or self.spins

    @property
    def works(self) -> bool:
        return not self.spins and (
            self.cpu > BUSY or self.state in ("computing", "compiling", "checkpointing")
        )


def watch(jobs: Sequence[Job], window: float = WINDOW) -> dict[str, list[Doing]]:
    """All ranks of all jobs over one window, which began when their processes were read."""
    begun = time.monotonic()
    families = [p for job in jobs for r in job.ranks
                for p in (r.process, *job.helpers.get(r.process.pid, ()))]  # fmt: skip
    if all(begun - job.seen_at < FRESH for job in jobs):
        begun = min((job.seen_at for job in jobs), default=begun)
        before = {p.pid: p.cpu for p in families}
    else:
        before = {p.pid: now.cpu for p in families if (now := look(p.pid)) is not None}
    sockets = {s.inode: s for s in tcp(traffic=True)} if before else {}
    own = {pid: _sockets(pid, sockets) for job in jobs for pid in job.pids}
    time.sleep(max(0.0, begun + window - time.monotonic()))
    took = time.monotonic() - begun
    frozen = _Frozen()
    found: dict[str, list[Doing]] = {}
    for job in jobs:
        if job.port is None:
            job.port = _store_port(own[pid] for pid in job.pids)
        wires = {pid: _wires(job, own[pid]) for pid in job.pids}
        found[job.id] = [_doing(job, r, before, took, wires[r.process.pid], frozen)
                         for r in job.ranks]  # fmt: skip
    return found


def _store_port(every: Iterable[Sequence[Socket] | None]) -> int | None:
    """Only the process that hosts the store is also connected to a port of its own."""
    for own in every:
        heard = {s.port for s in own or () if s.state == "listen"}
        for s in own or ():
            if s.state == "established" and s.peer_port in heard:
                return s.peer_port
    return None


def _doing(
    job: Job, rank: Rank, before: Mapping[int, float], took: float, wires: Wires, frozen: _Frozen
) -> Doing:  # fmt: skip
    now = look(rank.process.pid)
    if now is None or now.started != rank.process.started:
        return Doing(rank, "gone")
    if now.state in "Tt":
        return Doing(rank, "stopped")
    if now.state in "ZX":
        return Doing(rank, "zombie")
    if frozen.is_frozen(now):
        return Doing(rank, "frozen", now.cgroup or "")
    if now.state == "D" and (look(now.pid) or now).state == "D":
        return Doing(rank, "disk-sleep", now.wait_channel or "")
    cpu = max(0.0, now.cpu - before.get(now.pid, now.cpu)) / took
    loads = _loads(job, rank, before, took)
    state, where = _word(job, now, wires, cpu, loads)
    nccl = any(name.startswith("pt_nccl") for name in now.thread_names or ())
    return Doing(rank, state, where, wires, round(cpu, 2), now.wait_channel or "", nccl)


def _word(job: Job, now: Process, wires: Wires, cpu: float, loads: bool) -> tuple[State, str]:
    names = now.thread_names or ()
    grouped = any(name.startswith(GROUP_THREADS) for name in names)
    if cpu > BUSY or now.state == "R":
        return ("computing", "") if grouped or now.age() > 60 else ("starting", "")
    if loads:
        return "loading-data", "its data workers are busy"
    if wires.dialled:
        return "waiting-for-store", f"dials port {wires.dialled[0]}"
    if any(name.startswith(("pt_gloo", "pt_nccl")) for name in names):
        return "in-group", ""
    if wires.store:
        return "in-rendezvous", f"connected to port {wires.store[0].peer_port}"
    if any(name.startswith("pt_tcpstore") for name in names):
        return "in-rendezvous", "hosts the store"
    return "idle", ""


def _loads(job: Job, rank: Rank, before: Mapping[int, float], took: float) -> bool:
    """Whether workers of its data loader use the processor."""
    for helper in job.helpers.get(rank.process.pid, ()):
        if helper.comm.startswith("pt_data_") and helper.pid in before:
            now = look(helper.pid)
            if now is not None and (now.cpu - before[helper.pid]) / took > BUSY:
                return True
    return False


def _wires(job: Job, own: Sequence[Socket] | None) -> Wires:
    if own is None:
        return Wires()
    listening = {s.port for s in own if s.state == "listen"}
    ports = {job.port, *job.ports} - {None}
    live = [s for s in own if s.state in ("established", "close-wait")]
    # The end that the store itself holds talks to clients, not to this rank's peers.
    served = [s for s in live if s.port in listening and s.port in ports]
    # Nor does the host's own client count: it polls for the others all the time.
    store = [s for s in live if s.peer_port in ports and s.peer_port not in listening]
    peers = [s for s in live if s.peer_port not in ports and s not in served]
    return Wires(
        tuple(store), tuple(peers),
        tuple(sorted({s.peer_port for s in own if s.state == "syn-sent"})),
        tuple(sorted(listening)), len(served), known=True,
    )  # fmt: skip


def _sockets(pid: int, sockets: Mapping[int, Socket]) -> list[Socket] | None:
    """The sockets that this process has open, or None where we may not look."""
    inodes = _inodes(pid, sockets)
    return None if inodes is None else [sockets[i] for i in inodes if i in sockets]


@dataclass(frozen=True, slots=True)
class _Files:
    """The sockets among a process's open files, and how many files those were."""

    count: int
    inodes: tuple[int, ...]
    read_at: float


_FILES: dict[int, _Files] = {}
"""Of the last scans: to read every link of every rank anew is most of what a rescan costs."""


def _inodes(pid: int, sockets: Mapping[int, Socket]) -> tuple[int, ...] | None:
    folder = f"/proc/{pid}/fd"
    now = time.monotonic()
    try:
        count = os.stat(folder).st_size  # from Linux 6.2 on; 0 before
        known = _FILES.get(pid)
        if (
            known is not None and count == known.count != 0 and now - known.read_at < AS_GOOD
            and all(inode in sockets for inode in known.inodes)
        ):  # fmt: skip
            return known.inodes
        links = [_link(f"{folder}/{name}") for name in os.listdir(folder)]
    except OSError:
        _FILES.pop(pid, None)
        return None
    inodes = tuple(int(link[8:-1]) for link in links if link.startswith("socket:["))
    mine = tuple(inode for inode in inodes if inode in sockets)
    if len(_FILES) > MOST_KEPT:
        _FILES.clear()
    _FILES[pid] = _Files(count, mine, now)
    return mine


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


class _Frozen:
    """Which control groups are frozen: asked once for all ranks in one."""

    def __init__(self) -> None:
        self.known: dict[str, bool] = {}

    def is_frozen(self, process: Process) -> bool:
        if process.state == "R":
            return False
        name = process.cgroup or ""
        if name not in self.known:
            _, _, path = name.splitlines()[-1].partition("::") if "::" in name else ("", "", "")
            events = read(f"/sys/fs/cgroup{path}/cgroup.events", 4096) if path else None
            self.known[name] = bool(events and b"frozen 1" in events)
        return self.known[name]
