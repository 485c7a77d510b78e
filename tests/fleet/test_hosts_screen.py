"""Sixty-four nodes on the Hosts screen of a small terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from recorded import hosts  # type: ignore[import-not-found]

from ddp_assist.app.diagnose import Diagnosis
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.question import Question

sys.path.append(str(Path(__file__).parents[1] / "screens"))
from screen_text import demo, shown, until, words  # type: ignore[import-not-found]  # noqa: E402


@pytest.mark.parametrize("size", [(80, 24), (140, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_many_nodes_are_readable(size: tuple[int, int]) -> None:
    app = demo()

    def asked(nodes: str, question: Question) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
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
