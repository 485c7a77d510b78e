"""What processes and an environment may hold: no such word, and no such moment, crashes a look."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.host import processes
from ddp_assist.probes.host.environment import ENV
from ddp_assist.probes.host.leftovers import LEFT_OVERS
from ddp_assist.probes.model import Finding
from ddp_assist.probes.network import endpoint, names, ports

Ask = Callable[..., dict[str, Finding]]
NASTY = b"\xff\xfe\x1b]52;c;QUJD\x07\x1b[2J\r\xe2\x80\xae[@click:app.bell]x[/]"
BESIDE = Path(sys.executable).parent


@pytest.fixture
def started() -> Iterator[Callable[..., int]]:
    """Starts a program with any bytes, and gives its pid once it runs."""
    children: list[subprocess.Popen[bytes]] = []

    def start(*words: bytes, env: dict[bytes, bytes]) -> int:
        children.append(
            subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        out = children[-1].stdout
        assert out and select.select([out], [], [], 30)[0] and out.readline() == b"up\n"
        return children[-1].pid

    yield start
    for child in children:
        child.communicate(timeout=30)


def is_shown(found: dict[str, Finding]) -> None:
    for key, finding in found.items():
        assert "the probe failed" not in finding.sentence, key
        assert finding.sentence.isprintable() and len(finding.sentence) < 2000, key
        json.dumps(dict(finding.data)).encode()
        for evidence in finding.evidence:
            assert all(line.isprintable() for line in evidence.lines), key


RANK = (
    b"import ctypes, sys\n"
    b"ctypes.CDLL(None).prctl(15, b'\\x1b]0;\\xff\\x07\\r', 0, 0, 0)\n"
    b"print('up', flush=True); sys.stdin.read()\n"
)


def test_a_rank_of_any_bytes_is_told_of_in_clean_words(
    ask: Ask, started: Callable[..., int]
) -> None:
    """Its name, words and environment are hostile; a launcher is not above it."""
    env = {b"RANK": NASTY, b"WORLD_SIZE": b"\xff2", b"TORCHELASTIC_RUN_ID": NASTY, NASTY: b"1"}
    python = os.fsencode(shutil.which("python3") or sys.executable)
    pid = started(python, b"-c", RANK, NASTY, env=env)
    found = ask(LEFT_OVERS)
    is_shown(found)
    process = processes.look(pid)
    assert process and process.environ and process.environ["RANK"] == os.fsdecode(NASTY)
    assert process.argv and process.argv[-1] == os.fsdecode(NASTY)
    assert process.comm == "\x1b]0;\udcff\x07\r"


def test_an_environment_of_a_megabyte(ask: Ask, started: Callable[..., int]) -> None:
    """No variable may be longer than 128 KiB, so there are many."""
    env = {f"NCCL_{i}".encode(): b"x" * 100_000 for i in range(11)}
    pid = started(os.fsencode(sys.executable), b"-c", RANK, env=env | {b"RANK": b"7"})
    process = processes.look(pid)
    assert process and process.environ and process.environ["RANK"] == "7"
    assert len(process.environ) == 12
    is_shown(ask(LEFT_OVERS))
    is_shown(ask(ENV, env={os.fsdecode(k): os.fsdecode(v) for k, v in env.items()}))


def test_the_whole_check_in_a_hostile_environment(tmp_path: Path) -> None:
    """Through exec, as a shell would hand it over: 1 MB, bytes that are no text, wrong numbers."""
    env: dict[bytes, bytes] = {f"NCCL_{i}".encode(): b"x" * 100_000 for i in range(10)}
    env |= {
        b"PATH": os.fsencode(os.environ["PATH"]), b"HOME": os.fsencode(tmp_path),
        b"RANK": NASTY, b"WORLD_SIZE": b"-1", b"MASTER_PORT": b"0x7342",
        b"MASTER_ADDR": b"h" * 4000, b"GLOO_SOCKET_IFNAME": NASTY, b"CUDA_VISIBLE_DEVICES": NASTY,
        b"TMPDIR": b"/\xff", b"LD_LIBRARY_PATH": b":\xff:", NASTY: NASTY,
    }  # fmt: skip
    for words in (
        [],
        [b"--", b"python", NASTY],
        [b"--", b"torchrun", b"--nnodes=x", b"t.py"],
    ):
        done = subprocess.run(
            [os.fsencode(sys.executable), b"-m", b"ddp_assist", b"check", b"--json", *words],
            env=env, capture_output=True, timeout=120, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert b"\x1b" not in done.stdout + done.stderr
        if NASTY in words:
            assert done.returncode == 2, done.stderr
            continue
        assert done.returncode in (0, 1, 5), done.stderr
        said = json.loads(done.stdout)
        assert not [f for f in said["findings"] if "the probe failed" in f["sentence"]]
        assert all(f["sentence"].isprintable() for f in said["findings"])


@pytest.mark.parametrize("port", ["٣٤٥", "0x7342", "29500.0", "9" * 5000, "-1", "\udcff", " "])
def test_ports_that_are_no_numbers(ask: Ask, port: str) -> None:
    env = {"PATH": os.environ["PATH"], "MASTER_PORT": port, "RANK": port, "WORLD_SIZE": port}
    found = ask(
        ENV, *names.PROBES, *ports.PROBES, *endpoint.PROBES, env=env, launch=["python", "t"]
    )
    is_shown(found)
    assert port == " " or found.keys() & {"env.contradiction", "env.unprintable"}


@pytest.mark.parametrize(
    "host", ["h" * 4000, ("a" * 60 + ".") * 66, "٣.example", "\udcff\udcfe", "%"]
)
def test_hosts_that_are_no_names(ask: Ask, host: str) -> None:
    found = ask(*names.PROBES, *endpoint.PROBES, at=[(host, 29500)])
    is_shown(found)
    assert found.keys() & {"name.malformed", "name.unresolvable", "name.unknown"}


def test_processes_that_vanish_while_they_are_looked_at() -> None:
    """Hundreds come and go; each answer is of the process that was asked for, or none."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            subprocess.run(["/bin/true"], env={"RANK": "0"}, check=False)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        met = 0
        for _ in range(40):
            for process in processes.snapshot():
                told: list[Any] = [process.argv, process.environ, process.cwd, process.exe]
                told += [process.cgroup, process.thread_names, process.wait_channel]
                met += process.comm == "true" and None in told
        assert met, "no process vanished: this proves nothing"
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_entries_of_proc_that_are_cut(tmp_path: Path) -> None:
    for pid, stat in enumerate(
        [b"", b"1", b"1 (x", b"1 (x) S", b"1 (x) S " + b"a " * 30, NASTY], 1
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_bytes(stat)
    (tmp_path / "7").mkdir()
    (tmp_path / "8").symlink_to("nowhere")
    found = processes.snapshot(str(tmp_path))
    assert len(found) == 0
    assert found.hidden and "could not be read" in found.hidden
