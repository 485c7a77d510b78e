"""Lines of foreign text in a window: drawn as text, and only those that changed are drawn again."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ddp_assist.probes.text import clean

LONGEST = 4_000
"""Characters of one line that are shown; the report has them all."""
LABEL = re.compile(r" *(?:\S+(?: \S+){0,2} {2,}|[-+>*] |\d+\. )?")


def wrapped(text: str, width: int) -> Iterator[str]:
    """The text in lines of that width; what follows a label or a number stays behind it."""
    for line in text.split("\n"):
        if cell_len(line) <= width:
            yield line
            continue
        match = LABEL.match(line)
        indent = match.end() if match else 0
        indent = indent if indent <= width // 3 else 2
        start, rest = line[:indent], line[indent:]
        room = max(1, width - indent)
        while rest:
            piece = _piece(rest, room)
            yield start + piece.rstrip()
            rest = rest[len(piece) :].lstrip(" ")
            start = " " * indent


def _piece(text: str, room: int) -> str:
    """What of the text fits: whole words, or a part of one that is too long."""
    if cell_len(text) <= room:
        return text
    fits = text[:room]
    while cell_len(fits) > room:
        fits = fits[:-1]
    at = fits.rfind(" ")
    if text[len(fits)] != " " and at > room // 3:
        fits = fits[: at + 1]
    return fits or text[0]


class Lines(ScrollView):
    """Scrolls without a bar, which a slow link would pay for: a word says how much is below."""

    DEFAULT_CSS = """
    Lines { height: auto; overflow-x: hidden; overflow-y: auto; scrollbar-size: 0 0; }
    """
    lines: tuple[str, ...] = ()

    def fill(self, lines: tuple[str, ...]) -> None:
        """New lines; only those that differ are painted again."""
        old, self.lines = self.lines, lines
        if lines == old:
            return
        if len(old) != len(lines):
            self.virtual_size = Size(self.size.width, len(lines))
            self.refresh(layout=True)
            return
        for place, line in enumerate(lines):
            if line != old[place]:
                self.repaint(place)

    def repaint(self, place: int) -> None:
        y = place - self.scroll_offset.y
        self.refresh(Region(0, y, self.size.width, 1))

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self.lines))

    def styled(self, place: int) -> Style:
        return self.rich_style

    def text(self, place: int) -> str:
        return self.lines[place]

    def render_line(self, y: int) -> Strip:
        width, place = self.size.width, y + self.scroll_offset.y
        if place >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        text = self.text(place)
        if cell_len(text) > width:
            text = set_cell_size(text, max(0, width - 3)).rstrip() + "..."
        style = self.styled(place)
        below = len(self.lines) - place - 1
        if y == self.size.height - 1 and below:
            more = f"  ({below} more below)"
            text = set_cell_size(text, max(0, width - len(more))) + more
        return Strip([Segment(text, style)]).adjust_cell_length(width, self.rich_style)


def shortened(text: str) -> str:
    """Foreign text through the gate; a line that nobody reads to its end is cut, and says so."""
    return "\n".join(
        clean(line) if len(line) <= LONGEST else clean(line[:LONGEST]) + " ... (cut)"
        for line in text.split("\n")
    )


class Page(Lines, can_focus=True):
    """A text to read, wrapped to the width there is."""

    BINDINGS = [
        Binding("down", "by(1)", "Down", show=False),
        Binding("up", "by(-1)", "Up", show=False),
        Binding("pagedown,space", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("home", "by(-999999)", "First", show=False),
        Binding("end", "by(999999)", "Last", show=False),
    ]

    def __init__(self, text: str = "", *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.whole = shortened(text)

    def say(self, text: str) -> None:
        self.whole = shortened(text)
        self._wrap()

    def on_resize(self) -> None:
        self._wrap()

    def _wrap(self) -> None:
        if self.size.width:
            self.fill(tuple(wrapped(self.whole, self.size.width)))

    def action_by(self, lines: int) -> None:
        self.scroll_relative(y=lines, animate=False)
        self.refresh()

    def action_page(self, pages: int) -> None:
        self.action_by(pages * max(1, self.size.height - 1))
