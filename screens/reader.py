"""A page of text to scroll through: evidence, a cause's page, help, the map of the tree."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer

from ddp_assist.screens.widgets.frame import Line


class Reader(ModalScreen[None]):
    CSS_PATH = "reader.tcss"
    BINDINGS = [
        Binding("b,escape,q", "leave", "Back"),
        Binding("down,j", "scroll(1)", "Down", show=False),
        Binding("up,k", "scroll(-1)", "Up", show=False),
        Binding("pagedown,space", "scroll(15)", "Page", show=True),
        Binding("pageup", "scroll(-15)", "Page up", show=False),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self.heading, self.text = title, text

    def compose(self) -> ComposeResult:
        yield Line(self.heading, id="heading")
        with VerticalScroll(id="page"):
            yield Line(self.text)
        yield Footer(compact=True, show_command_palette=False)

    def action_scroll(self, by: int) -> None:
        self.query_one("#page", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_leave(self) -> None:
        self.dismiss(None)
