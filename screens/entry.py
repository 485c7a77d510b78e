"""A box for one line, or for a pasted log."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.events import Key, Paste
from textual.widgets import Input

from ddp_assist.screens.widgets.frame import Box, Dialog, Keys, Line

MOST = 8_000_000


ENTRIES = {
    "paste": ("Paste the error", "Paste it now. ctrl+s looks at it, escape leaves."),
    "log": ("Open a log", "A file, or a folder of rank logs; enter opens it."),
    "launch": (
        "The launch command",
        "As you type it in the shell, variables in front too; enter looks at it.",
    ),
    "script": ("The training script", "A .py file; it is read, never run."),
    "nodes": (
        "Which nodes?",
        "As in node[01-04] or gpu1,gpu2; empty takes those the launch or Slurm names.",
    ),
}


def entry(kind: str, text: str = "") -> Entry:
    title, note = ENTRIES[kind]
    return Entry(title, note, lines=kind == "paste", may_be_empty=kind == "nodes", text=text)


class Entry(Dialog):
    """Gives back what was typed or pasted, or None. A paste is kept whole and shown as a count."""

    CSS_PATH = "entry.tcss"
    BINDINGS = [
        Binding("ctrl+s", "done", "Look at it"),
        Binding("escape", "leave", "Leave"),
    ]

    def __init__(
        self, title: str, note: str, lines: bool, may_be_empty: bool = False, text: str = ""
    ) -> None:
        super().__init__()
        self.heading, self.note, self.lines = title, note, lines
        self.may_be_empty = may_be_empty
        self.pasted = [text[:MOST]]
        self.size_so_far = len(self.pasted[0])

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.lines or action != "done"

    def compose(self) -> ComposeResult:
        yield Line(self.heading, id="title")
        yield Line(self.note, id="note")
        if self.lines:
            yield Line("", id="count")
            yield Line("", id="last")
        else:
            yield Box(id="line")
        yield Keys()

    def on_mount(self) -> None:
        if self.lines:
            self._count()

    def on_paste(self, event: Paste) -> None:
        if self.lines:
            self._take(event.text)
            event.stop()

    def on_key(self, event: Key) -> None:
        """What is typed counts too, without a repaint for each key."""
        if not self.lines or event.key in ("escape", "ctrl+s"):
            return
        text = "\n" if event.key == "enter" else event.character or ""
        if text and self.size_so_far < MOST:
            self.pasted.append(text)
            self.size_so_far += len(text)
            if text == "\n":
                self.call_later(self._count)
        event.stop()

    def _take(self, text: str) -> None:
        room = MOST - self.size_so_far
        self.pasted.append(text[:room])
        self.size_so_far += min(len(text), room)
        self._count()

    def _count(self) -> None:
        text = "".join(self.pasted)
        self.pasted = [text]
        lines = text.count("\n") + bool(text and not text.endswith("\n"))
        full = "; the rest was cut, open the file with l instead" if len(text) >= MOST else ""
        self.query_one("#count", Line).say(f"{lines} lines, {len(text)} characters{full}")
        tail = text.rstrip().splitlines()[-3:]
        self.query_one("#last", Line).say("\n".join(line[:160] for line in tail))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        self.dismiss(text if text or self.may_be_empty else None)

    def action_done(self) -> None:
        self.dismiss("".join(self.pasted) if self.lines else self.query_one(Input).value)

    def action_leave(self) -> None:
        self.dismiss(None)
