"""Everything this host can tell: what is wrong first, what is fine, what could not be seen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.messages import Again
from ddp_assist.screens.step import evidence, told
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows

ORDER = {"BAD": 0, "run": 1, "note": 2, "?": 3, "ok": 4, "-": 5}


class Everything(Framed):
    CSS_PATH = "everything.tcss"
    BINDINGS = [
        Binding("enter", "on", "Diagnosis", key_display="enter"),
        Binding("v", "raw", "Evidence"),
        Binding("r", "again", "Look again"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]

    def head(self) -> str:
        return "ddp-assist > Check everything"

    def body(self) -> ComposeResult:
        yield Line("", id="count")
        yield Rows(id="all")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    def show(self) -> None:
        rows = self.session.rows(list(self.session.catalogue))
        self.shown = sorted((r for r in rows if r.mark != "-"), key=lambda row: ORDER[row.mark])
        self.query_one("#count", Line).say(self._said())
        width = self.query_one(Rows).size.width
        self.query_one(Rows).show([told(row, width) for row in self.shown])

    def _said(self) -> str:
        wrong = sum(row.mark == "BAD" for row in self.shown)
        if self.session.looking:
            return f"{wrong} wrong so far, {sum(r.mark == 'run' for r in self.shown)} still looking"
        causes = self.session.causes
        if not causes:
            return f"{wrong} wrong, and no cause follows from it."
        return f"{wrong} wrong. enter shows what follows: {causes[0].certainty} {causes[0].cause}"

    def action_on(self) -> None:
        self.call_later(self.run_action, "app.diagnosis")

    def action_raw(self) -> None:
        from ddp_assist.screens.reader import Reader

        if self.shown:
            row = self.shown[self.query_one(Rows).cursor]
            self.app.push_screen(Reader("Evidence", "\n".join([row.text, "", *evidence(row)])))

    def action_again(self) -> None:
        self.post_message(Again())
