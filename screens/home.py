"""Home: what did you see? And what there is to look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Key, Paste

from ddp_assist.screens.messages import Given, SymptomPicked
from ddp_assist.screens.widgets.frame import Box, Framed, Line
from ddp_assist.screens.widgets.lines import Page
from ddp_assist.screens.widgets.rows import Rows

if TYPE_CHECKING:
    from ddp_assist.app.tree import Symptom

JOBS = 3
"""Live jobs that stand on the first screen; all are on the screen behind j."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to start from: a symptom, a live job, or everything."""

    label: str = field(compare=False)
    symptom: Symptom | None = None
    job: str | None = None


class Home(Framed):
    CSS_PATH = "home.tcss"
    rows: list[Row]
    BINDINGS = [
        Binding("enter", "start", "Start", key_display="enter"),
        Binding("slash", "filter", "Filter"),
        Binding("p", "give('paste')", "Paste"),
        Binding("l", "give('log')", "Log"),
        Binding("c", "give('launch')", "Command"),
        Binding("f", "give('script')", "Script", show=False),
        Binding("a", "app.everything", "Check all", show=False),
        Binding("j", "app.jobs", "Jobs", show=False),
        Binding("o", "app.cases", "Cases"),
        Binding("t", "app.trial", "Trial here", show=False),
        Binding("h", "app.hosts", "Hosts", show=False),
        Binding("r", "again", "Look again", show=False),
        Binding("up", "move(-1)", "Up", show=False),
        Binding("down", "move(1)", "Down", show=False),
        Binding("escape", "all", "All symptoms", key_display="esc"),
        Binding("question_mark", "app.help", "More"),
        Binding("q", "app.quit", "Quit"),
    ]

    def head(self) -> str:
        return "ddp-assist" + (f" > {self.session.recorded}" if self.session.recorded else "")

    def body(self) -> ComposeResult:
        yield Line("What did you see?", id="asked")
        box = Box(placeholder="type a part of it", id="filter")
        box.display = False
        yield box
        yield Rows([row.label for row in self._rows()], id="symptoms")
        yield Page(id="given")

    def on_mount(self) -> None:
        self.query_one("#given").can_focus = False
        self.query_one(Rows).focus()

    def _rows(self, typed: str = "") -> list[Row]:
        """Live jobs, what something points at, what most people see, and then the others."""
        known = [symptom for symptom, _ in self.session.recognised()]
        everyone = list(self.session.symptoms.values())
        common = sorted((s for s in everyone if s.often), key=lambda s: s.often)
        order = list(dict.fromkeys([*known, *common, *everyone]))
        words = typed.lower().split()
        found = [s for s in order if all(w in " ".join((s.title, *s.words)).lower() for w in words)]
        rows = [Row(f"{n}  {s.title}", s) for n, s in enumerate(found[:9], 1)]
        rows += [Row("0  Not sure: check everything here")] if not words else []
        rows += [Row(f"   {s.title}", s) for s in found[9:]]
        jobs = [] if words or not self.session.question.is_empty else self.session.jobs or []
        return [*map(_alive, jobs[:JOBS]), *rows]

    def show(self) -> None:
        """Rows may move while the user looks at them; the one he picked stays picked."""
        rows = self.query_one(Rows)
        picked = self.rows[rows.cursor] if rows.moved and self.rows else None
        self.rows = self._rows(self.query_one("#filter", Box).value)
        rows.show([row.label for row in self.rows])
        rows.select(self.rows.index(picked) if picked in self.rows else 0, by_hand=False)
        self.query_one("#asked", Line).say(self._question())
        self.query_one("#given", Page).say("\n".join(self._given()))

    def _question(self) -> str:
        if self.session.recognised():
            return "What did you see? The first one was recognised, see below."
        if any(row.job for row in self.rows):
            return "What did you see? Or which of these jobs is it?"
        return "What did you see?"

    def _given(self) -> list[str]:
        question, session = self.session.question, self.session
        lines = [f"launch  {' '.join(question.launch)}"] if question.launch else []
        lines += [f"job     pid {question.job}"] if question.job else []
        lines += [f"log     {log}" for log in question.logs]
        lines += [f"script  {question.script}"] if question.script else []
        if session.looking:
            lines.append(f"looking {session.doing}")
        recognised = session.recognised()
        if recognised:
            symptom, finding = recognised[0]
            said = [f"recognised  {symptom.title}", f"because     {finding.sentence}"]
            lines = [*said, "", *lines]
        elif session.diagnosis is not None and not question.is_empty:
            lines += [
                "",
                "Nothing was recognised in it. Pick what you saw, or 0 checks everything.",
            ]
        elif not lines:
            lines = [
                "Pick a line, or type its number. Or: p pastes the error, l opens a log,",
                "c takes the launch command, j shows jobs alive here, h asks other hosts.",
            ]
        return lines

    def on_key(self, event: Key) -> None:
        if event.character and event.character.isdigit() and self.query_one(Rows).has_focus:
            place = next(
                (n for n, r in enumerate(self.rows) if r.label[0] == event.character), None
            )
            if place is not None:
                self._start(self.rows[place])

    def action_start(self) -> None:
        if self.rows:
            self._start(self.rows[self.query_one(Rows).cursor])

    def _start(self, row: Row) -> None:
        if row.job is not None:
            self.post_message(Given("job", row.job))
        elif row.symptom is not None:
            self.post_message(SymptomPicked(row.symptom))
        else:
            self.call_later(self.run_action, "app.everything")

    def action_again(self) -> None:
        from ddp_assist.screens.messages import Again

        self.post_message(Again())

    def action_filter(self) -> None:
        box = self.query_one("#filter", Box)
        box.display = True
        box.focus()
        self.refresh_bindings()

    def action_all(self) -> None:
        """Ends the filter."""
        box = self.query_one("#filter", Box)
        box.value, box.display = "", False
        self.query_one(Rows).focus()
        self.refresh_bindings()

    def on_input_changed(self) -> None:
        self.show()

    def on_input_submitted(self) -> None:
        self.action_start()

    def action_move(self, by: int) -> None:
        """The arrows reach the list from the box too."""
        rows = self.query_one(Rows)
        rows.select(rows.cursor + by)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "all" or self.query_one("#filter").display

    def on_paste(self, event: Paste) -> None:
        """An error pasted here is taken as if p had been pressed before."""
        self.action_give("paste", event.text)

    def action_give(self, kind: str, pasted: str = "") -> None:
        from ddp_assist.screens.entry import entry

        def answered(text: str | None) -> None:
            if text:
                self.post_message(Given(kind, text))  # type: ignore[arg-type]

        self.app.push_screen(entry(kind, pasted), answered)


def _alive(job: dict[str, object]) -> Row:
    from ddp_assist.screens.jobs import job_line

    return Row(f"*  Alive here: {job_line(job)}", job=str(job["id"]))
