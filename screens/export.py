"""The report as it will be written, before it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from ddp_assist.screens.messages import CopyWanted, ExportWanted
from ddp_assist.screens.widgets.frame import Box, Framed, Line
from ddp_assist.screens.widgets.lines import Page

if TYPE_CHECKING:
    from ddp_assist.app.session import Session

FORMATS = ("md", "html", "json", "txt")
MOST = 400
"""Lines of the preview; the file has them all."""


class ExportScreen(Framed):
    CSS_PATH = "export.tcss"
    BINDINGS = [
        Binding("enter", "write", "Write the files", key_display="enter"),
        Binding("f", "format", "Format"),
        Binding("p", "path", "Folder"),
        Binding("y", "copy", "Copy"),
        Binding("b,escape", "back", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
        Binding("q", "app.quit", "Quit"),
    ]

    def __init__(self, session: Session, preview: Callable[[str], str], folder: str) -> None:
        super().__init__(session)
        self.preview, self.folder = preview, folder
        self.format = "md"
        self.done = ""

    def head(self) -> str:
        return "ddp-assist > Report"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action == "write" and self.done)

    def body(self) -> ComposeResult:
        yield Line("Folder (report.md, report.html, case.json, launch.sh go there):", id="where")
        yield Box(self.folder, id="path")
        yield Line("", id="note")
        yield Page(id="page")

    def on_mount(self) -> None:
        self.query_one("#page").focus()

    def show(self) -> None:
        self.text = self.preview(self.format)
        names = "  ".join(f"[{f}]" if f == self.format else f for f in FORMATS)
        self.query_one("#note", Line).say(
            self.done or f"Preview  {names}   redacted; read it before you post it"
        )
        self.query_one("#page", Page).say("\n".join(self.text.splitlines()[:MOST]))

    def written(self, folder: str) -> None:
        self.done = "WRITTEN. q quits and leaves the corrected command on your terminal."
        self.show()
        self.refresh_bindings()

    def action_format(self) -> None:
        self.format = FORMATS[(FORMATS.index(self.format) + 1) % len(FORMATS)]
        self.show()

    def action_path(self) -> None:
        self.done = ""
        self.refresh_bindings()
        self.query_one("#path").focus()

    def action_back(self) -> None:
        """Out of the box first, then off the screen."""
        if self.query_one("#path").has_focus:
            self.query_one("#page").focus()
        else:
            self.app.pop_screen()

    def action_write(self) -> None:
        self.post_message(ExportWanted(self.query_one("#path", Input).value))

    def on_input_submitted(self) -> None:
        self.query_one("#page").focus()
        self.action_write()

    def action_copy(self) -> None:
        self.post_message(CopyWanted(self.text))
