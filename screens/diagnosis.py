"""The causes, the likeliest first, with what speaks for and against each."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.app.tree import Ranked, page
from ddp_assist.screens.messages import Again, FixWanted
from ddp_assist.screens.reader import Reader
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows


class DiagnosisScreen(Framed):
    CSS_PATH = "diagnosis.tcss"
    BINDINGS = [
        Binding("enter", "fix", "Show fix"),
        Binding("e", "explain", "Explain"),
        Binding("w", "hidden", "Hidden, ruled out"),
        Binding("r", "again", "Re-check"),
        Binding("x", "app.export", "Export"),
        Binding("b,escape", "app.pop_screen", "Back"),
        Binding("question_mark", "app.help", "Help", key_display="?"),
    ]

    def head(self) -> str:
        asked = len(self.session.answered)
        return f"ddp-assist > Diagnosis   {asked} probes looked"

    def body(self) -> ComposeResult:
        yield Line("", id="answer")
        yield Rows([], id="causes")
        yield Line("", id="about")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    @property
    def causes(self) -> list[Ranked]:
        return self.session.diagnosis.causes if self.session.diagnosis else []

    def show(self) -> None:
        causes = self.causes
        self.query_one("#answer", Line).say(self._answer())
        self.query_one(Rows).show(
            [f"{r.certainty.upper():<9} {page(r.cause).title}" for r in causes[:12]]
        )
        self._about()

    def _answer(self) -> str:
        if self.session.looking:
            return "Still looking ..."
        causes = self.causes
        if not causes:
            unseen = len(self.session.diagnosis.unanswered) if self.session.diagnosis else 0
            return f"No cause was found. {unseen} questions could not be answered (w lists them)."
        if causes[0].certainty == "possible":
            return "No clear cause yet. What would decide is below."
        return f"The cause is {'' if causes[0].certainty == 'certain' else 'likely '}this:"

    def on_rows_moved(self) -> None:
        self._about()

    def on_rows_picked(self) -> None:
        self.action_fix()

    def _about(self) -> None:
        causes = self.causes
        rows = self.query_one(Rows)
        lines: list[str] = []
        if causes:
            ranked = causes[min(rows.cursor, len(causes) - 1)]
            lines = [ranked.cause, *_part("for", [f.sentence for f in ranked.speaks_for])]
            lines += _part("against", [f.sentence for f in ranked.against] or ["nothing seen"])
            lines += _part("open", ranked.would_decide)
            why = page(ranked.cause).section("Why it happens").split("\n\n")[0]
            lines += ["", why.replace("\n", " ")]
        self.query_one("#about", Line).say("\n".join(lines))

    def _chosen(self) -> Ranked | None:
        causes = self.causes
        return causes[min(self.query_one(Rows).cursor, len(causes) - 1)] if causes else None

    def action_fix(self) -> None:
        if ranked := self._chosen():
            self.post_message(FixWanted(ranked.cause))

    def action_explain(self) -> None:
        if ranked := self._chosen():
            about = page(ranked.cause)
            self.app.push_screen(Reader(about.title, about.text))

    def action_hidden(self) -> None:
        diagnosis = self.session.diagnosis
        if diagnosis is None:
            return
        lines = ["Hidden, because another cause explains them:"]
        lines += [
            f"  {r.cause}, explained by {r.hidden_by}" for r in diagnosis.ranked if r.hidden_by
        ]
        lines += ["", "Looks alarming, is not the problem:"]
        lines += [f"  {f.sentence}" for f in diagnosis.noise]
        lines += ["", "Could not be answered:"]
        lines += [f"  {f.probe}: {f.sentence}" for f in diagnosis.unanswered]
        self.app.push_screen(Reader("Hidden, noise, unanswered", "\n".join(lines)))

    def action_again(self) -> None:
        self.post_message(Again())


def _part(word: str, lines: list[str]) -> list[str]:
    return [f"  {word if n == 0 else '':<8} {line}" for n, line in enumerate(lines[:4])]
