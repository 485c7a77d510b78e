"""Home: what did you see? And what there is to look at."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from ddp_assist.app.tree import Symptom
from ddp_assist.screens.entry import Entry
from ddp_assist.screens.messages import Given, SymptomPicked
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows


class Home(Framed):
    CSS_PATH = "home.tcss"
    BINDINGS = [
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("p", "paste", "Paste error"),
        Binding("l", "open_log", "Log file"),
        Binding("c", "command", "Launch"),
        Binding("f", "script", "Script"),
        Binding("a", "app.everything", "Check all"),
        Binding("question_mark", "app.help", "Help", key_display="?"),
        Binding("q", "app.quit", "Quit"),
    ]

    def head(self) -> str:
        return "ddp-assist   changes nothing on this machine unless you confirm it"

    def body(self) -> ComposeResult:
        yield Line("What did you see?", id="asked")
        yield Input(placeholder="type a part of it", id="filter")
        yield Rows([self._text(n, s) for n, s in enumerate(self.matching(""))], id="symptoms")
        yield Line("", id="given")
        yield Line("", id="hint")

    def on_mount(self) -> None:
        self.query_one("#filter").display = False
        self.query_one(Rows).focus()

    def matching(self, typed: str) -> list[Symptom]:
        """Symptoms that hold every typed word, those something points at first."""
        known = [symptom for symptom, _ in self.session.recognised()]
        everyone = self.session.tree.symptoms.values()
        order = known + [symptom for symptom in everyone if symptom not in known]
        words = typed.lower().split()
        return [s for s in order if all(w in " ".join((s.title, *s.words)).lower() for w in words)]

    def _text(self, place: int, symptom: Symptom) -> str:
        return f"{(place + 1) % 10 if place < 10 else ' '}  {symptom.title}"

    def show(self) -> None:
        typed = self.query_one("#filter", Input).value
        found = self.matching(typed)
        self.query_one(Rows).show([self._text(n, s) for n, s in enumerate(found)])
        question = self.session.question
        given = [f"launch  {' '.join(question.launch)}"] if question.launch else []
        given += [f"log     {log}" for log in question.logs]
        given += [f"script  {question.script}"] if question.script else []
        if self.session.looking:
            given.append(f"looking: {len(self.session.answered)} probes have answered")
        self.query_one("#given", Line).say("\n".join(given))
        recognised = self.session.recognised()
        hint = ""
        if recognised:
            symptom, finding = recognised[0]
            hint = f"Recognised: {symptom.title}\n  because: {finding.sentence}"
        self.query_one("#hint", Line).say(hint)

    def on_rows_picked(self, event: Rows.Picked) -> None:
        found = self.matching(self.query_one("#filter", Input).value)
        if event.index < len(found):
            self.post_message(SymptomPicked(found[event.index]))

    def on_key(self, event: object) -> None:
        character = getattr(event, "character", None)
        if character and character.isdigit() and self.query_one(Rows).has_focus:
            place = (int(character) - 1) % 10
            found = self.matching(self.query_one("#filter", Input).value)
            if place < len(found):
                self.post_message(SymptomPicked(found[place]))

    def action_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.display = True
        box.focus()

    def on_input_changed(self) -> None:
        self.show()

    def on_input_submitted(self) -> None:
        self.query_one(Rows).focus()

    def _ask(self, kind: str, title: str, note: str) -> None:
        def answered(text: str | None) -> None:
            if text:
                self.post_message(Given(kind, text))  # type: ignore[arg-type]

        self.app.push_screen(Entry(title, note, lines=kind == "paste"), answered)

    def action_paste(self) -> None:
        self._ask("paste", "Paste the error", "ctrl+s looks at it, escape leaves")

    def action_open_log(self) -> None:
        self._ask("log", "Open a log", "a file, or a folder of rank logs; enter opens it")

    def action_command(self) -> None:
        self._ask("launch", "The launch command", "as you type it in the shell; enter looks at it")

    def action_script(self) -> None:
        self._ask("script", "The training script", "a .py file; it is read, never run")
