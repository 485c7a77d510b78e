"""A question whose default answer is no."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen
from textual.widgets import Footer

from ddp_assist.screens.widgets.frame import Line


class Confirm(ModalScreen[bool]):
    CSS_PATH = "confirm.tcss"
    BINDINGS = [
        Binding("n,enter,escape,b", "no", "No (default)", key_display="n"),
        Binding("y", "yes", "Yes"),
    ]

    def __init__(self, asked: str, facts: Sequence[str], yes: str) -> None:
        super().__init__()
        self.asked, self.facts, self.yes = asked, list(facts), yes

    def compose(self) -> ComposeResult:
        yield Line(self.asked, id="asked")
        yield Line("\n".join(self.facts), id="facts")
        yield Line(f"[n]  No, go back   (default)\n[y]  Yes, {self.yes}", id="answers")
        yield Footer(compact=True, show_command_palette=False)

    def action_no(self) -> None:
        self.dismiss(False)

    def action_yes(self) -> None:
        self.dismiss(True)
