"""What every screen has: where you are on the first line, a rule, and the keys on the last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import ScrollableContainer
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Input, Static

from ddp_assist.probes.text import clean

if TYPE_CHECKING:
    from ddp_assist.app.session import Session

NAMES = {"question_mark": "?", "slash": "/", "colon": ":", "escape": "esc", "full_stop": "."}
UNSAID = {
    "",
    "Up",
    "Down",
    "First",
    "Last",
    "Page up",
    "Page down",
    *(
        entry.description
        for entry in (*Screen.BINDINGS, *ScrollableContainer.BINDINGS)
        if isinstance(entry, Binding)
    ),
}
"""Textual's own words, and the arrows, which help tells of once."""
LAST = ("?", "q", "b")
"""Keys whose entries are never left out for want of room: the ways out, and the way to the rest."""


def plain(text: str) -> Content:
    """Foreign text as text: cleaned, and never read as markup."""
    return Content("\n".join(clean(line) for line in text.split("\n")))


class Line(Static):
    """Text without markup."""

    def __init__(
        self, text: str = "", *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(plain(text), id=id, classes=classes, markup=False)
        self.said = text

    def say(self, text: str) -> None:
        if text != self.said:
            self.said = text
            self.update(plain(text))


class Rule(Widget):
    """A line across, in characters that every terminal has."""

    DEFAULT_CSS = "Rule { height: 1; width: 1fr; color: $text-muted; }"

    def render(self) -> Content:
        return Content("-" * self.size.width)


class Keys(Widget):
    """The keys that do something now, in words; whole entries only."""

    DEFAULT_CSS = "Keys { dock: bottom; height: 1; width: 1fr; padding: 0 1; }"

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, _: Screen[Any]) -> None:
        if self.is_attached:
            self.refresh()

    def render(self) -> Content:
        entries = list(keys(self.screen))
        most = max(1, self.size.width)
        while len(entries) > 1 and len("  ".join(" ".join(e) for e in entries)) > most:
            spare = [n for n, (key, _) in enumerate(entries) if n and key not in LAST]
            entries.pop(spare[-1] if spare else -1)
        return Content("  ").join(
            Content.assemble((key, "bold"), " ", word) for key, word in entries
        )


def keys(screen: Screen[Any], hidden: bool = False) -> Iterator[tuple[str, str]]:
    """Key and word of what can be done here, what comes next first; Textual's own are left out."""
    seen: set[tuple[str, str]] = set()
    for active in sorted(screen.active_bindings.values(), key=lambda a: a.binding.key != "enter"):
        binding = active.binding
        if not active.enabled or not (binding.show or hidden) or binding.description in UNSAID:
            continue
        entry = (binding.key_display or NAMES.get(binding.key, binding.key), binding.description)
        if entry[1] not in {word for _, word in seen}:
            seen.add(entry)
            yield entry


def sides(left: str, right: str, width: int) -> str:
    """Both on one line when they fit, else the left one alone."""
    gap = width - cell_len(left) - cell_len(right)
    return left + " " * gap + right if gap >= 2 else left


class Box(Input):
    """A box for one line; what enter does is said below it."""

    BINDINGS = [Binding("enter", "submit", "Take it", key_display="enter")]

    def __init__(self, value: str = "", *, placeholder: str = "", id: str) -> None:
        super().__init__(value, placeholder=placeholder, id=id, compact=True)


class Head(Widget):
    """Where you are, and at the right what always holds."""

    DEFAULT_CSS = "Head { height: 1; width: 1fr; padding: 0 1; }"

    def __init__(self, left: str, right: str) -> None:
        super().__init__()
        self.left, self.right = left, right

    def say(self, left: str) -> None:
        if left != self.left:
            self.left = left
            self.refresh()

    def render(self) -> Content:
        return plain(sides(self.left, self.right, self.size.width))


class Framed(Screen[None]):
    """A screen that shows a session; `show` is called whenever the session changed."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]
    AUTO_FOCUS = ""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        yield Head(self.head(), self.session.standing)
        yield Rule()
        yield from self.body()
        yield Keys()

    def head(self) -> str:
        raise NotImplementedError

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def show(self) -> None:
        """Brings the screen up to what is known now."""

    def on_resize(self) -> None:
        """What is cut or wrapped depends on the width that the layout gives."""
        self.call_after_refresh(self._again)

    def _again(self) -> None:
        if self.is_attached and self.is_running:
            self.show()

    def on_screen_resume(self) -> None:
        self.query_one(Head).say(self.head())
        self.show()


class Dialog(ModalScreen[Any]):
    """A page of its own above a screen; escape leaves it."""

    DEFAULT_CSS = (
        "Dialog { background: $background; } Dialog #title { text-style: bold; margin: 0 1 1 1; }"
    )
