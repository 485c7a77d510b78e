"""The port of a rendezvous with real sockets and processes on it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from asking import as_nobody

from ddp_assist.probes.model import Endpoint, Finding, Target
from ddp_assist.probes.network import ports, store
from ddp_assist.probes.network.ports import bind_error, ephemeral_range, free_port
from ddp_assist.probes.runner import run

Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
SERVER = """
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); print("up", flush=True); sys.stdin.read()
"""
STORE = """
import sys, torch.distributed as dist
s = dist.TCPStore("127.0.0.1", int(sys.argv[1]), None, True, wait_for_workers=False)
print("up", flush=True); sys.stdin.read()
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, *words: str) -> subprocess.Popen[bytes]:
    """A real process on a port, up when this returns, gone when the test ends."""
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stack.callback(child.wait, 20)
    stack.callback(child.kill)
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], 60)
    assert ready and b"up" in child.stdout.readline()
    return child


def look(port: int, host: str = "127.0.0.1", **more: object) -> Finding:
    target = Target(endpoints=(Endpoint(host, port, "the test"),), **more)  # type: ignore[arg-type]
    (finding,) = run(ports.PROBES, target)
    return finding


def a_port() -> int:
    port = free_port()
    assert port is not None
    return port


def test_a_free_port_is_free_and_outside_the_ephemeral_range() -> None:
    port = a_port()
    low, high = ephemeral_range()
    assert not low <= port <= high
    assert look(port).outcome == "free"


def test_a_port_in_the_ephemeral_range_is_only_a_note() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert look(port).outcome == "ephemeral"


@pytest.mark.parametrize("port", [65536, 99999, -1])
def test_a_number_that_is_no_port(port: int) -> None:
    assert look(port).outcome == "out-of-range"


def test_an_ordinary_server_is_a_service(stack: ExitStack) -> None:
    port = a_port()
    child = start(stack, sys.executable, "-c", SERVER, str(port))
    finding = look(port)
    assert (finding.outcome, finding.data["pid"]) == ("held-by-service", child.pid)
    assert bind_error(port) != 0
    assert finding.evidence[0].see[0] == "ss"


def test_a_live_store_of_ones_own_is_a_job_and_not_a_left_over(stack: ExitStack) -> None:
    port = a_port()
    child = start(stack, sys.executable, "-c", STORE, str(port))
    finding = look(port)
    assert (finding.outcome, finding.data["pid"]) == ("held-by-own-job", child.pid)
    assert store.fingerprint("127.0.0.1", port).answer == "store"


def test_a_store_whose_launcher_is_gone_is_a_left_over(stack: ExitStack, tmp_path: Path) -> None:
    port = a_port()
    # The launcher forks the store's process and leaves, so init or a subreaper takes that over.
    script = tmp_path / "launcher.py"
    script.write_text(
        "import os, sys\n"
        "child = os.fork()\n"
        "if child:\n    print(child, flush=True); os._exit(0)\n"
        "os.setsid()\n" + STORE.replace("sys.stdin.read()", "import time; time.sleep(120)")
    )
    env = os.environ | {"TORCHELASTIC_RUN_ID": "old", "RANK": "0"}
    launcher = subprocess.Popen(
        [sys.executable, str(script), str(port)], stdout=subprocess.PIPE, env=env
    )
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    stack.callback(os.kill, pid, 9)
    launcher.wait(20)
    ready, _, _ = select.select([launcher.stdout], [], [], 60)
    assert ready and b"up" in launcher.stdout.readline()
    finding = look(port)
    assert (finding.outcome, finding.data["pid"]) == ("held-by-orphan", pid)


def test_the_local_end_of_a_connection_takes_the_port(stack: ExitStack) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = a_port()
    client = stack.enter_context(socket.socket())
    client.bind(("127.0.0.1", port))
    client.connect(server.getsockname())
    finding = look(port)
    assert finding.outcome == "taken-by-connection"
    assert finding.data["peer"].endswith(str(server.getsockname()[1]))


def test_a_bound_socket_that_does_not_listen(stack: ExitStack) -> None:
    port = a_port()
    bound = stack.enter_context(socket.socket())
    bound.bind(("127.0.0.1", port))
    assert look(port).outcome == "bound-not-listening"


def _time_wait(port: int, reuse: bool) -> None:
    """A server that closes first, so that its end of the connection lingers."""
    with socket.socket() as server:
        if reuse:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        with socket.create_connection(("127.0.0.1", port)) as client:
            taken, _ = server.accept()
            taken.shutdown(socket.SHUT_WR)
            client.recv(1)
            client.close()
            taken.close()


def test_time_wait_of_a_torch_like_server_hinders_nobody() -> None:
    port = a_port()
    _time_wait(port, reuse=True)
    assert look(port).outcome == "free"


def test_time_wait_of_a_server_without_reuse_blocks() -> None:
    port = a_port()
    _time_wait(port, reuse=False)
    assert look(port).outcome == "time-wait-blocks"


@pytest.mark.needs("root", "setpriv")
def test_another_users_listener_is_named_by_user(stack: ExitStack) -> None:
    port = a_port()
    words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    start(stack, *words, "/usr/bin/env", "python3", "-c", SERVER, str(port))
    finding = look(port)
    assert finding.outcome == "held-by-other-user"
    assert finding.data["uid"] == 65534


@pytest.mark.needs("root", "setpriv")
def test_as_an_ordinary_user_a_low_port_is_privileged_and_roots_holder_hidden(
    stack: ExitStack, tmp_path: Path
) -> None:
    port = a_port()
    start(stack, sys.executable, "-c", SERVER, str(port))
    for asked, outcome in ((443, "privileged"), (port, "held-by-other-user")):
        found = as_nobody(tmp_path, *ports.PROBES, at=[("", asked)])
        assert set(found) == {f"port.{outcome}"}
        assert found[f"port.{outcome}"].data.get("pid") is None


def test_the_job_that_is_looked_at_may_hold_its_port(stack: ExitStack) -> None:
    port = a_port()
    child = start(stack, sys.executable, "-c", SERVER, str(port))
    assert look(port, job=child.pid).outcome == "held-by-this-job"


@pytest.mark.needs("namespaces", "ip")
@pytest.mark.parametrize(("holder", "outcome"), [("", "free"), (SERVER, "default-taken")])
def test_where_nothing_was_given_the_port_of_torch_is_looked_at(
    ask_elsewhere: Elsewhere, holder: str, outcome: str
) -> None:
    """In a network of its own, so that whoever has 29500 on this machine does not matter."""
    serve = (
        f"coproc {sys.executable} -c '{holder}' 29500; read -u ${{COPROC[0]}};" if holder else ""
    )
    inner = f'ip link set lo up; {serve} "$0" "$@"; exit'
    found = ask_elsewhere(["unshare", "-n", "bash", "-c", inner], "network.ports")
    assert set(found) == {f"port.{outcome}"}


def test_a_port_elsewhere_is_not_ours_to_bind() -> None:
    target = Target(endpoints=(Endpoint("192.0.2.1", 29500, "the test"),))
    assert list(ports.look(target)) == []


def test_two_users_who_ask_at_once_get_two_ports() -> None:
    assert len({free_port() for _ in range(8)}) > 1
