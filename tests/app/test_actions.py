"""Ending a process: only the one that was looked at, only one's own, and only where it still is."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddp_assist.app.actions import Refused, end, pin

ROOT = Path(__file__).resolve().parents[2]
LISTEN = """
import signal, socket, sys, time
if "deaf" in sys.argv: signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
line = sys.stdin.readline()
if line == "move\\n": s.close(); print("moved", flush=True); sys.stdin.readline()
if line == "exec\\n": import os; os.execv(sys.executable, [sys.executable, "-c", "print('new', flush=True); input()"])
time.sleep(600)
"""  # noqa: E501
Start = Callable[..., tuple["subprocess.Popen[str]", int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """A process of ours that listens on a port, and the port."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, before: tuple[str, ...] = ()) -> tuple[subprocess.Popen[str], int]:
        child = subprocess.Popen(
            [*before, sys.executable, "-c", LISTEN, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(child)
        assert child.stdout is not None
        return child, int(child.stdout.readline())

    yield begin
    for child in started:
        child.kill()
        child.communicate()


def tell(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(word + "\n")
    child.stdin.flush()
    assert child.stdout.readline()


def test_a_process_of_ours_that_holds_the_port_is_ended(start: Start) -> None:
    child, port = start()
    pinned = pin(child.pid, port)
    assert end(pinned)
    pinned.close()
    assert child.wait(5) == -15


def test_one_that_ignores_it_is_killed_on_a_second_yes_only(start: Start) -> None:
    child, port = start("deaf")
    pinned = pin(child.pid, port)
    assert not end(pinned, patience=0.3)
    assert child.poll() is None
    assert end(pinned, force=True)
    pinned.close()
    assert child.wait(5) == -9


def test_who_may_never_be_ended() -> None:
    for pid, why in ((1, "never"), (os.getpid(), "itself"), (os.getppid(), "started it")):
        with pytest.raises(Refused, match=why):
            pin(pid)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(Refused, match="gone"):
        pin(gone.pid)


@pytest.mark.needs("root", "setpriv")
def test_another_users_process_is_refused(start: Start) -> None:
    child, port = start(before=("setpriv", "--reuid", "65534", "--clear-groups"))
    with pytest.raises(Refused, match="uid 65534"):
        pin(child.pid, port)
    assert child.poll() is None


def test_what_does_not_hold_the_port_is_refused(start: Start) -> None:
    child, port = start()
    with pytest.raises(Refused, match="does not hold"):
        pin(child.pid, 1 if port != 1 else 2)


def test_what_changed_since_it_was_looked_at_is_left_alone(start: Start) -> None:
    for word, why in (("move", "does not hold"), ("exec", "another program")):
        child, port = start()
        pinned = pin(child.pid, port if word == "move" else None)
        tell(child, word)
        with pytest.raises(Refused, match=why):
            end(pinned)
        pinned.close()
        assert child.poll() is None


@pytest.mark.needs("namespaces")
def test_who_gets_the_pid_of_an_ended_process_is_never_hit(tmp_path: Path) -> None:
    """Inside a PID namespace the kernel can be made to give the same number again."""
    code = textwrap.dedent("""
        import os, subprocess, time
        from ddp_assist.app.actions import Refused, end, pin
        hit = reused = 0
        for _ in range(20):
            victim = subprocess.Popen(["sleep", "600"])
            pinned = pin(victim.pid)
            victim.kill(); victim.wait()
            with open("/proc/sys/kernel/ns_last_pid", "w") as last:
                last.write(str(victim.pid - 1))
            other = subprocess.Popen(["sleep", "600"])
            reused += other.pid == victim.pid
            try:
                end(pinned, patience=0)
            except Refused:
                pass
            pinned.close()
            time.sleep(0)
            hit += other.poll() is not None
            other.kill(); other.wait()
        print(reused, hit)
    """)
    done = subprocess.run(
        ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/typing")},
    )  # fmt: skip
    reused, hit = map(int, done.stdout.split())
    assert reused >= 15 and hit == 0, done.stderr


@pytest.mark.needs("namespaces")
def test_a_process_of_a_container_is_refused() -> None:
    box = subprocess.Popen(
        ["unshare", "-p", "-f", "--kill-child=SIGKILL", "sh", "-c", "echo up; sleep 600"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert box.stdout is not None and box.stdout.readline()
        inside = int(Path(f"/proc/{box.pid}/task/{box.pid}/children").read_text().split()[0])
        with pytest.raises(Refused, match="container"):
            pin(inside)
    finally:
        box.kill()
        box.communicate()
