"""The Textual app: which screen is shown, what works in the background, what reaches the case."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.color import Color
from textual.filter import LineFilter
from textual.message import Message
from textual.screen import Screen

from ddp_assist.app import prove
from ddp_assist.app.case import load as load_case
from ddp_assist.app.case import state_dir
from ddp_assist.app.diagnose import Diagnosis, Question, look, target_of
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.saying import as_json
from ddp_assist.app.session import Session
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.model import Finding, Probe, Target
from ddp_assist.probes.text import clean
from ddp_assist.screens.diagnosis import DiagnosisScreen
from ddp_assist.screens.everything import Everything
from ddp_assist.screens.export import ExportScreen
from ddp_assist.screens.fix import FixScreen
from ddp_assist.screens.home import Home
from ddp_assist.screens.messages import (
    Again,
    CopyWanted,
    EndWanted,
    ExportWanted,
    FixWanted,
    Given,
    SymptomPicked,
    TrialWanted,
    Went,
)
from ddp_assist.screens.reader import Reader
from ddp_assist.screens.step import StepScreen
from ddp_assist.screens.widgets.frame import Framed

SMALLEST = (60, 15)
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Gate(LineFilter):
    """The last look at every line: no control character of foreign text reaches the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment if segment.control else Segment(clean(segment.text), _unlinked(segment.style))
            for segment in segments
        ]


def _unlinked(style: Style | None) -> Style | None:
    return style.update_link(None) if style is not None and style.link else style


class Probed(Message):
    def __init__(self, probe: Probe, found: tuple[Finding, ...]) -> None:
        super().__init__()
        self.probe, self.found = probe, found


class Looked(Message):
    def __init__(self, target: Target, asked: frozenset[str]) -> None:
        super().__init__()
        self.target, self.asked = target, asked


class Tried(Message):
    def __init__(self, place: int, fix: Fix) -> None:
        super().__init__()
        self.place, self.fix = place, fix


class Said(Message):
    """One line for the user, from wherever it was noticed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Assistant(App[int]):
    CSS = """
    Screen { background: $background; }
    .rule { height: 1; color: $text-muted; }
    #head { margin: 0 1; height: 1; }
    """
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "colon"
    BINDINGS: ClassVar = [
        Binding("ctrl+p", "command_palette", "Commands", show=False),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False),
        Binding("ctrl+c", "quit_twice", "Quit", show=False, priority=True),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("q", "quit", "Quit", show=False),
    ]

    def __init__(self, question: Question, session: Session | None = None) -> None:
        super().__init__()
        self.session = session or Session(question)
        self.warned = False
        self.temporary: list[Path] = []

    # -- start and end -----------------------------------------------------------------------

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), Gate()]

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.exit, 128 + number)
        if self.session.case.saved is None:
            self.session.begin()
            self.session.case.keep()
        self.push_screen(Home(self.session))
        if self.session.case.trouble:
            self.say(self.session.case.trouble)
        question = self.session.question
        if question.launch or question.logs or question.script or question.job:
            self.look()
        if self.session.trail:
            self.push_screen(StepScreen(self.session))

    def on_unmount(self) -> None:
        self.session.cancel.set()
        for path in self.temporary:
            path.unlink(missing_ok=True)

    def say(self, text: str) -> None:
        self.notify(clean(text), markup=False, timeout=8)

    def on_said(self, event: Said) -> None:
        self.say(event.text)

    def action_quit_twice(self) -> None:
        if self.warned:
            self.exit(130)
        self.warned = True
        self.say("ctrl+c again quits")
        self.set_timer(3, self._calm)

    def _calm(self) -> None:
        self.warned = False

    def _handle_exception(self, error: Exception) -> None:
        """Textual would print the locals of every frame, and with them the user's secrets."""
        from ddp_assist.app.report.crash import write_crash

        self.crash = write_crash(error, sys.argv)
        self._return_code = 4
        self.exit(4, message=f"ddp-assist: internal error, see {self.crash} (redacted)")

    # -- looking -----------------------------------------------------------------------------

    def look(self) -> None:
        self.session.cancel.set()
        self.session.start_looking()
        try:
            target = target_of(self.session.question)
        except LaunchError as why:
            self.session.looking = False
            self.say(f"the launch command can't be read: {why}")
            return
        self._look(target)

    @work(thread=True, exclusive=True, group="look", exit_on_error=False)
    def _look(self, target: Target) -> None:
        cancel = self.session.cancel

        def told(probe: Probe, found: tuple[Finding, ...]) -> None:
            if not cancel.is_set():
                self.post_message(Probed(probe, found))

        target, _, asked = look(target, told, cancel)
        if not cancel.is_set():
            self.post_message(Looked(target, asked))

    def on_probed(self, event: Probed) -> None:
        self.session.told(event.probe, event.found)
        self.refresh_screen()

    def on_looked(self, event: Looked) -> None:
        self.session.done(event.target, event.asked)
        self._conclude()
        self.refresh_screen()

    def _conclude(self) -> None:
        if self.session.diagnosis is not None:
            result = as_json(self.session.diagnosis, self.session.fixes)
            self.session.case.add("concluded", result=result)

    def refresh_screen(self) -> None:
        if isinstance(self.screen, Framed):
            self.screen.show()

    # -- what screens ask --------------------------------------------------------------------

    def on_given(self, event: Given) -> None:
        question = self.session.question
        if event.kind == "launch":
            try:
                words = shlex.split(event.text)
            except ValueError as why:
                self.say(f"the command has unbalanced quotes: {why}")
                return
            question = replace(question, launch=tuple(words))
        elif event.kind == "paste":
            handle, name = tempfile.mkstemp(prefix="ddp-assist-paste-", suffix=".log")
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as kept:
                kept.write(event.text)
            self.temporary.append(Path(name))
            question = replace(question, logs=(*question.logs, name))
        else:
            path = Path(event.text).expanduser()
            if not path.exists():
                self.say(f"there is no {event.kind} {event.text}")
                return
            if event.kind == "log":
                question = replace(question, logs=(*question.logs, str(path)))
            else:
                question = replace(question, script=path)
        self.session.question = question
        self.session.begin()
        self.look()
        self.refresh_screen()

    def on_symptom_picked(self, event: SymptomPicked) -> None:
        self.session.pick(event.symptom)
        if not self.session.looking and self.session.diagnosis is None:
            self.look()
        self.push_screen(StepScreen(self.session))

    def on_went(self, event: Went) -> None:
        self.session.go(event.to)
        if event.to.is_step:
            self.refresh_screen()
        else:
            self.action_diagnosis()

    def on_again(self, _: Again) -> None:
        self.look()
        self.refresh_screen()

    def action_everything(self) -> None:
        """The road of who is not sure: every probe, and what is wrong first."""
        if not self.session.looking and self.session.diagnosis is None:
            self.look()
        self.push_screen(Everything(self.session))

    def action_diagnosis(self) -> None:
        self.push_screen(DiagnosisScreen(self.session))

    def on_fix_wanted(self, event: FixWanted) -> None:
        diagnosis = self.session.diagnosis
        if diagnosis is None:
            self.say("still looking")
            return
        ranked = next(r for r in diagnosis.causes if r.cause == event.cause)
        self.session.fixes = prove.for_cause(diagnosis, ranked)
        self._conclude()
        self.push_screen(FixScreen(self.session))

    def on_trial_wanted(self, event: TrialWanted) -> None:
        if self.session.diagnosis is not None:
            self._try(event.place, self.session.fixes[event.place], self.session.diagnosis)

    @work(thread=True, exclusive=True, group="try", exit_on_error=False)
    def _try(self, place: int, fix: Fix, diagnosis: Diagnosis) -> None:
        from ddp_assist.app.trials import Trials

        with Trials(diagnosis.question) as trials:
            tried = prove.prove(diagnosis, fix, trials.meet)
        self.post_message(Tried(place, tried))

    def on_tried(self, event: Tried) -> None:
        self.session.fixes[event.place] = event.fix
        self.session.case.add(
            "tried", fix=event.fix.title, badge=event.fix.badge, why=event.fix.why
        )
        self._conclude()
        if isinstance(self.screen, FixScreen):
            self.screen.trying = False
        self.refresh_screen()

    def on_end_wanted(self, event: EndWanted) -> None:
        self._end(event.pid, event.port)

    @work(thread=True, exclusive=True, group="end", exit_on_error=False)
    def _end(self, pid: int, port: int | None) -> None:
        from ddp_assist.app.actions import Refused, end, pin

        try:
            pinned = pin(pid, port)
            try:
                gone = end(pinned)
            finally:
                pinned.close()
        except Refused as why:
            self.post_message(Said(f"nothing was ended: {why}"))
            return
        self.session.case.add("ended", pid=pid, port=port, gone=gone)
        said = f"pid {pid} {'is gone' if gone else 'got SIGTERM and is still there after 10 s'}"
        self.session.changed.append(said)
        self.post_message(Said(said))
        self.post_message(Again())

    def on_copy_wanted(self, event: CopyWanted) -> None:
        from ddp_assist.app.clipboard import copy
        from ddp_assist.app.report import standard_redactor

        redacted = standard_redactor().text(event.text)
        self.say(copy(redacted, self._raw))

    def _raw(self, code: str) -> None:
        if self._driver is not None:
            self._driver.write(code)

    def action_export(self) -> None:
        result = self._result()
        if result is None:
            self.say("there is nothing to export yet")
            return
        from ddp_assist.app.report import render, standard_redactor

        def preview(form: str) -> str:
            return render(result, form, standard_redactor())  # type: ignore[arg-type]

        folder = str(state_dir() / "reports" / self.session.case.id)
        self.push_screen(ExportScreen(self.session, preview, folder))

    def _result(self) -> dict[str, Any] | None:
        diagnosis = self.session.diagnosis
        return None if diagnosis is None else as_json(diagnosis, self.session.fixes)

    def on_export_wanted(self, event: ExportWanted) -> None:
        from ddp_assist.app.export import write_all
        from ddp_assist.app.files import WriteFailed

        result = self._result()
        if result is None or self.session.diagnosis is None:
            return
        folder = Path(event.path).expanduser()
        try:
            write_all(folder, self.session.diagnosis, self.session.fixes, result)
        except WriteFailed as why:
            self.say(str(why))
            return
        self.exported = folder
        self.session.case.add("exported", folder=str(folder))
        self.say(f"written: report.md, report.html, launch.sh in {folder}")

    exported: Path | None = None
    crash: Path | None = None

    # -- help --------------------------------------------------------------------------------

    def action_help(self) -> None:
        keys = [
            f"  {self.get_key_display(binding.binding):<10} {binding.binding.description}"
            for binding in self.screen.active_bindings.values()
            if binding.binding.description
        ]
        text = "\n".join(
            [
                *dict.fromkeys(keys),
                "",
                "  :          all commands",
                "  ctrl+z     suspend (fg comes back)",
            ]
        )
        self.push_screen(Reader("Keys on this screen", text))

    def action_map(self) -> None:
        lines = []
        for name in self.session.trail:
            step = self.session.tree.steps[name]
            lines.append(f"> {step.question}")
            lines += [f"    {'*' if c.seen else ' '} {c.label}" for c in self.session.choices(step)]
        diagnosis = self.session.diagnosis
        for ranked in diagnosis.causes[:10] if diagnosis else ():
            lines.append(f"left: {ranked.certainty} {ranked.cause}")
        self.push_screen(Reader("Where you are in the tree", "\n".join(lines)))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What can be done now; Textual's own screenshot would leak, so it is not among it."""
        yield SystemCommand("help: keys on this screen", "", self.action_help)
        yield SystemCommand("probe: run all again", "", lambda: self.on_again(Again()))
        if self.session.diagnosis is not None:
            yield SystemCommand("case: diagnosis", "", self.action_diagnosis)
            yield SystemCommand("case: export", "", self.action_export)
        yield SystemCommand("app: quit", "", self.exit)

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        raise RuntimeError("a screenshot would hold what the report redacts")

    async def action_quit(self) -> None:
        self.exit(0)


def resumed(name: str, question: Question) -> Session:
    """The session of a saved case, standing where it was left."""
    from ddp_assist.app.case import find

    case = load_case(find(name))
    asked = case.last("question") or {}
    question = replace(
        question,
        launch=tuple(asked.get("launch", ())),
        logs=tuple(log for log in asked.get("logs", ()) if os.path.exists(log)),
        script=Path(asked["script"]) if asked.get("script") else None,
        python=asked.get("python"),
    )
    session = Session(question, case)
    session.findings = tuple(case.findings)
    picked = case.last("symptom")
    if picked and picked["id"] in session.tree.symptoms:
        session.pick(session.tree.symptoms[picked["id"]])
        for event in case.events:
            if event["kind"] == "went" and event["to"] in session.tree.steps:
                session.trail.append(event["to"])
    return session


def run(options: argparse.Namespace) -> int:
    """Shows the session, and leaves what matters in the scrollback."""
    session = resumed(options.resume, options.question) if options.resume else None
    app = Assistant(options.question, session)
    code = app.run(mouse=options.mouse)
    if app.crash is not None:
        return 4
    for line in farewell(app):
        print(line)
    return code or 0


def farewell(app: Assistant) -> list[str]:
    """The corrected command and where the report is, on the normal screen."""
    lines: list[str] = []
    fix = next(
        (f for f in app.session.fixes if f.launch is not None and f.safety != "ends-process"), None
    )
    if fix is not None and fix.launch is not None:
        lines += [f"corrected launch [{fix.badge}]:", clean(fix.launch.text.strip())]
    if app.exported is not None:
        lines.append(f"report: {app.exported}")
    if app.session.case.saved is not None and app.session.diagnosis is not None:
        lines.append(f"this case: ddp-assist resume {app.session.case.id}")
    return lines
