"""What the tests of trials look at: processes by their mark, and who listens where."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


def marked(mark: str) -> list[int]:
    """Living processes whose environment holds this text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(what: Callable[[], object], seconds: float) -> bool:
    """Whether it became true in time; a look that a busy machine delays counts as a short one."""
    spent = 0.0
    while not what():
        if spent > seconds:
            return False
        began = time.monotonic()
        time.sleep(0.01)
        spent += min(time.monotonic() - began, 0.02)
    return True


def listening(pids: list[int]) -> set[tuple[str, int]]:
    """Addresses, in the kernel's hexadecimal, and ports on which these processes listen."""
    inodes = set()
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                host, _, port = fields[1].partition(":")
                found.add((host, int(port, 16)))
    return found


def run_python(source: str, *before: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A program of ours in its own process, for what must not happen to this one."""
    return subprocess.run(
        [*before, sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "typing"), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


class Prepared:
    """A program with torch in it, which goes on when it is told a port; `sys.argv` are its words.

    So a trial's seconds are not spent on its import."""

    def __init__(self, source: str, *words: str) -> None:
        start = "import os, sys, torch, torch.distributed as dist\nprint(flush=True)\n"
        start += "port = int(sys.stdin.readline())\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", start + source, *words],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.process.stdin and self.process.stdout
        assert self.process.stdout.readline() == b"\n"

    def go(self, port: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{port}\n".encode())
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def prepare() -> Iterator[Callable[..., Prepared]]:
    """Makes such programs, and ends them."""
    made: list[Prepared] = []

    def make(source: str, *words: str) -> Prepared:
        made.append(Prepared(source, *words))
        return made[-1]

    yield make
    for program in made:
        program.end()


@pytest.fixture
def lab() -> SimpleNamespace:
    """These functions: a conftest cannot be imported."""
    return SimpleNamespace(
        marked=marked, wait_until=wait_until, listening=listening, run_python=run_python
    )


@pytest.fixture(autouse=True)
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of the test's own, which must be as empty afterwards as before."""
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp
    assert list(tmp.iterdir()) == []
