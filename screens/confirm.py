"""A question whose default answer is no."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.widgets.frame import Dialog, Keys, Line
from ddp_assist.screens.widgets.lines import Page


class Confirm(Dialog):
    """Gives back True only for a y."""

    CSS_PATH = "confirm.tcss"
    BINDINGS = [
        Binding("n,enter,escape,b,q", "no", "No (default)", key_display="n"),
        Binding("y", "yes", "Yes"),
    ]

    def __init__(self, asked: str, facts: Sequence[str], yes: str) -> None:
        super().__init__()
        self.asked, self.facts, self.yes = asked, list(facts), yes

    def compose(self) -> ComposeResult:
        yield Line(self.asked, id="title")
        yield Page("\n".join(self.facts), id="facts")
        yield Line(f"[n]  No, go back   (enter does this too)\n[y]  Yes, {self.yes}", id="answers")
        yield Keys()

    def action_no(self) -> None:
        self.dismiss(False)

    def action_yes(self) -> None:
        self.dismiss(True)
