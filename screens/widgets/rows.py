"""A list of one-line rows with a cursor: moving it repaints two lines, which a slow link likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from textual.binding import Binding
from textual.message import Message

from ddp_assist.probes.text import clean
from ddp_assist.screens.widgets.lines import Lines

CURSOR = Style(bold=True, reverse=True)


class Rows(Lines, can_focus=True):
    """Rows to choose from with the arrows. What enter does is up to the screen."""

    BINDINGS = [
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("home", "move(-999999)", "First", show=False),
        Binding("end", "move(999999)", "Last", show=False),
        Binding("pageup", "move(-10)", "Page up", show=False),
        Binding("pagedown", "move(10)", "Page down", show=False),
    ]

    @dataclass
    class Moved(Message):
        rows: Rows
        index: int

    def __init__(self, texts: Sequence[str] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cursor = 0
        self.moved = False
        """Whether the user moved the cursor; until then the screen may."""
        self.lines = tuple(one_line(text) for text in texts)

    @property
    def texts(self) -> tuple[str, ...]:
        return self.lines

    def on_resize(self) -> None:
        self._keep_in_sight()

    def on_focus(self) -> None:
        self.repaint(self.cursor)

    def on_blur(self) -> None:
        self.repaint(self.cursor)

    def text(self, place: int) -> str:
        return f"{'>' if place == self.cursor else ' '} {self.lines[place]}"

    def styled(self, place: int) -> Style:
        chosen = place == self.cursor and self.has_focus
        return self.rich_style + CURSOR if chosen else self.rich_style

    def show(self, texts: Sequence[str]) -> None:
        before = self.cursor
        self.cursor = max(0, min(self.cursor, len(texts) - 1))
        self.fill(tuple(one_line(text) for text in texts))
        if before != self.cursor:
            self._keep_in_sight()

    def start_over(self) -> None:
        """Other rows come: the cursor is nobody's choice any more."""
        self.moved, self.cursor = False, 0

    def select(self, index: int, by_hand: bool = True) -> None:
        self.moved = self.moved or by_hand
        before, self.cursor = self.cursor, max(0, min(index, len(self.lines) - 1))
        if before != self.cursor:
            self.repaint(before)
            self.repaint(self.cursor)
            self._keep_in_sight()
            self.post_message(self.Moved(self, self.cursor))

    def _keep_in_sight(self) -> None:
        top, height = self.scroll_offset.y, max(1, self.size.height)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, force=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, force=True)

    def action_move(self, by: int) -> None:
        self.select(self.cursor + by)


def one_line(text: str) -> str:
    return " ".join(clean(text).split("\n"))
