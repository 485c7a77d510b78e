"""TCP sockets of this host, from the kernel: sock_diag, or /proc/net/tcp where that is shut."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
REQUEST_DUMP = 0x301
DONE, ERROR = 3, 2

State = Literal[
    "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "bound",
    "close-wait", "last-ack", "listen", "closing", "new-syn-recv",
]  # fmt: skip
STATES: tuple[State, ...] = (
    "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "bound",
    "close-wait", "last-ack", "listen", "closing", "new-syn-recv",
)  # fmt: skip
LISTEN = 1 << 10
EVERY = 0xFFFFFFFF
BYTECODE = 1
MAPPED = bytes(10) + b"\xff\xff"
INFO = 2
"""The attribute that carries the kernel's tcp_info."""


class Traffic(NamedTuple):
    """What went over a connection, and how long ago; nobody's data is looked at."""

    sent_ago: float
    """Seconds since anything was sent; a socket that never sent tells its age."""
    received_ago: float
    acked: int
    received: int
    retransmits: int
    """Retries of what is unanswered now."""

    @property
    def quiet(self) -> float:
        return min(self.sent_ago, self.received_ago)


class Socket(NamedTuple):
    """One TCP socket. `inode` 0 means that no process owns it any more (TIME_WAIT)."""

    state: State
    host: str
    port: int
    peer: str
    peer_port: int
    uid: int
    inode: int
    waiting: int
    """Connections not yet accepted by a listener, or bytes not yet read."""
    backlog: int
    traffic: Traffic | None = None

    @property
    def is_wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class NoDiag(OSError):
    """The kernel answers no sock_diag here; /proc/net/tcp may still be there."""


def tcp(states: int = EVERY, traffic: bool = False) -> list[Socket]:
    """All TCP sockets of this network namespace in the given states, both families."""
    families = (socket.AF_INET, socket.AF_INET6)
    try:
        return [s for family in families for s in _diag(family, states, traffic)]
    except NoDiag:
        wanted = {name for bit, name in enumerate(STATES, 1) if states & (1 << bit)}
        return [s for s in _proc() if s.state in wanted]


def on_port(port: int) -> list[Socket]:
    """Whatever sits on this local port, listener or not."""
    try:
        found = [s for f in (socket.AF_INET, socket.AF_INET6) for s in _diag(f, EVERY, port=port)]
    except NoDiag:
        found = list(_proc())
    return [s for s in found if s.port == port]


def _diag(
    family: int, states: int, traffic: bool = False, port: int | None = None
) -> Iterator[Socket]:
    size = 4 if family == socket.AF_INET else 16
    wanted = 1 << (INFO - 1) if traffic else 0
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, wanted, 0, states) + bytes(48)
    if port is not None:
        request += _only(port)
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0)
    try:
        link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    except OSError as why:
        raise NoDiag(*why.args) from why
    with link:
        link.settimeout(2.0)
        try:
            link.send(header + request)
            while True:
                data = link.recv(1 << 18)
                at = 0
                while at + 16 <= len(data):
                    length, kind = _HEAD.unpack_from(data, at)
                    if kind == DONE:
                        return
                    if kind == ERROR:
                        code = -struct.unpack_from("=i", data, at + 16)[0]
                        raise NoDiag(code, os.strerror(code))
                    yield _message(family, size, data, at + 16, at + length)
                    at += (length + 3) & ~3
        except OSError as why:
            raise NoDiag(*why.args) from why


def _only(port: int) -> bytes:
    """A filter that the kernel runs: local port >= `port` and <= `port`, else past the end."""
    at_least, at_most, last = 2, 3, 16
    code = struct.pack("=BBHBBH", at_least, 8, last + 4, 0, 0, port)
    code += struct.pack("=BBHBBH", at_most, 8, last - 8 + 4, 0, 0, port)
    return struct.pack("=HH", 4 + len(code), BYTECODE) + code


_HEAD, _ATTRIBUTE = struct.Struct("=IH"), struct.Struct("=HH")
_PORTS, _NUMBERS = struct.Struct("!HH"), struct.Struct("=IIII")
_AGO, _BYTES = struct.Struct("=III"), struct.Struct("=QQ")


def _message(family: int, size: int, data: bytes, at: int, end: int) -> Socket:
    state = data[at + 1]
    port, peer_port = _PORTS.unpack_from(data, at + 4)
    host = _address(family, data[at + 8 : at + 8 + size])
    peer = _address(family, data[at + 24 : at + 24 + size])
    reading, writing, uid, inode = _NUMBERS.unpack_from(data, at + 56)
    # A socket that is closed or (from Linux 6.8) "bound inactive" only sits on its port.
    name = STATES[state - 1] if 0 < state <= len(STATES) else "bound"
    traffic = _traffic(data, at + 72, end)
    return Socket(name, host, port, peer, peer_port, uid, inode, reading, writing, traffic)


def _traffic(data: bytes, at: int, end: int) -> Traffic | None:
    """The tcp_info among a message's attributes; older kernels send a shorter one."""
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == INFO and length >= 4 + 136:
            sent, _, received = _AGO.unpack_from(data, at + 4 + 44)
            acked, got = _BYTES.unpack_from(data, at + 4 + 120)
            return Traffic(sent / 1000, received / 1000, acked, got, data[at + 4 + 2])
        at += max(4, (length + 3) & ~3)
    return None


@lru_cache(4096)  # a host has few addresses and many sockets
def _address(family: int, raw: bytes) -> str:
    if family == socket.AF_INET6 and raw.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(family, raw)


def _proc(proc: str = "/proc/net") -> Iterator[Socket]:
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        try:
            with open(f"{proc}/{name}", encoding="ascii", errors="replace") as table:
                lines = table.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) < 10:
                continue
            host, port = _from_hex(fields[1], family)
            peer, peer_port = _from_hex(fields[2], family)
            writing, reading = (int(part, 16) for part in fields[4].split(":"))
            state = STATES[int(fields[3], 16) - 1]
            yield Socket(
                state, host, port, peer, peer_port, int(fields[7]), int(fields[9]), reading, writing
            )


def _from_hex(text: str, family: int) -> tuple[str, int]:
    address, port = text.split(":")
    raw = b"".join(
        struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8)
    )
    return _address(family, raw), int(port, 16)


def owner(inode: int, proc: str = "/proc") -> int | None:
    """The pid that has this socket open, where we may see it: a walk for one inode only."""
    wanted = f"socket:[{inode}]"
    pids = sorted((int(name) for name in os.listdir(proc) if name.isdigit()), reverse=True)
    for pid in pids:
        try:
            folder = os.open(f"{proc}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if any(_link(name, folder) == wanted for name in os.listdir(folder)):
                return pid
        except OSError:
            continue
        finally:
            os.close(folder)
    return None


def _link(name: str, folder: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None
