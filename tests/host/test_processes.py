"""The pass over /proc, against real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddp_assist.probes.host import processes as pass_
from ddp_assist.probes.host.processes import Process, assignments, look, read, snapshot

TYPING = Path(__file__).resolve().parent.parent / "typing"
ENV = dict(os.environ, PYTHONPATH=str(TYPING))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts processes that are gone after the test, and waits until they are what was started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str | bytes, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_it_sees_this_very_process() -> None:
    me = snapshot().get(os.getpid())
    assert me is not None
    assert (me.ppid, me.uid, me.state) == (os.getppid(), os.getuid(), "R")
    assert me.session == os.getsid(0) and me.group == os.getpgrp()
    assert me.threads >= 1 and me.resident > 1 << 20 and me.cpu >= 0
    assert me.cwd == os.getcwd()
    assert me.exe == os.path.realpath("/proc/self/exe")
    assert me.argv == tuple(Path("/proc/self/cmdline").read_text().rstrip("\0").split("\0"))
    assert me.environ is not None and me.environ["PATH"] == os.environ["PATH"]
    assert me.descriptors and me.thread_names and me.cgroup is not None
    assert 0 <= me.age() < 86400


def test_ancestors_children_and_descendants(child: Callable[..., subprocess.Popen[bytes]]) -> None:
    shell = child("sh", "-c", "sleep 60 & wait")
    until(lambda: len(snapshot().children(shell.pid)) == 1)
    seen = snapshot()
    (sleeper,) = seen.children(shell.pid)
    assert [p.pid for p in seen.ancestors(sleeper.pid)][:2] == [shell.pid, os.getpid()]
    assert {shell.pid, sleeper.pid} <= {p.pid for p in seen.descendants(os.getpid())}
    os.kill(sleeper.pid, signal.SIGKILL)


def test_a_name_may_hold_blanks_and_brackets(child: Callable[..., subprocess.Popen[bytes]]) -> None:
    named = "open('/proc/self/comm', 'w').write('a) S 1 (b'); input()"
    process = subprocess.Popen([sys.executable, "-c", named], stdin=subprocess.PIPE)
    try:
        until(lambda: "S 1" in (look(process.pid) or snapshot().get(os.getpid())).comm)  # type: ignore[union-attr]
        found = look(process.pid)
        assert found is not None and found.comm == "a) S 1 (b" and found.ppid == os.getpid()
    finally:
        process.kill()
        process.communicate()


def test_bytes_that_are_no_text_survive(child: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = child(sys.executable.encode(), b"-c", b"import time; time.sleep(60)", b"\xff\x1b[2J")
    until(lambda: len((look(process.pid).argv) or ()) == 4)  # type: ignore[union-attr]
    found = look(process.pid)
    assert found and found.argv and os.fsencode(found.argv[3]) == b"\xff\x1b[2J"


def test_a_large_environ_is_read_whole(child: Callable[..., subprocess.Popen[bytes]]) -> None:
    env = {f"V{i}": "x" * 100_000 for i in range(10)} | {"RANK": "3"}
    process = child("/bin/sleep", "60", env=env)
    until(lambda: bool((look(process.pid).environ) or {}))  # type: ignore[union-attr]
    found = look(process.pid)
    assert found and found.environ and found.environ["RANK"] == "3" and len(found.environ) == 11


def test_zombies_and_stopped_ones(child: Callable[..., subprocess.Popen[bytes]]) -> None:
    dead, stopped = child("true"), child("sleep", "60")
    os.kill(stopped.pid, signal.SIGSTOP)
    until(lambda: (look(dead.pid) or ...).state == "Z")  # type: ignore[union-attr]
    until(lambda: (look(stopped.pid) or ...).state == "T")  # type: ignore[union-attr]
    zombie = look(dead.pid)
    assert zombie and zombie.argv == () and not zombie.environ


def test_what_is_gone_tells_nothing(child: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = child("sleep", "60")
    found = look(process.pid)
    assert found and found.lives
    process.kill()
    process.wait()
    assert not found.lives
    assert found.argv is found.environ is found.cwd is found.cgroup is found.thread_names is None
    assert look(process.pid) is None


def test_a_pid_given_to_another_process_is_not_the_old_one() -> None:
    me = look(os.getpid())
    assert me is not None
    earlier = me._replace(started=me.started - 1)
    assert not earlier.lives and earlier.argv is None and earlier.environ is None


def test_entries_that_vanish_or_are_cut_are_left_out(tmp_path: Path) -> None:
    for name, stat in (
        ("1", b"1 (init) S 0 1 1 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 7 0 3 0\n"),
        ("2", b"2 (cut"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_bytes(stat)
    (tmp_path / "3").mkdir()
    (tmp_path / "self").mkdir()
    seen = snapshot(str(tmp_path))
    assert [p.pid for p in seen] == [1]
    assert seen.hidden == "2 processes could not be read"
    only = seen.get(1)
    assert only == Process(
        1,
        0,
        os.getuid(),
        "init",
        "S",
        1,
        1,
        1,
        7,
        3 / pass_.TICKS,
        3 * pass_.PAGE,
        False,
        str(tmp_path),
    )


def test_the_first_of_two_equal_variables_counts() -> None:
    assert assignments(b"A=1\0A=2\0noise\0=x\0B=\0") == {"A": "1", "B": ""}


def test_reading_ends_at_the_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 200_000)
    assert len(read(str(tmp_path / "f"), 100_000) or b"") == 100_000
    assert read(str(tmp_path / "none")) is None


@pytest.mark.needs("namespaces", "setpriv")
def test_hidepid_is_named() -> None:
    code = (
        "from ddp_assist.probes.host.processes import snapshot; import os; s = snapshot();"
        "print(s.hidden, len(s), os.getuid())"
    )
    inner = f'exec setpriv --reuid 65534 --clear-groups {sys.executable} -c "{code}"'
    done = subprocess.run(
        [
            "unshare",
            "-m",
            "-p",
            "-f",
            "sh",
            "-c",
            f"mount -t proc -o hidepid=2 proc /proc && {inner}",
        ],
        capture_output=True,
        text=True,
        env=ENV,
        check=False,
    )
    assert "hidepid=" in done.stdout, done.stderr
    assert done.stdout.split()[-1] == "65534"


@pytest.mark.needs("root", "setpriv")
def test_another_users_process_shows_what_it_may() -> None:
    code = (
        "import os; from ddp_assist.probes.host.processes import look; p = look(os.getppid());"
        "print(p.uid, p.environ, p.cwd, bool(p.argv))"
    )
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=ENV,
        check=False,
    )
    assert done.stdout.split() == ["0", "None", "None", "True"], done.stderr
