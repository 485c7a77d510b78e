"""A fix: before and after, what it changes, and the badge it earned here."""

from __future__ import annotations

import difflib

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll

from ddp_assist.app.fixes.model import Fix
from ddp_assist.screens.confirm import Confirm
from ddp_assist.screens.messages import CopyWanted, EndWanted, TrialWanted
from ddp_assist.screens.widgets.frame import Framed, Line

CHANGES = {
    "command": "nothing on this machine; you run the new command yourself",
    "edit": "nothing of yours; corrected copies are written where you export them",
    "ends-process": "ENDS A PROCESS, after you confirm it",
    "system": "the system or its settings; you do it yourself",
}


class FixScreen(Framed):
    CSS_PATH = "fix.tcss"
    BINDINGS = [
        Binding("t", "try_it", "Try it"),
        Binding("y", "copy", "Copy"),
        Binding("n", "next", "Next fix"),
        Binding("k", "end", "End process"),
        Binding("x", "app.export", "Export"),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("b,escape", "app.pop_screen", "Back"),
        Binding("question_mark", "app.help", "Help", key_display="?"),
    ]
    place = 0
    trying = False

    def head(self) -> str:
        return "ddp-assist > Fix"

    def body(self) -> ComposeResult:
        yield Line("", id="title")
        yield Line("", id="badge")
        with VerticalScroll(id="page"):
            yield Line("", id="text")

    @property
    def fix(self) -> Fix | None:
        fixes = self.session.fixes
        return fixes[self.place % len(fixes)] if fixes else None

    def show(self) -> None:
        fix = self.fix
        if fix is None:
            self.query_one("#title", Line).say("No fix is known for this cause.")
            return
        count = len(self.session.fixes)
        self.query_one("#title", Line).say(f"Fix {self.place % count + 1} of {count}: {fix.title}")
        badge = "being tried now ..." if self.trying else fix.badge.replace("-", " ")
        self.query_one("#badge", Line).say(
            f"Changes  {CHANGES[fix.safety]}\nBadge    [ {badge} ]  {fix.why}"
        )
        self.query_one("#text", Line).say("\n".join(self._text(fix)))

    def _text(self, fix: Fix) -> list[str]:
        lines: list[str] = []
        target = self.session.diagnosis.target if self.session.diagnosis else None
        before = target.launch.text if target and target.launch else ""
        if fix.launch is not None and fix.launch.text != before:
            lines += ["launch", *_diff(before, fix.launch.text)]
        for edit in fix.files:
            lines += ["", *edit.diff.splitlines()]
        if fix.steps:
            lines += ["", *(f"{n}. {step}" for n, step in enumerate(fix.steps, 1))]
        if fix.does_not:
            lines += ["", f"Does not fix: {fix.does_not}"]
        return lines

    def action_next(self) -> None:
        self.place += 1
        self.show()

    def action_try_it(self) -> None:
        if self.session.fixes and not self.trying:
            self.trying = True
            self.show()
            self.post_message(TrialWanted(self.place % len(self.session.fixes)))

    def action_copy(self) -> None:
        fix = self.fix
        if fix is not None and fix.launch is not None:
            self.post_message(CopyWanted(fix.launch.text))

    def action_scroll(self, by: int) -> None:
        self.query_one("#page", VerticalScroll).scroll_relative(y=by, animate=False)

    def action_end(self) -> None:
        """Only for a left-over that a fix names, and only after a yes."""
        fix = next((f for f in self.session.fixes if f.safety == "ends-process"), None)
        held = next(
            (f for f in self.session.findings if f.data.get("pid") and f.probe == "port"), None
        )
        if fix is None or held is None:
            self.notify("no process can be ended here", markup=False)
            return
        facts = [
            f"pid      {held.data['pid']}          started  {held.data.get('started')}",
            f"user     {held.data.get('user')}",
            f"parent   {held.data.get('parent')}",
            f"command  {held.data.get('command')}",
            f"holds    port {held.data.get('port')}",
            "",
            "SIGTERM is sent, nothing else. Unsaved work in it is lost.",
        ]

        def answered(yes: bool | None) -> None:
            if yes:
                self.post_message(EndWanted(int(held.data["pid"]), held.data.get("port")))

        self.app.push_screen(
            Confirm("End this process?", facts, f"end pid {held.data['pid']}"), answered
        )


def _diff(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.strip().splitlines(), after.strip().splitlines())
    return [f"  {line}" for line in lines if not line.startswith("?")]
