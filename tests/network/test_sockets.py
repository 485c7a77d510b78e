"""The kernel's sockets as sock_diag and /proc tell them, on real ones."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ddp_assist.probes.network import sockets
from ddp_assist.probes.network.sockets import NoDiag, Socket


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listener(stack: ExitStack, host: str, family: int = socket.AF_INET) -> int:
    server = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    server.bind((host, 0))
    server.listen(7)
    return int(server.getsockname()[1])


def by_proc(states: int = sockets.EVERY) -> list[Socket]:
    return list(sockets._proc())


@pytest.mark.parametrize("listed", [sockets.tcp, by_proc], ids=["sock_diag", "proc"])
@pytest.mark.parametrize(
    ("host", "family"),
    [("127.0.0.1", socket.AF_INET), ("0.0.0.0", socket.AF_INET), ("::1", socket.AF_INET6)],
)
def test_a_listener_is_seen_with_its_address_and_uid(
    stack: ExitStack, listed: Callable[[], list[Socket]], host: str, family: int
) -> None:
    port = listener(stack, host, family)
    (seen,) = [s for s in listed() if s.port == port and s.state == "listen"]
    assert (seen.host, seen.uid) == (host, os.geteuid())
    assert seen.is_wildcard == (host == "0.0.0.0")
    assert sockets.owner(seen.inode) == os.getpid()


@pytest.mark.parametrize("listed", [sockets.tcp, by_proc], ids=["sock_diag", "proc"])
def test_both_ends_of_a_connection_are_seen(
    stack: ExitStack, listed: Callable[[], list[Socket]]
) -> None:
    port = listener(stack, "127.0.0.1")
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    own = client.getsockname()[1]
    (seen,) = [s for s in listed() if s.port == own]
    assert (seen.state, seen.peer, seen.peer_port) == ("established", "127.0.0.1", port)


def test_a_bound_socket_that_does_not_listen_is_seen(stack: ExitStack) -> None:
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", 0))
    states = {s.state for s in sockets.on_port(bound.getsockname()[1])}
    assert states <= {"bound"}


def test_only_the_states_asked_for(stack: ExitStack) -> None:
    listener(stack, "127.0.0.1")
    assert {s.state for s in sockets.tcp(sockets.LISTEN)} == {"listen"}


def test_without_netlink_the_tables_of_proc_answer(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener(stack, "127.0.0.1")

    def shut(family: int, states: int, traffic: bool = False) -> Iterator[Socket]:
        raise NoDiag(1, "shut")

    monkeypatch.setattr(sockets, "_diag", shut)
    assert [s.port for s in sockets.tcp(sockets.LISTEN) if s.port == port] == [port]
    assert {s.state for s in sockets.tcp(sockets.LISTEN)} == {"listen"}


def test_an_inode_nobody_has_has_no_owner() -> None:
    assert sockets.owner(1) is None
