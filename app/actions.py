"""The only code that changes the machine: ends one process, after it was confirmed."""

from __future__ import annotations

import os
import pwd
import select
import signal
import time
from dataclasses import dataclass

from ddp_assist.probes.host.processes import TICKS, look, snapshot
from ddp_assist.probes.network.sockets import on_port, owner
from ddp_assist.probes.text import clean


class Refused(Exception):
    """Nothing was sent, and why."""


@dataclass(slots=True)
class Pinned:
    """A process held by a pidfd since before its facts were read: no other takes its place."""

    pid: int
    started: int
    argv: tuple[str, ...] | None
    port: int | None
    handle: int

    def close(self) -> None:
        os.close(self.handle)


def pin(pid: int, port: int | None = None) -> Pinned:
    """Opens the process, then checks that it may be ended at all."""
    if pid <= 1:
        raise Refused(f"pid {pid} is never ended")
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError as why:
        raise Refused(f"pid {pid} is gone") from why
    except OSError as why:
        raise Refused(f"this kernel can't pin pid {pid} ({why.strerror}): end it yourself") from why
    try:
        process = look(pid)
        if process is None:
            raise Refused(f"pid {pid} is gone or hidden from you")
        if process.uid != os.geteuid():
            raise Refused(f"pid {pid} belongs to uid {process.uid}, not to you")
        if process.numbered_elsewhere:
            raise Refused(f"pid {pid} lives in a container: end it from there")
        if pid == os.getpid() or pid in {p.pid for p in snapshot().ancestors(os.getpid())}:
            raise Refused(f"pid {pid} is ddp-assist itself or started it")
        if port is not None:
            _holds(pid, port)
    except Refused:
        os.close(handle)
        raise
    return Pinned(pid, process.started, process.argv, port, handle)


def facts(pinned: Pinned) -> list[str]:
    """What is about to be ended, in lines for the question that asks whether it may be."""
    process = look(pinned.pid)
    if process is None:
        raise Refused(f"pid {pinned.pid} is gone")
    lines = [
        f"pid      {process.pid}, parent {process.ppid}",
        f"user     {_user(process.uid)}",
        f"running  {_age(process.started)}",
        f"command  {clean(' '.join(process.argv or (process.comm,)))[:300]}",
    ]
    if pinned.port is not None:
        lines.append(f"holds    port {pinned.port}")
    return lines


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _age(started: int) -> str:
    seconds = int(time.clock_gettime(time.CLOCK_BOOTTIME) - started / TICKS)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"for {hours} h {minutes} min" if hours else f"for {minutes} min {seconds % 60} s"


def _holds(pid: int, port: int) -> None:
    holders = {owner(s.inode) for s in on_port(port) if s.inode}
    if pid not in holders:
        raise Refused(f"pid {pid} does not hold port {port} now")


def end(pinned: Pinned, force: bool = False, patience: float = 10.0) -> bool:
    """SIGTERM, or SIGKILL on a second yes; True when it is gone within the time given."""
    process = look(pinned.pid)
    if process is None or process.started != pinned.started:
        raise Refused(f"pid {pinned.pid} is no longer the process that was looked at")
    if process.argv != pinned.argv:
        raise Refused(f"pid {pinned.pid} runs another program now")
    if pinned.port is not None:
        _holds(pinned.pid, pinned.port)
    try:
        signal.pidfd_send_signal(pinned.handle, signal.SIGKILL if force else signal.SIGTERM)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([pinned.handle], [], [], patience)
    return bool(ready)
