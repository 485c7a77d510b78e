"""Who reaches whom: short-lived listeners of our own, and real connections to those of others."""

from __future__ import annotations

import errno
import hmac
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ddp_assist.probes.network.links import interfaces

PATIENCE = 3.0
BLOCKS = (1, 1400, 4000, 8800, 1 << 17)
"""Asked for one after the other, so that each is a packet of its own where it fits one: where only
small packets pass, a large one never arrives, however often it is sent again."""
OPEN: list[socket.socket] = []
LATE = (TimeoutError, socket.timeout)  # noqa: UP041 - two classes before Python 3.10


def listen(asked: dict[str, Any]) -> dict[str, Any]:
    """Listeners on each address of this node: on the meeting ports and on one of the kernel's."""
    close()
    token = str(asked["token"]).encode()
    wanted = [("port", port) for port in asked["ports"]] + [("data", 0)] * asked.get("data", 1)
    found = []
    for link in interfaces():
        if not link.up or link.loopback or link.virtual:
            continue
        for address in link.usable:
            for kind, port in wanted:
                family = socket.AF_INET if address.version == 4 else socket.AF_INET6
                door = socket.socket(family, socket.SOCK_STREAM)
                try:
                    if family == socket.AF_INET6:
                        door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    door.bind((str(address), port))
                    door.listen(128)
                except OSError as why:
                    door.close()
                    taken = errno.errorcode.get(why.errno or 0, str(why))
                    found.append(_door(link.name, str(address), port, kind, taken))
                    continue
                OPEN.append(door)
                threading.Thread(target=_serve, args=(door, token), daemon=True).start()
                number = door.getsockname()[1]
                found.append(_door(link.name, str(address), number, kind, ""))
    return {"doors": found}


def close() -> None:
    """What comes next may want the ports for itself. A thread in accept() keeps a door open
    unless it is shut down first."""
    while OPEN:
        door = OPEN.pop()
        with suppress(OSError):  # nobody was waiting at it
            door.shutdown(socket.SHUT_RDWR)
        door.close()


def _door(link: str, address: str, port: int, kind: str, taken: str) -> dict[str, Any]:
    return {"link": link, "address": address, "port": port, "kind": kind, "taken": taken}


def _serve(door: socket.socket, token: bytes) -> None:
    while True:
        try:
            guest, _ = door.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(guest, token), daemon=True).start()


def _answer(guest: socket.socket, token: bytes) -> None:
    """Nothing for who does not know the token; growing blocks for who does."""
    with guest:
        guest.settimeout(PATIENCE)
        guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if hmac.compare_digest(guest.recv(len(token)), token):
                for size in BLOCKS:
                    if guest.recv(1) != b"+":
                        return
                    guest.sendall(bytes(size))
        except OSError:
            return


def connect(asked: dict[str, Any]) -> dict[str, Any]:
    """One connection for each door, side by side."""
    token = str(asked["token"]).encode()
    with ThreadPoolExecutor(64) as pool:
        ways = pool.map(lambda door: {**door, "outcome": reach(door, token)}, asked["doors"])
        return {"ways": list(ways)}


def reach(door: dict[str, Any], token: bytes) -> str:
    try:
        way = socket.create_connection((door["address"], door["port"]), timeout=PATIENCE)
    except LATE:
        return "silent"
    except OSError as why:
        known = {
            errno.ECONNREFUSED: "refused",
            errno.ECONNRESET: "reset",
            errno.EHOSTUNREACH: "unreachable",
            errno.ENETUNREACH: "no-route",
            errno.ETIMEDOUT: "silent",
            errno.EACCES: "refused",
            errno.EPERM: "refused",
        }
        return known.get(why.errno or 0, "failed")
    with way:
        if door["taken"]:
            return "reached"  # somebody else's listener: that it took the connection is enough
        way.settimeout(PATIENCE)
        got = 0
        try:
            way.sendall(token)
            for size in BLOCKS:
                way.sendall(b"+")
                left = size
                while left > 0 and (block := way.recv(min(left, 1 << 16))):
                    left -= len(block)
                if left:
                    return "reset" if got else "stranger"
                got += size
        except LATE:
            return "large-lost" if got else "silent"
        except OSError:
            return "reset"
    return "reached"
