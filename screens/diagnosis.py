"""The causes, the likeliest first, with what speaks for and against each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.app.tree import page
from ddp_assist.screens.messages import Again, FixWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.lines import Page
from ddp_assist.screens.widgets.rows import Rows

if TYPE_CHECKING:
    from ddp_assist.app.session import Session
    from ddp_assist.app.walk import Ranked

SHOWN = 12
SENTENCES = 4
TITLE = 66
"""So much of a title the list has room for at 80 columns."""


class DiagnosisScreen(Framed):
    CSS_PATH = "diagnosis.tcss"
    BINDINGS = [
        Binding("enter", "fix", "Show the fix", key_display="enter"),
        Binding("e", "explain", "Explain"),
        Binding("w", "hidden", "Why not others"),
        Binding("r", "again", "Look again"),
        Binding("x", "app.export", "Report"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]

    def __init__(self, session: Session, cause: str | None = None) -> None:
        super().__init__(session)
        self.wanted = cause
        self.causes: list[Ranked] = []

    def head(self) -> str:
        return f"ddp-assist > Diagnosis   ({len(self.session.answered)} probes looked)"

    def body(self) -> ComposeResult:
        yield Line("", id="answer")
        yield Rows(id="causes")
        yield Page(id="about")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What is offered is what is shown: the app may know more already."""
        return action != "fix" or (self.session.diagnosis is not None and bool(self.causes))

    def show(self) -> None:
        self.causes = list(self.session.causes)
        self.refresh_bindings()
        named = {ranked.cause for ranked in self.causes}
        if self.wanted and self.wanted not in named and self.session.diagnosis is not None:
            self._other(self.wanted)
            self.wanted = None
        rows = self.query_one(Rows)
        rows.show([f"{r.certainty.upper():<9} {page(r.cause).title}" for r in self.causes[:SHOWN]])
        if not rows.moved:
            rows.select(self._first(), by_hand=False)
        self.query_one("#answer", Line).say(self._answer())
        self._about()

    def _first(self) -> int:
        """The cause that the walk led to; without one, the first that is certain."""
        for place, ranked in enumerate(self.causes[:SHOWN]):
            if ranked.cause == self.wanted or (not self.wanted and ranked.certainty == "certain"):
                return place
        return 0

    def _other(self, cause: str) -> None:
        """A cause the user chose and nothing speaks for: its page is what there is."""
        from ddp_assist.screens.reader import Reader

        about = page(cause)
        text = f"Nothing seen here speaks for this cause. This is its page.\n\n{about.text}"
        self.app.push_screen(Reader(about.title, text))

    def _answer(self) -> str:
        if self.session.looking:
            return f"Still looking: {self.session.doing} ..."
        if not self.causes:
            unseen = len(self.session.diagnosis.unanswered) if self.session.diagnosis else 0
            return f"No cause was found. {unseen} questions could not be answered (w lists them)."
        if self.causes[0].certainty == "possible":
            return "No clear cause yet. What would decide it is below."
        return f"The cause is {'' if self.causes[0].certainty == 'certain' else 'likely '}this:"

    def on_rows_moved(self) -> None:
        self._about()

    def _chosen(self) -> Ranked | None:
        place = self.query_one(Rows).cursor
        return self.causes[place] if place < len(self.causes) else None

    def _about(self) -> None:
        ranked = self._chosen()
        lines: list[str] = []
        if ranked is not None:
            why = page(ranked.cause).section("Why it happens").split("\n\n")[0]
            title = page(ranked.cause).title
            lines = [title, ""] if len(title) > TITLE else []
            lines += [*_part("for", [f.sentence for f in ranked.speaks_for])]
            lines += _part("against", [f.sentence for f in ranked.against] or ["nothing seen"])
            lines += _part("open", ranked.would_decide)
            lines += ["", f"why      {' '.join(why.split())}", ""]
            lines += self._fix(ranked)
        elif not self.session.looking:
            lines = [
                "r looks again, w lists what could not be answered, x writes what was seen.",
                "A log, the launch command or the job's pid makes more probes able to look.",
            ]
        self.query_one("#about", Page).say("\n".join(lines))

    def _fix(self, ranked: Ranked) -> list[str]:
        """What enter leads to, where it is known already."""
        fix = next((f for f in self.session.fixes if f.cause == ranked.cause), None)
        if fix is None:
            return []
        command = fix.launch.text.strip() if fix.launch else ""
        shown = [f"         {command}"] if command and "\n" not in command else []
        return [f"fix      {fix.title}", *shown]

    def action_fix(self) -> None:
        if ranked := self._chosen():
            self.post_message(FixWanted(ranked.cause))

    def action_explain(self) -> None:
        from ddp_assist.screens.reader import Reader

        if ranked := self._chosen():
            about = page(ranked.cause)
            self.app.push_screen(Reader(about.title, about.text))

    def action_hidden(self) -> None:
        from ddp_assist.screens.reader import Reader

        if self.session.diagnosis is not None:
            text = "\n".join(self._hidden())
            self.app.push_screen(Reader("Explained by others, ruled out, not answered", text))

    def _hidden(self) -> Iterator[str]:
        diagnosis = self.session.diagnosis
        assert diagnosis is not None
        yield "Left out, because another cause explains them:"
        for ranked in diagnosis.ranked:
            if ranked.hidden_by:
                yield f"  {page(ranked.cause).title}"
                yield f"      explained by {ranked.hidden_by}"
        yield "\nSpoken against:"
        for ranked in diagnosis.ranked:
            if ranked.against:
                yield f"  {page(ranked.cause).title}"
                yield f"      {ranked.against[0].sentence}"
        yield "\nLooks alarming, is not the problem:"
        yield from (f"  {f.sentence}" for f in diagnosis.noise)
        yield "\nCould not be answered:"
        yield from (f"  {f.probe}: {f.sentence}" for f in diagnosis.unanswered)

    def action_again(self) -> None:
        self.post_message(Again())


def _part(word: str, lines: list[str]) -> list[str]:
    shown = [f"{word if n == 0 else '':<8} {line}" for n, line in enumerate(lines[:SENTENCES])]
    more = len(lines) - SENTENCES
    return [*shown, f"{'':<8} and {more} more"] if more > 0 else shown
