"""One step of the walk: a question, its probes as live rows, what they point to."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.app.session import RowView
from ddp_assist.screens.messages import Again, Went
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows


def told(row: RowView) -> str:
    seconds = f"  {row.seconds:.1f} s" if row.seconds and row.seconds >= 0.05 else ""
    return f"{row.mark:<5}{row.text}{seconds}"


class StepScreen(Framed):
    CSS_PATH = "step.tcss"
    BINDINGS = [
        Binding("enter", "next", "Next", show=True),
        Binding("tab", "app.focus_next", "Rows/ways", show=True),
        Binding("r", "again", "Re-run"),
        Binding("v", "raw", "Raw"),
        Binding("m", "app.map", "Map"),
        Binding("b,escape", "back", "Back"),
        Binding("d", "app.diagnosis", "Diagnosis"),
        Binding("question_mark", "app.help", "Help", key_display="?"),
    ]

    def head(self) -> str:
        symptom = self.session.question.symptom
        title = self.session.tree.symptoms[symptom].title if symptom else "check everything"
        return f"ddp-assist > {title}"

    def body(self) -> ComposeResult:
        yield Line("", id="path")
        yield Line("", id="question")
        yield Rows([], id="probes")
        yield Line("", id="evidence")
        yield Line("Where this leads (enter takes the marked way):", id="leads")
        yield Rows([], id="ways")

    def on_mount(self) -> None:
        self.query_one("#ways", Rows).focus()

    def show(self) -> None:
        step = self.session.step
        if step is None:
            return
        place = len(self.session.trail)
        self.query_one("#path", Line).say(
            "Path  start" + "".join(f" > {s}" for s in self.session.trail)
        )
        self.query_one("#question", Line).say(f"Step {place}.  {step.question}")
        self.rows = self.session.rows(step.probes)
        self.query_one("#probes", Rows).show([told(row) for row in self.rows])
        choices = self.session.choices(step)
        pointed = self.session.pointed_at(step)
        texts = [
            f"{'*' if place < pointed else ' '} {choice.label}"
            for place, choice in enumerate(choices)
        ]
        self.query_one("#ways", Rows).show(texts)
        self._evidence()

    def _evidence(self) -> None:
        rows = self.query_one("#probes", Rows)
        if not self.rows:
            self.query_one("#evidence", Line).say("")
            return
        row = self.rows[min(rows.cursor, len(self.rows) - 1)]
        self.query_one("#evidence", Line).say("\n".join(evidence(row)[:4]))

    def on_rows_moved(self, event: Rows.Moved) -> None:
        if event.rows.id == "probes":
            self._evidence()

    def on_rows_picked(self, event: Rows.Picked) -> None:
        if event.rows.id == "ways":
            self._go(event.index)
        else:
            self.action_raw()

    def _go(self, index: int) -> None:
        step = self.session.step
        choices = self.session.choices(step) if step else []
        if index < len(choices):
            self.post_message(Went(choices[index].to))

    def action_next(self) -> None:
        self._go(self.query_one("#ways", Rows).cursor)

    def action_again(self) -> None:
        self.post_message(Again())

    def action_raw(self) -> None:
        rows = self.query_one("#probes", Rows)
        if self.rows:
            from ddp_assist.screens.reader import Reader

            row = self.rows[min(rows.cursor, len(self.rows) - 1)]
            self.app.push_screen(Reader("Evidence", "\n".join([row.text, "", *evidence(row)])))

    def action_back(self) -> None:
        if self.session.back():
            self.show()
        else:
            self.app.pop_screen()


def evidence(row: RowView) -> list[str]:
    if row.finding is None:
        return []
    lines: list[str] = []
    for seen in row.finding.evidence:
        lines.append(f"from {seen.source}")
        lines += [f"  {line}" for line in seen.lines]
        if seen.see:
            lines.append(f"to see it yourself:  {' '.join(seen.see)}")
    return lines
