"""Sixty-four nodes on the Hosts screen of a small terminal."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from recorded import hosts  # type: ignore[import-not-found]

from ddp_assist.app.diagnose import Diagnosis
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.fleet import STAGES, Hosts
from ddp_assist.app.machine import Begun
from ddp_assist.app.question import Question
from ddp_assist.screens.hosts import NOW
from ddp_assist.screens.messages import Looked

sys.path.append(str(Path(__file__).parents[1] / "screens"))
from screen_text import demo, shown, until, words  # type: ignore[import-not-found]  # noqa: E402


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_many_nodes_are_readable(size: tuple[int, int]) -> None:
    app = demo()

    def asked(
        nodes: str, question: Question, begun: Begun
    ) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
        many = hosts(64)
        return many.ask(), many.fixes, many.result

    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "Pick one" in words(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.session.diagnosis is not None)
        app.machine.hosts = asked
        await pilot.press("h")
        await until(pilot, lambda: "Hosts" in words(app))
        await pilot.press("r")
        await until(pilot, lambda: "timed-out" in words(app))
        assert "n13" in words(app) and "n[0-6,8-12,14-63]" in words(app), shown(app)
        assert "SHUT" in words(app) and "-> n11 data ports: silent" in words(app)
        assert all(len(line) <= size[0] for line in shown(app).splitlines())
        before = shown(app)
        await pilot.press(*["down"] * 40)
        await until(pilot, lambda: shown(app) != before)
        assert "2.4.1" in words(app) or "pairs were tried" in words(app), shown(app)


def held_back(many: Hosts, late: set[str], gate: threading.Event) -> None:
    """These nodes answer when the gate opens, as over a slow connection."""
    fleet = many.meeting.fleet
    answers = fleet.ask

    def ask(question: str, seconds: float, each: dict[str, Any]) -> None:
        if question == "look":
            for name in late:
                fleet.nodes[name].state = "asked"
            answers(question, seconds, {n: a for n, a in each.items() if n not in late})
            assert gate.wait(60)
            for name in late:
                fleet.nodes[name].state = "ok"
            each = {n: a for n, a in each.items() if n in late}
        answers(question, seconds, each)

    fleet.ask = ask  # type: ignore[method-assign,assignment]


async def test_answers_show_as_they_come() -> None:
    app, gate = demo(), threading.Event()
    many = hosts(64)
    held_back(many, {f"n{number}" for number in range(40, 64)}, gate)

    def asked(
        nodes: str, question: Question, begun: Begun
    ) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
        begun(many.so_far)
        return many.ask(), many.fixes, many.result

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Pick one" in words(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.session.diagnosis is not None)
        app.machine.hosts = asked
        await pilot.press("h", "r")
        try:
            await until(pilot, lambda: "40 of 64 nodes have answered" in words(app))
            assert NOW["look"] in words(app) and "asked n[40-63]" in words(app), shown(app)
            assert "timed-out" in words(app) and "n13" in words(app), "who failed is known by now"
            assert app.session.hosts is None
            # What this host was asked comes to its end meanwhile.
            app.post_message(Looked(app.session.diagnosis, []))
            many.meeting.fleet.nodes["n40"].state = "ok"
            await until(pilot, lambda: "41 of 64 nodes have answered" in words(app))
        finally:
            gate.set()
        # The links are drawn before a cure has been looked for.
        await until(pilot, lambda: "SHUT" in words(app) and "have answered" not in words(app))
        assert app.session.hosts_so_far is None


def test_each_stage_has_words() -> None:
    assert list(NOW) == list(STAGES)
