"""A list of one-line rows with a cursor: moving it repaints two lines, which a slow link likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ddp_assist.probes.text import clean


class Row(Static):
    """One line of foreign text, shown as text."""

    DEFAULT_CSS = "Row { height: 1; width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }"


class Rows(VerticalScroll):
    """Rows to choose from with arrows, j and k, or their first letter or digit."""

    DEFAULT_CSS = "Rows { height: auto; } Rows:focus .-cursor { text-style: bold reverse; }"
    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("home", "move(-9999)", "First", show=False),
        Binding("end", "move(9999)", "Last", show=False),
        Binding("pageup", "move(-10)", "Page up", show=False),
        Binding("pagedown", "move(10)", "Page down", show=False),
        Binding("enter", "pick", "Choose", show=False),
    ]

    @dataclass
    class Picked(Message):
        rows: Rows
        index: int

    @dataclass
    class Moved(Message):
        rows: Rows
        index: int

    can_focus = True

    def __init__(self, texts: Sequence[str] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.texts = list(texts)
        self.cursor = 0

    def compose(self) -> ComposeResult:
        for index, text in enumerate(self.texts):
            yield self._row(index, text)

    def _row(self, index: int, text: str) -> Row:
        row = Row(Content(self._marked(index, text)))
        row.set_class(index == self.cursor, "-cursor")
        return row

    def _marked(self, index: int, text: str) -> str:
        one_line = " ".join(clean(text).split("\n"))
        return f"{'>' if index == self.cursor else ' '} {one_line}"

    def show(self, texts: Sequence[str]) -> None:
        """New texts; only the rows that changed are painted again."""
        texts = list(texts)
        if texts == self.texts:
            return
        rows = list(self.query(Row))
        self.cursor = max(0, min(self.cursor, len(texts) - 1))
        old, self.texts = self.texts, texts
        for index, text in enumerate(texts):
            if index >= len(rows):
                self.mount(self._row(index, text))
            elif index >= len(old) or old[index] != text:
                rows[index].update(Content(self._marked(index, text)))
        for row in rows[len(texts) :]:
            row.remove()
        self._mark(self.cursor)

    def select(self, index: int) -> None:
        if not self.texts:
            return
        before, self.cursor = self.cursor, max(0, min(index, len(self.texts) - 1))
        if before != self.cursor:
            self._mark(before)
            self._mark(self.cursor)
            self.post_message(self.Moved(self, self.cursor))

    def _mark(self, index: int) -> None:
        rows = list(self.query(Row))
        if 0 <= index < min(len(rows), len(self.texts)):
            rows[index].set_class(index == self.cursor, "-cursor")
            rows[index].update(Content(self._marked(index, self.texts[index])))
            if index == self.cursor:
                self.scroll_to_widget(rows[index], animate=False)

    def action_move(self, by: int) -> None:
        self.select(self.cursor + by)

    def action_pick(self) -> None:
        if self.texts:
            self.post_message(self.Picked(self, self.cursor))
