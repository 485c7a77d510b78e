"""All processes of this host from one pass over /proc; what few need is read later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MOST = 4 << 20
"""No file of one process is read further than this: an environ of a hostile process ends here."""


def read(path: str, most: int = MOST) -> bytes | None:
    """The bytes of a small kernel file, or None where it is gone or not for us."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = b""
        while len(found) < most and (part := os.read(handle, min(most - len(found), 1 << 16))):
            found += part
        return found
    except OSError:
        return None
    finally:
        os.close(handle)


def assignments(block: bytes) -> dict[str, str]:
    """An environ block as a mapping; like getenv, the first of two equal names counts."""
    env: dict[str, str] = {}
    for entry in block.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name:
            env.setdefault(os.fsdecode(name), os.fsdecode(value))
    return env


class Process(NamedTuple):
    """One process as it was during the pass; strings are raw, so clean them before they are shown.

    A property that reads later is None where the process is gone, its pid was given to another
    process, or the kernel does not show it to us.
    """

    pid: int
    ppid: int
    uid: int
    comm: str
    state: str
    group: int
    session: int
    threads: int
    started: int
    """Clock ticks after boot: with the pid, the identity of a process."""
    cpu: float
    """Seconds of user and system time."""
    resident: int
    kernel: bool = False
    proc: str = "/proc"

    @property
    def path(self) -> str:
        return f"{self.proc}/{self.pid}"

    @property
    def argv(self) -> tuple[str, ...] | None:
        """The command line; empty for a zombie or a kernel thread."""
        raw = self._later("cmdline")
        if raw is None:
            return None
        return tuple(os.fsdecode(raw.removesuffix(b"\0")).split("\0")) if raw else ()

    @property
    def environ(self) -> Mapping[str, str] | None:
        """The environment the program was started with, not what it changed since."""
        raw = self._later("environ")
        return None if raw is None else assignments(raw)

    @property
    def cwd(self) -> str | None:
        return self._link("cwd")

    @property
    def exe(self) -> str | None:
        return self._link("exe")

    @property
    def cgroup(self) -> str | None:
        raw = self._later("cgroup")
        return None if raw is None else os.fsdecode(raw).strip()

    @property
    def thread_names(self) -> tuple[str, ...] | None:
        """The names of all threads: torch names its own (pt_tcpstore_uv, pt_nccl_watchdg, ...)."""
        try:
            tasks = os.listdir(f"{self.path}/task")
        except OSError:
            return None
        names = [read(f"{self.path}/task/{task}/comm", 64) for task in tasks]
        return tuple(os.fsdecode(name).strip() for name in names if name) if self.lives else None

    @property
    def descriptors(self) -> int | None:
        """How many files are open."""
        try:
            return len(os.listdir(f"{self.path}/fd"))
        except OSError:
            return None

    @property
    def wait_channel(self) -> str | None:
        """The kernel function it sleeps in, where we may know."""
        raw = self._later("wchan")
        return os.fsdecode(raw) if raw and raw != b"0" else None

    @property
    def numbered_elsewhere(self) -> bool:
        """Whether it lives in a PID namespace below ours, where processes have other numbers."""
        for line in (self._later("status") or b"").splitlines():
            if line.startswith(b"NSpid:"):
                return len(line.split()) > 2
        return False

    @property
    def lives(self) -> bool:
        """Whether this very process, and not a later one of the same pid, is still there."""
        raw = read(f"{self.path}/stat", 4096)
        return raw is not None and _started(raw) == self.started

    def age(self, proc: str = "/proc") -> float:
        """Seconds since it was started."""
        uptime = read(f"{proc}/uptime", 64) or b"0"
        return max(0.0, float(uptime.split()[0]) - self.started / TICKS)

    def _later(self, name: str) -> bytes | None:
        raw = read(f"{self.path}/{name}")
        return raw if raw is not None and self.lives else None

    def _link(self, name: str) -> str | None:
        try:
            where = os.readlink(f"{self.path}/{name}")
        except OSError:
            return None
        return where if self.lives else None


def _started(stat: bytes) -> int | None:
    fields = stat[stat.rfind(b")") + 2 :].split(None, 20)
    return int(fields[19]) if len(fields) > 20 else None


def look(pid: int, proc: str = "/proc") -> Process | None:
    """One process, or None where it is gone or hidden."""
    try:
        handle = os.open(f"{proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(handle, 4096)
        # The folder shows the true owner; the files in it belong to root for a process that
        # must not be dumped.
        uid = os.stat(f"{proc}/{pid}").st_uid
    except OSError:
        return None
    finally:
        os.close(handle)
    end = raw.rfind(b")")
    rest = raw[end + 2 :].split(None, 23)
    try:
        return Process(
            pid,
            int(rest[1]),
            uid,
            os.fsdecode(raw[raw.find(b"(") + 1 : end]),
            chr(rest[0][0]),
            int(rest[2]),
            int(rest[3]),
            int(rest[17]),
            int(rest[19]),
            (int(rest[11]) + int(rest[12])) / TICKS,
            int(rest[21]) * PAGE,
            bool(int(rest[6]) & 0x00200000),
            proc,
        )
    except (ValueError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Processes:
    """The outcome of one pass."""

    by_pid: Mapping[int, Process]
    hidden: str | None
    """Why others may be missing (a hidepid mount, entries we may not read), or None."""
    when: float = field(default_factory=time.monotonic)

    def __iter__(self) -> Iterator[Process]:
        return iter(self.by_pid.values())

    def __len__(self) -> int:
        return len(self.by_pid)

    def get(self, pid: int) -> Process | None:
        return self.by_pid.get(pid)

    def ancestors(self, pid: int) -> list[Process]:
        """Parent first; ends at the first one that is not visible."""
        found: list[Process] = []
        process = self.by_pid.get(pid)
        while process and (parent := self.by_pid.get(process.ppid)) and parent not in found:
            found.append(parent)
            process = parent
        return found

    def children(self, pid: int) -> list[Process]:
        return [process for process in self if process.ppid == pid]

    def descendants(self, pid: int) -> list[Process]:
        """Everything below, parents before children."""
        found = [process for process in self if process.ppid == pid]
        known = {pid}
        for process in found:
            if process.pid not in known:
                known.add(process.pid)
                found += (child for child in self.children(process.pid) if child.pid not in known)
        return found


def snapshot(proc: str = "/proc") -> Processes:
    """One pass over all processes. What vanishes meanwhile is left out."""
    found: dict[int, Process] = {}
    unread = 0
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        pid = int(name)
        process = look(pid, proc)
        if process is not None:
            found[pid] = process
        elif os.path.exists(f"{proc}/{name}"):
            unread += 1
    hidden = hidepid(proc)
    if hidden is None and unread:
        hidden = f"{unread} processes could not be read"
    return Processes(found, hidden)


def hidepid(proc: str = "/proc") -> str | None:
    """What hides other users' processes from us, as the mount says it; root sees them all."""
    if os.geteuid() == 0:
        return None
    for line in (read(f"{proc}/self/mountinfo") or b"").splitlines():
        fields = line.split()
        if len(fields) > 5 and os.fsdecode(fields[4]) == proc:
            for option in os.fsdecode(fields[-1]).split(","):
                if option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off"):
                    return f"{proc} is mounted with {option}"
    return None
