"""The demo's first screen: recorded cases to walk through, each in a minute."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.messages import StoryWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows


class Stories(Framed):
    CSS_PATH = "stories.tcss"
    BINDINGS = [
        Binding("enter", "pick", "Walk through it", key_display="enter"),
        Binding("question_mark", "app.help", "Help"),
        Binding("q", "app.quit", "Quit"),
    ]

    def head(self) -> str:
        return "ddp-assist > Demo"

    def body(self) -> ComposeResult:
        from ddp_assist.app.demo import stories

        self.told = list(stories())
        yield Line(
            "Real failures, recorded. Nothing here looks at or changes this machine. "
            "Pick one, then let enter lead you: home, step, diagnosis, fix, report.",
            id="asked",
        )
        yield Rows([story.title for story in self.told], id="stories")
        yield Line("", id="about")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    def show(self) -> None:
        self.query_one("#about", Line).say(self.told[self.query_one(Rows).cursor].about)

    def on_rows_moved(self) -> None:
        self.show()

    def action_pick(self) -> None:
        self.post_message(StoryWanted(self.told[self.query_one(Rows).cursor].name))
