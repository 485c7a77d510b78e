"""A fix: before and after, what it changes, and the badge it earned here."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.messages import CopyWanted, EndWanted, ProofWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.lines import Page

if TYPE_CHECKING:
    from ddp_assist.app.fixes.model import Fix

CHANGES = {
    "command": "nothing on this machine; you run the new command yourself",
    "edit": "nothing of yours; the report brings corrected copies",
    "ends-process": "ENDS A PROCESS, after you said yes to it",
    "system": "the system or its settings; you do it yourself",
}
BADGES = {
    "not-tried": "not tried",
    "holds": "HOLDS",
    "ran": "RAN",
    "failed": "FAILED",
}


class FixScreen(Framed):
    CSS_PATH = "fix.tcss"
    BINDINGS = [
        Binding("enter", "try_it", "Try it here", key_display="enter"),
        Binding("enter", "end", "End the process", key_display="enter"),
        Binding("enter", "app.export", "Write the report", key_display="enter"),
        Binding("t", "try_again", "Try again"),
        Binding("y", "copy", "Copy"),
        Binding("n", "next", "Next fix"),
        Binding("x", "app.export", "Report"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]
    place = 0

    def head(self) -> str:
        fix = self.fix
        return "ddp-assist > Fix" + (f" for {fix.cause}" if fix else "")

    def body(self) -> ComposeResult:
        yield Line("", id="title")
        yield Page(id="badge")
        yield Page(id="text")

    def on_mount(self) -> None:
        self.query_one("#badge").can_focus = False
        self.query_one("#text").focus()

    @property
    def fix(self) -> Fix | None:
        fixes = self.session.fixes
        return fixes[self.place % len(fixes)] if fixes else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enter does what comes next: try it, end what it ends, or write the report."""
        fix = self.fix
        if fix is None:
            return action not in ("try_it", "end", "try_again", "copy", "next")
        can_try = fix.launch is not None or bool(fix.files)
        fresh = fix.badge == "not-tried"
        return {
            "try_it": can_try and fresh and fix.safety != "ends-process",
            "end": fix.safety == "ends-process",
            "try_again": can_try and not fresh,
            "copy": fix.launch is not None,
            "next": len(self.session.fixes) > 1,
        }.get(action, True)

    def show(self) -> None:
        fix = self.fix
        if fix is None:
            self.query_one("#title", Line).say("No fix is known for this cause.")
            return
        count = len(self.session.fixes)
        which = f"Fix {self.place % count + 1} of {count}: " if count > 1 else "Fix: "
        self.query_one("#title", Line).say(which + fix.title)
        self.query_one("#badge", Page).say("\n".join(self._badge(fix)))
        self.query_one("#text", Page).say("\n".join(self._text(fix)))
        self.refresh_bindings()

    def _badge(self, fix: Fix) -> Iterator[str]:
        yield f"Changes  {CHANGES[fix.safety]}"
        trying = self.session.trying
        if trying is None:
            yield f"Badge    [ {BADGES[fix.badge]} ]  {fix.why}"
            return
        yield "Badge    [ being tried now ]  looking again with the fix in place, then ranks meet"
        yield from (f"         {line}" for line in trying.lines())

    def _text(self, fix: Fix) -> Iterator[str]:
        diagnosis = self.session.diagnosis
        before = diagnosis.target.launch.text if diagnosis and diagnosis.target.launch else ""
        if fix.launch is not None and fix.launch.text != before:
            yield "Launch: - before, + after"
            yield from _diff(before, fix.launch.text)
            yield ""
        for edit in fix.files:
            if edit.diff:
                yield from edit.diff.splitlines()
                yield ""
        for number, step in enumerate(fix.steps, 1):
            yield f"{number}. {step}"
        if fix.does_not:
            yield f"Does not fix: {fix.does_not}"
        others = [f for f in self.session.fixes if f is not fix]
        if others:
            yield "\nOther fixes (n):"
            yield from (f"  [{BADGES[f.badge]}] {f.title}" for f in others)

    def action_next(self) -> None:
        self.place += 1
        self.show()

    def action_try_it(self) -> None:
        if self.session.fixes:
            self.post_message(ProofWanted(self.place % len(self.session.fixes)))

    action_try_again = action_try_it

    def action_copy(self) -> None:
        fix = self.fix
        if fix is not None and fix.launch is not None:
            self.post_message(CopyWanted(fix.launch.text))

    def action_end(self) -> None:
        """Only what the fix names, one process at a time, and only after a yes."""
        if self.fix is not None:
            self.post_message(EndWanted(self.fix.ends, self.fix.frees))


def _diff(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.strip().splitlines(), after.strip().splitlines())
    return [line for line in lines if not line.startswith("?")]
