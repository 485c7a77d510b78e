"""A numbered list that only a person can choose from; with `filtered`, by typing a part too."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Key
from textual.widgets import Input

from ddp_assist.screens.widgets.frame import Box, Dialog, Keys, Line
from ddp_assist.screens.widgets.rows import Rows


class Choose(Dialog):
    """Gives back the first part of the chosen pair, or None."""

    CSS_PATH = "choose.tcss"
    BINDINGS = [
        Binding("enter", "pick", "Choose", key_display="enter", priority=True),
        Binding("up", "move(-1)", "Up", show=False, priority=True),
        Binding("down", "move(1)", "Down", show=False, priority=True),
        Binding("escape", "leave", "Back", key_display="esc"),
    ]

    def __init__(
        self, asked: str, options: Sequence[tuple[str, str]], filtered: bool = False
    ) -> None:
        super().__init__()
        self.asked, self.options, self.filtered = asked, list(options), filtered
        self.left = self.options

    def compose(self) -> ComposeResult:
        yield Line(self.asked, id="title")
        if self.filtered:
            yield Box(id="part")
        yield Rows(self._texts(), id="options")
        yield Keys()

    def on_mount(self) -> None:
        self.query_one(Input if self.filtered else Rows).focus()

    def _texts(self) -> list[str]:
        if self.filtered:
            return [label for _, label in self.left]
        return [f"{number}  {label}" for number, (_, label) in enumerate(self.left, 1)]

    def on_input_changed(self, event: Input.Changed) -> None:
        words = event.value.lower().split()
        self.left = [o for o in self.options if all(w in o[1].lower() for w in words)]
        rows = self.query_one(Rows)
        rows.show(self._texts())
        rows.select(0)

    def on_key(self, event: Key) -> None:
        number = event.character or ""
        if not self.filtered and number.isdigit() and 0 < int(number) <= len(self.left):
            self.dismiss(self.left[int(number) - 1][0])

    def action_move(self, by: int) -> None:
        rows = self.query_one(Rows)
        rows.select(rows.cursor + by)

    def action_pick(self) -> None:
        if self.left:
            self.dismiss(self.left[self.query_one(Rows).cursor][0])

    def action_leave(self) -> None:
        self.dismiss(None)
