"""Who speaks on a port: a torch store, another server, or nobody who answers."""

from __future__ import annotations

import errno
import socket
import struct
import time
from dataclasses import dataclass
from typing import Literal

VALIDATE = b"\x00" + struct.pack("<I", 0x3C85F7CE)
COUNT_KEYS = b"\x07"
HELLO = b"OPTIONS * HTTP/1.0\r\n\r\n"

Answer = Literal[
    "store", "http", "other", "silent", "refused", "reset", "no-answer", "unreachable", "no-route",
    "denied", "unknown",
]  # fmt: skip
ERRORS: dict[int, Answer] = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "no-answer",
    errno.EHOSTUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETUNREACH: "no-route",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one connection told."""

    answer: Answer
    seconds: float
    keys: int | None = None
    first_bytes: bytes = b""
    error: int = 0


def fingerprint(host: str, port: int, deadline: float = 1.0, talk: bool = True) -> Spoken:
    """One connection, one question, then closed.

    The question is whole in one send, because half a request stalls the old store backend for all
    ranks. A store from torch 2.2 on answers with its number of keys. `talk=False` only connects.
    """
    begun = time.monotonic()

    def said(answer: Answer, **more: object) -> Spoken:
        return Spoken(answer, round(time.monotonic() - begun, 4), **more)  # type: ignore[arg-type]

    try:
        link = socket.create_connection((host, port), timeout=deadline)
    except TimeoutError:
        return said("no-answer", error=errno.ETIMEDOUT)
    except OSError as why:
        return said(ERRORS.get(why.errno or 0, "unknown"), error=why.errno or 0)
    with link:
        if not talk:
            return said("silent")
        try:
            link.settimeout(max(0.05, deadline - (time.monotonic() - begun)))
            link.sendall(VALIDATE + COUNT_KEYS)
            data = link.recv(64)
        except TimeoutError:
            return _greet(host, port, deadline, begun)
        except OSError as why:
            return said(ERRORS.get(why.errno or 0, "other"), error=why.errno or 0)
        if len(data) == 8 and 0 <= (keys := struct.unpack("<q", data)[0]) < 1 << 32:
            return said("store", keys=keys)
        if data.startswith(b"HTTP/"):
            return said("http", first_bytes=data)
        return said("other", first_bytes=data)


def _greet(host: str, port: int, deadline: float, begun: float) -> Spoken:
    """A server that waits for a whole line, as HTTP servers do, is asked once more in its words."""
    answer: Answer = "silent"
    data = b""
    try:
        with socket.create_connection((host, port), timeout=deadline) as link:
            link.sendall(HELLO)
            data = link.recv(64)
            answer = "http" if data.startswith(b"HTTP/") else ("other" if data else "silent")
    except OSError:
        answer = "silent"
    return Spoken(answer, round(time.monotonic() - begun, 4), first_bytes=data)
