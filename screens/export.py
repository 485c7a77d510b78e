"""The report as it will be written, before it is written."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widgets import Input

from ddp_assist.app.session import Session
from ddp_assist.screens.messages import CopyWanted, ExportWanted
from ddp_assist.screens.widgets.frame import Framed, Line

FORMATS = ("md", "html", "json", "txt")


class ExportScreen(Framed):
    CSS_PATH = "export.tcss"
    BINDINGS = [
        Binding("enter", "write", "Write files"),
        Binding("f", "format", "Format"),
        Binding("y", "copy", "Copy"),
        Binding("p", "path", "Path"),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("b,escape", "app.pop_screen", "Back"),
    ]

    def __init__(self, session: Session, preview: Callable[[str], str], folder: str) -> None:
        super().__init__(session)
        self.preview, self.folder = preview, folder
        self.format = "md"

    def head(self) -> str:
        return "ddp-assist > Export fix report"

    def body(self) -> ComposeResult:
        yield Line("", id="about")
        yield Input(self.folder, id="path")
        yield Line("Preview: redacted. Read it before you post it.", id="note")
        with VerticalScroll(id="page"):
            yield Line("", id="text")

    def on_mount(self) -> None:
        self.query_one("#page").focus()

    def show(self) -> None:
        self.text = self.preview(self.format)
        self.query_one("#about", Line).say(
            f"Format  {'  '.join(f'[{f}]' if f == self.format else f for f in FORMATS)}"
            f"    {len(self.text)} characters    into the folder:"
        )
        self.query_one("#text", Line).say("\n".join(self.text.splitlines()[:400]))

    def action_format(self) -> None:
        self.format = FORMATS[(FORMATS.index(self.format) + 1) % len(FORMATS)]
        self.show()

    def action_path(self) -> None:
        self.query_one("#path").focus()

    def action_write(self) -> None:
        self.post_message(ExportWanted(self.format, self.query_one("#path", Input).value))

    def on_input_submitted(self) -> None:
        self.action_write()

    def action_copy(self) -> None:
        self.post_message(CopyWanted(self.text))

    def action_scroll(self, by: int) -> None:
        self.query_one("#page", VerticalScroll).scroll_relative(y=by, animate=False)
