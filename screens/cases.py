"""The saved cases, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.messages import CaseWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows

if TYPE_CHECKING:
    from ddp_assist.app.resume import Saved
    from ddp_assist.app.session import Session


class CasesScreen(Framed):
    CSS_PATH = "cases.tcss"
    BINDINGS = [
        Binding("enter", "pick", "Go on with it", key_display="enter"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]

    def __init__(self, session: Session, cases: Sequence[Saved]) -> None:
        super().__init__(session)
        self.cases = cases

    def head(self) -> str:
        return "ddp-assist > Saved cases"

    def body(self) -> ComposeResult:
        yield Line(
            "Which case goes on? The newest first." if self.cases else "No case is saved yet.",
            id="asked",
        )
        yield Rows([f"{case.when}  {case.said}" for case in self.cases], id="cases")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    def action_pick(self) -> None:
        if self.cases:
            self.post_message(CaseWanted(self.cases[self.query_one(Rows).cursor].id))
