"""A person who waits for a large log sees how far it is and what was found; a pipe sees nothing."""

from __future__ import annotations

import io
from pathlib import Path

from ddp_assist.app.progress import read_in_sight
from ddp_assist.probes.logs import reading


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def write(folder: Path) -> str:
    log = folder / "job.log"
    log.write_text("RuntimeError: context has already been set\n" + "step\n" * 500_000)
    return str(log)


def test_progress_is_shown_and_taken_away(tmp_path: Path) -> None:
    screen = Screen()
    log = write(tmp_path)
    read_in_sight((log,), screen, worth=1)
    shown = screen.getvalue()
    assert "%" in shown
    assert "start method of processes was set" in shown
    assert shown.endswith(" \r")
    # What was read once is not read again by the probes.
    (read_before,) = reading.read((log,))
    assert reading.read((log,))[0] is read_before


def test_nobody_looks_at_a_pipe(tmp_path: Path) -> None:
    pipe = io.StringIO()
    read_in_sight((write(tmp_path),), pipe, worth=1)
    assert pipe.getvalue() == ""


def test_a_small_log_needs_no_line(tmp_path: Path) -> None:
    screen = Screen()
    read_in_sight((write(tmp_path), "/nonexistent"), screen)
    assert screen.getvalue() == ""
