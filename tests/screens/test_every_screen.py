"""Every screen of the session at three sizes: what it says, and that one key leads on.

The demo stands in for the machine: its answers are recorded, all else is the app as it is.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from importlib.resources import files

import pytest
from screen_text import SIZES, demo, shown, until, words  # type: ignore[import-not-found]

from ddp_assist.app.demo import Recorded, patched, stories, story
from ddp_assist.app.question import Question
from ddp_assist.app.tui import Assistant
from ddp_assist.probes.catalogue import probes
from ddp_assist.screens.diagnosis import DiagnosisScreen
from ddp_assist.screens.widgets.rows import Rows

# Which story, the keys from its home, what then stands there, and what enter does next.
SCREENS = {
    "home": ("1-port", "", ("What did you see?", "recognised"), "Start"),
    "step": ("1-port", "enter", ("Who has the port?", "BAD", "1 seen A left-over"), "Go on"),
    "diagnosis": ("1-port", "enter enter", ("The cause is this", "CERTAIN"), "Show the fix"),
    "fix": ("1-port", "enter enter enter", ("Fix 1 of 3", "not tried", "28636"), "Try it here"),
    "fix tried": ("1-port", "enter enter enter enter", ("[ RAN ]", "28636"), "Write the report"),
    "report": ("1-port", "enter enter enter x", ("report.md", "redacted"), "Write the files"),
    "end a process": ("1-port", "enter enter enter n n", ("ENDS A PROCESS",), "End the process"),
    "edit": ("3-spawn", "enter enter enter", ("ranks = 4",), "Try it here"),
    "two steps": ("2-hang", "enter enter", ("Step 2.", "different collectives"), "Go on"),
    "jobs": ("2-hang", "j", ("pid 52310", "rank 3"), "Diagnose this job"),
    "trial": ("1-port", "t", ("[gloo]", "not started"), "Start the trial"),
    "trial done": ("1-port", "t enter", ("JOINED", "rank 0"), "Start the trial"),
    "hosts": ("4-hosts", "h enter enter", ("firewall", "SHUT"), "Go on"),
    "everything": ("4-hosts", "0", ("4 wrong", "BAD"), "Diagnosis"),
    "cases": ("1-port", "o", ("No case is saved yet",), "Go on with it"),
    "tree": ("1-port", "enter m", ("<- you are here",), ""),
    "explained": ("1-port", "enter enter e", ("What you see",), ""),
    "help": ("1-port", "question_mark", ("Keys on this screen", "enter Start"), ""),
    "palette": ("1-port", "colon", ("What now?", "here: "), "Choose"),
    "paste": ("1-port", "p", ("Paste the error", "ctrl+s"), ""),
    "command": ("1-port", "c", ("The launch command",), "Take it"),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen(size: tuple[int, int]) -> None:
    for name in SCREENS:
        await look_at(name, size)


async def look_at(name: str, size: tuple[int, int]) -> None:
    told, keys, texts, enter = SCREENS[name]
    app = demo()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "Pick one" in words(app))
        place = [told.name for told in stories()].index(told)
        await pilot.press(*["down"] * place, "enter")
        await until(pilot, lambda: app.session.diagnosis is not None)
        for key in keys.split():
            before = shown(app)
            await pilot.press(key)
            await until(pilot, partial(changed, app, before))
        await until(pilot, lambda: all(text in words(app) for text in texts))
        last = shown(app).splitlines()[-1]
        assert last.startswith(f" enter {enter}") or not enter, (name, last)
        assert len(last) == size[0], (name, last)
        assert "\x1b" not in shown(app), name


def changed(app: Assistant, before: str) -> bool:
    return shown(app) != before


async def test_the_demo_says_that_it_is_one_on_every_screen() -> None:
    app = demo()
    async with app.run_test(size=(140, 40)) as pilot:
        await until(pilot, lambda: "Pick one" in words(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.session.diagnosis is not None)
        for _ in range(4):
            await until(pilot, lambda: "DEMO: recorded answers" in shown(app))
            await pilot.press("enter")
            await pilot.pause()


def test_the_stories_are_answers_that_probes_give_and_lead_to_their_causes() -> None:
    known = {f"{p.id}.{name}" for p in probes() for name in (*p.outcomes, "unknown")}
    for told in stories():
        assert {finding.key for finding in told.findings} <= known, told.name
        diagnosis = Recorded(told).look(told.question, lambda probe, found: None, threading.Event())
        assert diagnosis.causes[0].certainty == "certain", told.name
        fixes = Recorded(told).fixes(diagnosis, diagnosis.causes[0])
        assert fixes, told.name


def test_no_story_holds_a_path_of_where_it_was_recorded() -> None:
    for entry in (files("ddp_assist.assets") / "demo").iterdir():
        text = entry.read_text("utf-8")
        assert json.loads(text)
        for foreign in ("/root", "/work", "/tmp/"):
            assert foreign not in text, (entry.name, foreign)


def test_a_diff_in_place_is_the_text_it_was_made_from() -> None:
    told = story("2-hang")
    fix = told.data["fixes"][0]
    (file,) = fix["files"]
    before = told.data["files"][file["path"]]
    after = patched(before, file["diff"])
    assert after.count("all_reduce") == before.count("all_reduce")
    assert after.index("all_reduce(loss)") < after.index("if rank == 0")


async def test_a_look_that_fails_inside_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Recorded):
        def look(self, *_: object) -> object:  # type: ignore[override]
            raise RuntimeError("token=hf_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefgh")

    said: list[str] = []
    app = Assistant(Question(launch=("torchrun", "t.py"), env={}), machine=Broken(story("1-port")))
    monkeypatch.setattr(app, "say", said.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: any("failed inside" in line for line in said))
        assert not app.session.looking
        assert not any("hf_ABC" in line for line in said)


async def test_an_answer_of_the_users_own_leads_where_he_says() -> None:
    """The machine saw a left-over; the user says that it is another live job of his."""
    app = demo()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Pick one" in words(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.session.diagnosis is not None)
        await pilot.press("enter")
        await until(pilot, lambda: "Who has the port?" in shown(app))
        await pilot.press("2")
        await until(pilot, lambda: "Nothing seen here speaks for this cause" in words(app))
        assert "live job of yours" in words(app)
        await pilot.press("b")
        await until(pilot, lambda: isinstance(app.screen, DiagnosisScreen))


async def test_the_picked_job_stays_picked_when_another_comes_above_it() -> None:
    app = demo()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Pick one" in words(app))
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.session.diagnosis is not None)
        await pilot.press("j")
        await until(pilot, lambda: "pid 52310" in shown(app))
        await pilot.press("down", "down")
        rows = app.screen.query_one(Rows)
        picked = rows.lines[rows.cursor]
        known = app.session.jobs or []
        app.session.jobs = [known[0] | {"id": "1", "launcher": "another"}, *known]
        app.refresh_screen()
        await until(pilot, lambda: "another, pid 1" in shown(app))
        assert rows.lines[rows.cursor] == picked
        assert app.screen.lines[rows.cursor][0] == "52310"  # type: ignore[attr-defined]
