"""Everything this host can tell: what is wrong first, what is fine, what could not be seen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.app.session import RowView
from ddp_assist.screens.messages import Again
from ddp_assist.screens.reader import Reader
from ddp_assist.screens.step import evidence, told
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows

ORDER = {"BAD": 0, "run": 1, "note": 2, "?": 3, "ok": 4, "wait": 5}


class Everything(Framed):
    CSS_PATH = "everything.tcss"
    BINDINGS = [
        Binding("enter", "raw", "Evidence"),
        Binding("r", "again", "Re-run"),
        Binding("d", "app.diagnosis", "Diagnosis"),
        Binding("b,escape", "app.pop_screen", "Back"),
        Binding("question_mark", "app.help", "Help", key_display="?"),
    ]

    def head(self) -> str:
        return "ddp-assist > Check everything"

    def body(self) -> ComposeResult:
        yield Line("", id="count")
        yield Rows([], id="all")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    def show(self) -> None:
        rows = [row for row in self.session.rows(list(self.session.catalogue)) if self._worth(row)]
        self.shown = sorted(rows, key=lambda row: ORDER[row.mark])
        wrong = sum(row.mark == "BAD" for row in self.shown)
        open_ = sum(row.mark == "run" for row in self.shown)
        self.query_one("#count", Line).say(f"{wrong} wrong, {open_} still looking")
        self.query_one(Rows).show([told(row) for row in self.shown])

    @staticmethod
    def _worth(row: RowView) -> bool:
        return row.finding is not None or row.mark == "run"

    def action_raw(self) -> None:
        if self.shown:
            row = self.shown[self.query_one(Rows).cursor]
            self.app.push_screen(Reader("Evidence", "\n".join([row.text, "", *evidence(row)])))

    def on_rows_picked(self) -> None:
        self.action_raw()

    def action_again(self) -> None:
        self.post_message(Again())
