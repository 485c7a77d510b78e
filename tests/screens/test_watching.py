"""A log that grows after it was read: what is new in kind is told, once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from screen_text import until  # type: ignore[import-not-found]

from ddp_assist.app import watching
from ddp_assist.app.question import Question
from ddp_assist.app.tui import Assistant
from ddp_assist.app.watching import Watched

PORT = "RuntimeError: Address already in use\n"
NAME = "NameError: name 'os' is not defined\n"


def nobody(line: str) -> None:
    raise AssertionError(line)


def test_only_what_is_new_and_bad_is_told_once(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text(PORT)
    watched = Watched([str(log), str(tmp_path / "none.log"), str(tmp_path)], nobody)
    known = {"address-in-use"}
    assert watched.news(known) == []
    with log.open("a") as out:
        out.write("step 1\n" + PORT)
        out.flush()
        assert watched.news(known) == []
        out.write(NAME * 3)
    (line,) = watched.news(known)
    assert line.startswith("new in job.log: the script uses os")
    assert watched.news(known) == []


def test_a_log_that_was_begun_anew_is_new_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text("step\n" * 100)
    watched = Watched([str(log)], nobody)
    assert watched.news(set()) == []
    log.write_text(PORT)
    assert len(watched.news(set())) == 1


def test_it_watches_until_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.01)
    log = tmp_path / "job.log"
    log.write_text("step\n")
    told, stop = threading.Event(), threading.Event()
    before = threading.active_count()
    Watched([str(log)], lambda line: told.set()).begin(set(), stop)
    with log.open("a") as out:
        out.write(NAME)
    assert told.wait(30)
    stop.set()
    for thread in threading.enumerate():
        if thread.name.endswith("(_watch)"):
            thread.join(30)
    assert threading.active_count() <= before


async def test_the_screen_says_what_a_log_shows_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.05)
    log = tmp_path / "job.log"
    log.write_text("step 1\n")
    app = Assistant(Question(logs=(str(log),), cwd=tmp_path, env={}))
    said: list[str] = []
    monkeypatch.setattr(app, "say", said.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.session.diagnosis is not None)
        with log.open("a") as out:
            out.write(NAME)
        await until(pilot, lambda: any("new in job.log" in line for line in said))
        stop = app.session.cancel
    assert stop.is_set()
