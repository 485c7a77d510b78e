"""Healthy output names no cause, however much of it there is."""

from __future__ import annotations

import sys
from pathlib import Path

from ddp_assist.app.diagnose import Question, diagnose

sys.path.insert(0, str(Path(__file__).parent))

from ordinary import END, START, output


def test_fifty_megabytes_of_healthy_output_name_nothing(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    with log.open("wb") as out:
        out.writelines(output(50))
    assert log.stat().st_size > 50_000_000
    found = diagnose(Question(logs=(str(log),), env={}, cwd=tmp_path))
    assert [cause.cause for cause in found.causes] == []
    assert len({f.key for f in found.noise}) >= 5


def test_no_line_of_it_alone_names_anything(tmp_path: Path) -> None:
    """People paste one line: none of these may lead anywhere."""
    lines = b"".join(output(1)).decode().split("\n")
    start = len(START.split("\n"))
    picked = [*lines[:start], *lines[start : start + 60], *lines[-len(END.split("\n")) :]]
    log = tmp_path / "pasted.log"
    for line in dict.fromkeys(picked):
        log.write_text(line)
        found = diagnose(Question(logs=(str(log),), env={}, cwd=tmp_path))
        assert [cause.cause for cause in found.causes] == [], line
