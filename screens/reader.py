"""A page of text to scroll through: evidence, a cause's page, help, the map of the tree."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.widgets.frame import Dialog, Keys, Line
from ddp_assist.screens.widgets.lines import Page


class Reader(Dialog):
    CSS_PATH = "reader.tcss"
    BINDINGS = [
        Binding("b,escape,q,enter", "leave", "Back", key_display="b"),
        Binding("space", "page", "Next page"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self.heading, self.content = title, text

    def compose(self) -> ComposeResult:
        yield Line(self.heading, id="title")
        yield Page(self.content, id="page")
        yield Keys()

    def on_mount(self) -> None:
        self.query_one(Page).focus()

    def action_page(self) -> None:
        self.query_one(Page).action_page(1)

    def action_leave(self) -> None:
        self.dismiss(None)
