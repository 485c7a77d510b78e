"""What a box is worth: nothing of it is seen outside, and nothing stays."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from live_box import NOBODY, Box, box, until


def listening(inside: Box, port: int) -> bool:
    return inside.run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}").returncode == 0


@pytest.mark.needs("namespaces", "ip")
def test_a_box_ends_with_all_that_is_in_it() -> None:
    with box() as inside:
        server = inside.start("python", "-m", "http.server", "8123")
        assert until(lambda: listening(inside, 8123), 30)
        with socket.socket() as outside, pytest.raises(OSError):
            outside.connect(("127.0.0.1", 8123))
        at = inside.at
        holder = Path(f"/proc/{inside.first}")
        assert holder.exists()
    assert until(lambda: server.poll() is not None, 30) and not at.exists()
    assert until(lambda: not holder.exists(), 30)
    assert server.communicate() is not None


@pytest.mark.needs("namespaces", "ip", "setpriv")
def test_an_ordinary_user_reaches_python_and_nothing_of_roots() -> None:
    with box(user=NOBODY) as inside:
        done = inside.run("python", "-c", "import os, torch; print(os.getuid(), os.getcwd())")
        assert done.stdout.split() == [str(NOBODY), str(inside.at)], done.stderr


@pytest.mark.needs("namespaces", "ip")
def test_two_hosts_know_their_names_and_reach_each_other() -> None:
    with box(two_hosts=True) as inside:
        for name, other in (("alpha", "10.66.0.2"), ("beta", "10.66.0.1")):
            said = inside.run("on", name, "sh", "-c", "hostname; ip route get " + other).stdout
            assert said.startswith(f"{name}\n{other} dev eth0"), said
