"""What several tests of screens need: to wait for the app, and to read what it shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot

from ddp_assist.app.question import Question
from ddp_assist.app.tui import Assistant

SIZES = [(60, 15), (80, 24), (140, 40)]


async def until(pilot: Pilot[Any], true: Callable[[], bool]) -> None:
    """Waits for the app, not for the clock."""
    for _ in range(1200):
        if true():
            return
        await pilot.pause(0.05)
    raise AssertionError(shown(pilot.app))


def shown(app: Any) -> str:
    """The screen as text."""
    return "\n".join(
        "".join(segment.text for segment in strip)
        for strip in app.screen._compositor.render_strips()
    )


def words(app: Any) -> str:
    """The screen as one run of words, for sentences that may be wrapped."""
    return " ".join(shown(app).split())


def demo() -> Assistant:
    return Assistant(Question(env={}), demo=True)
