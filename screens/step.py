"""One step of the walk: a question, its probes as live rows, what they point to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Key

from ddp_assist.app.session import RowView
from ddp_assist.screens.messages import Again, Went
from ddp_assist.screens.widgets.frame import Framed, Line, sides
from ddp_assist.screens.widgets.lines import Page
from ddp_assist.screens.widgets.rows import Rows

if TYPE_CHECKING:
    from ddp_assist.app.session import Choice


def told(row: RowView, width: int) -> str:
    """Word, fact, seconds; the seconds at the right where there is room."""
    took = f"{row.seconds:.1f} s" if row.seconds and row.seconds >= 0.05 else ""
    return sides(f"{row.mark:<5}{row.text}", took, width - 2)


class StepScreen(Framed):
    CSS_PATH = "step.tcss"
    BINDINGS = [
        Binding("enter", "next", "Go on", key_display="enter"),
        Binding("tab", "app.focus_next", "Rows/ways"),
        Binding("v", "raw", "Evidence"),
        Binding("r", "again", "Re-run"),
        Binding("s", "skip", "Skip"),
        Binding("m", "app.map", "Tree"),
        Binding("d", "app.diagnosis", "Diagnosis"),
        Binding("b,escape", "back", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]

    def head(self) -> str:
        symptom = self.session.question.symptom
        return f"ddp-assist > {self.session.symptoms[symptom].title if symptom else 'walk'}"

    def body(self) -> ComposeResult:
        yield Line("", id="path")
        yield Line("", id="question")
        with Vertical(id="both"):
            yield Rows(id="probes")
            yield Page(id="evidence")
        yield Line("", id="leads")
        yield Rows(id="ways")

    def on_mount(self) -> None:
        self.query_one("#evidence").can_focus = False
        self.query_one("#ways", Rows).focus()

    def show(self) -> None:
        step = self.session.step
        if step is None:
            return
        trail = [self.session.tree.steps[name].question for name in self.session.trail]
        self.query_one("#path", Line).say("Path  " + " > ".join(["start", *trail[:-1], "here"]))
        self.query_one("#question", Line).say(f"Step {len(trail)}.  {step.question}")
        rows = self.query_one("#probes", Rows)
        self.rows = self.session.rows(step.probes)
        rows.show([told(row, rows.size.width) for row in self.rows])
        if not rows.moved:
            bad = next((n for n, row in enumerate(self.rows) if row.mark == "BAD"), 0)
            rows.select(bad, by_hand=False)
        self.choices = self.session.choices(step)
        ways = self.query_one("#ways", Rows)
        ways.show([_way(n, choice) for n, choice in enumerate(self.choices, 1)])
        if not ways.moved:
            ways.select(0, by_hand=False)
        self.query_one("#leads", Line).say(self._leads())
        self._evidence()

    def _leads(self) -> str:
        pointed = sum(1 for choice in self.choices if choice.seen)
        if pointed:
            return "Seen, so this is the way (enter takes it; arrows or a number override):"
        if self.session.looking:
            return "Still looking. You can answer yourself (arrows or a number):"
        if self._is_certain():
            return "Nothing decides it here, but elsewhere a cause is certain (enter shows it):"
        return "Nothing seen decides it. The usual order (enter takes the first):"

    def _is_certain(self) -> bool:
        return any(ranked.certainty == "certain" for ranked in self.session.causes)

    def _evidence(self) -> None:
        rows = self.query_one("#probes", Rows)
        lines: list[str] = []
        if self.rows:
            row = self.rows[min(rows.cursor, len(self.rows) - 1)]
            is_cut = cell_len(told(row, 0)) > rows.size.width - 2
            lines = [*([row.text] if is_cut else []), *evidence(row)]
        self.query_one("#evidence", Page).say("\n".join(lines))

    def on_rows_moved(self, event: Rows.Moved) -> None:
        if event.rows.id == "probes":
            self._evidence()

    def on_key(self, event: Key) -> None:
        number = event.character or ""
        if number.isdigit() and 0 < int(number) <= len(self.choices):
            self._go(int(number) - 1)

    def _go(self, index: int) -> None:
        if index < len(self.choices):
            for rows in self.query(Rows):
                rows.start_over()
            self.post_message(Went(self.choices[index].to))

    def action_next(self) -> None:
        """The marked way; where it is only the usual one, what was seen for certain goes first."""
        ways = self.query_one("#ways", Rows)
        guessed = not ways.moved and not any(choice.seen for choice in self.choices)
        if guessed and self._is_certain():
            self.call_later(self.run_action, "app.diagnosis")
        else:
            self._go(ways.cursor)

    def action_skip(self) -> None:
        """Past this question: the next one below it, or what is known so far."""
        below = next((c for c in self.choices if c.to.is_step), None)
        if below is not None:
            self._go(self.choices.index(below))
        else:
            self.call_later(self.run_action, "app.diagnosis")

    def action_again(self) -> None:
        self.post_message(Again())

    def action_raw(self) -> None:
        from ddp_assist.screens.reader import Reader

        if self.rows:
            row = self.rows[min(self.query_one("#probes", Rows).cursor, len(self.rows) - 1)]
            self.app.push_screen(Reader("Evidence", "\n".join([row.text, "", *evidence(row)])))

    def action_back(self) -> None:
        if self.session.back():
            for rows in self.query(Rows):
                rows.start_over()
            self.show()
        else:
            self.app.pop_screen()


def _way(number: int, choice: Choice) -> str:
    shown = str(number) if number < 10 else " "
    kind = "next question: " if choice.to.is_step else ""
    return f"{shown} {'seen' if choice.seen else '    '} {kind}{choice.label}"


def evidence(row: RowView) -> list[str]:
    """Where it was seen, the lines, and how to see it yourself."""
    if row.finding is None:
        return []
    lines: list[str] = []
    for seen in row.finding.evidence:
        lines.append(f"from     {seen.source}")
        lines += [f"  {line}" for line in seen.lines]
        if seen.see:
            lines.append(f"to see it yourself:  {' '.join(seen.see)}")
    return lines
