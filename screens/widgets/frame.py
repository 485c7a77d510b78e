"""What every screen has: where you are on the first line, a rule, and the keys on the last."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from ddp_assist.app.session import Session
from ddp_assist.probes.text import clean


def plain(text: str) -> Content:
    """Foreign text as text: cleaned, and never read as markup."""
    return Content("\n".join(clean(line) for line in text.split("\n")))


class Line(Static):
    """Text without markup."""

    def __init__(
        self, text: str = "", *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(plain(text), id=id, classes=classes, markup=False)

    def say(self, text: str) -> None:
        self.update(plain(text))


class Framed(Screen[None]):
    """A screen that shows a session; `show` is called whenever the session changed."""

    title_text = ""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def compose(self) -> ComposeResult:
        yield Line(self.head(), id="head")
        yield Line("-" * 250, id="rule", classes="rule")
        yield from self.body()
        yield Footer(compact=True, show_command_palette=False)

    def head(self) -> str:
        return f"ddp-assist > {self.title_text}"

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def show(self) -> None:
        """Brings the screen up to what is known now."""

    def on_screen_resume(self) -> None:
        self.show()
