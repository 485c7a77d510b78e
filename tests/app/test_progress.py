"""A person who waits for a large log sees how far it is and what was found; a pipe sees nothing.

Where there is no time to read on, what was found so far is told.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.app.progress import reading_in_sight, reading_now
from ddp_assist.app.session import Session
from ddp_assist.probes.logs import reading, source

HALF = b"RuntimeError: context has already been set\n" + (b"step " * 40 + b"\n") * 7_500


class Screen(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.shown = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if "seen: the start method" in text:
            self.shown.set()
        return super().write(text)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "job.log"
    path.write_bytes(HALF * 2)
    return path


class Disk:
    """Gives half of a file, says so, and gives the rest when it is told to go on."""

    def __init__(self) -> None:
        self.half, self.go_on = threading.Event(), threading.Event()

    def half_read(self, log: Path) -> threading.Thread:
        thread = threading.Thread(target=_read, args=(log, []))
        thread.start()
        assert self.half.wait(60)
        return thread


def _read(log: Path, faults: list[reading.Overtaken]) -> None:
    try:
        reading.read((str(log),))
    except reading.Overtaken as why:
        faults.append(why)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    real = source._read

    def slow(fd: int, most: int | None) -> Iterator[bytes]:
        for n, block in enumerate(real(fd, most)):
            if n == 2:
                disk.half.set()
                disk.go_on.wait(60)
            yield block

    monkeypatch.setattr(source, "_read", slow)
    yield disk
    disk.go_on.set()


def test_progress_is_shown_and_taken_away(log: Path, disk: Disk) -> None:
    screen = Screen()
    with reading_in_sight(screen, worth=1):
        thread = disk.half_read(log)
        assert screen.shown.wait(30)
        disk.go_on.set()
        thread.join()
    assert "%, seen: the start method of processes was set" in screen.getvalue()
    assert screen.getvalue().endswith(" \r")
    assert reading_now(worth=1) == ""


def test_a_screen_tells_it_beside_the_probe(
    log: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddp_assist.app.progress._WORTH_A_LINE", 1)
    session = Session(Question(logs=(str(log),)))
    session.start_looking()
    assert session.doing == "0 probes have answered"
    thread = disk.half_read(log)
    assert "start method" in session.doing
    assert "start method" in session.rows(["log"])[0].text
    assert "start method" not in session.rows(["memory"])[0].text
    disk.go_on.set()
    thread.join()


def test_nobody_looks_at_a_pipe_and_a_small_log_needs_no_line(log: Path) -> None:
    for out in (io.StringIO(), Screen()):
        with reading_in_sight(out):
            reading.read((str(log),))
        assert out.getvalue() == ""


def test_what_was_found_before_the_time_was_up_is_told(log: Path, disk: Disk) -> None:
    found = diagnose(Question(logs=(str(log),), env={}, cwd=log.parent), deadline=1.0)
    assert [cause.cause for cause in found.causes] == ["start-method-already-set"]
    assert "log.read-in-part" in {f.key for f in found.findings}
    assert any("found so far" in f.sentence for f in found.unanswered)


def test_who_asks_for_another_log_does_not_wait_for_the_first(log: Path, disk: Disk) -> None:
    faults: list[reading.Overtaken] = []
    first = threading.Thread(target=_read, args=(log, faults))
    first.start()
    assert disk.half.wait(60)
    other = log.with_name("other.log")
    other.write_text("KeyError: 'RANK'\n")
    second = threading.Thread(target=_read, args=(other, faults))
    second.start()
    while reading._wanted != (str(other),):
        assert second.is_alive()
    disk.go_on.set()
    first.join()
    second.join()
    assert len(faults) == 1
    assert "variable-key-error" in reading.read((str(other),))[0].hits
