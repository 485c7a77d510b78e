"""The Textual app: which screen is shown, and how what workers tell reaches the case.

The first screen is painted before the tree, the probes and the other screens are even loaded.
"""

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
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.filter import LineFilter
from textual.screen import Screen

from ddp_assist.app.gate import Gate, is_plain
from ddp_assist.app.machine import Live, Machine
from ddp_assist.app.question import Question
from ddp_assist.app.session import Session
from ddp_assist.probes.text import clean
from ddp_assist.screens import messages as m
from ddp_assist.screens.home import Home
from ddp_assist.screens.widgets.frame import Framed

if TYPE_CHECKING:
    from ddp_assist.app.diagnose import Diagnosis
    from ddp_assist.app.fixes.model import Fix

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
BREATH = 0.05
"""Seconds in which answers gather before the screen shows them: a slow link gets fewer paints."""


class Assistant(App[int]):
    CSS = """
    Screen { background: $background; }
    Toast { padding: 0 1; width: 76; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar = [
        Binding("colon,ctrl+p", "commands", "Commands", show=False, key_display=":"),
        Binding("ctrl+z", "suspend_process", "Suspend (fg comes back)", show=False),
        Binding("ctrl+c", "quit_twice", "Quit", show=False, priority=True),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
        Binding("d", "diagnosis", "Diagnosis", show=False),
        Binding("m", "map", "Tree", show=False),
        Binding("x", "export", "Report", show=False),
        Binding("q", "quit", "Quit", show=False),
    ]

    def __init__(
        self,
        question: Question,
        session: Session | None = None,
        machine: Machine | None = None,
        demo: bool = False,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.session = session or Session(question)
        self.machine = machine or Live()
        self.demo, self.plain = demo, plain
        self.warned = False
        self.stale = False
        self.temporary: list[Path] = []
        self.exported: Path | None = None
        self.crash: Path | None = None

    # -- start and end -----------------------------------------------------------------------

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), Gate(self.plain)]

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.exit, 128 + number)
        self.ticking = self.set_interval(1.0, self._tick, pause=True)
        if self.demo:
            from ddp_assist.screens.stories import Stories

            self.push_screen(Stories(self.session))
        else:
            self.open(self.session)
            self.call_after_refresh(self._find_jobs, False)

    def open(self, session: Session) -> None:
        """Home of this session, and the step where it was left."""
        self.session = session
        if session.case.saved is None and not session.recorded:
            session.begin()
            session.case.keep()
        self.push_screen(Home(session))
        self._say_trouble()
        if session.findings and not session.question.is_empty:
            self._say_when(session)
        elif not session.question.is_empty:
            self.look()
        if session.trail:
            self.show_step()

    def _say_when(self, session: Session) -> None:
        self.say("these answers are of the saved case: r asks again")
        self._conclude_saved(session)

    @work(thread=True, exclusive=True, group="look", exit_on_error=False)
    def _conclude_saved(self, session: Session) -> None:
        from ddp_assist.app.resume import concluded

        diagnosis = concluded(session)
        self.post_message(m.Looked(diagnosis, self._first_fixes(diagnosis)))

    def _say_trouble(self) -> None:
        """A case that can't be saved is said once, and the session goes on."""
        if self.session.case.trouble:
            self.say(self.session.case.trouble)
            self.session.case.trouble = ""

    def on_unmount(self) -> None:
        self.session.cancel.set()
        self.machine.close()
        for path in self.temporary:
            path.unlink(missing_ok=True)

    def say(self, text: str) -> None:
        self.notify(clean(text), markup=False, timeout=8)

    def on_said(self, event: m.Said) -> None:
        self.say(event.text)

    async def action_quit(self) -> None:
        self.exit(0)

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

    # -- what is known reaches the screen ----------------------------------------------------

    def _tick(self) -> None:
        """Once a second, and only while somebody waits: nothing is sent when nothing happens."""
        if not self.session.looking and self.session.trying is None:
            self.ticking.pause()
        self.refresh_screen()

    def refresh_screen(self) -> None:
        if not self.stale:
            self.stale = True
            self.set_timer(BREATH, self._show)

    def _show(self) -> None:
        self.stale = False
        if isinstance(self.screen, Framed):
            self.screen.show()

    # -- looking -----------------------------------------------------------------------------

    def look(self) -> None:
        self.session.cancel.set()
        self.session.start_looking()
        self.ticking.resume()
        self._look(self.session)

    @work(thread=True, exclusive=True, group="look", exit_on_error=False)
    def _look(self, session: Session) -> None:
        from ddp_assist.probes.launch.plan import LaunchError

        cancel = session.cancel

        def told(probe: Any, found: Any) -> None:
            if not cancel.is_set():
                self.post_message(m.Probed(probe, found))

        try:
            diagnosis = self.machine.look(session.question, told, cancel)
            fixes = self._first_fixes(diagnosis)
        except LaunchError as why:
            session.looking = False
            self.post_message(m.Said(f"the launch command can't be read: {why}"))
            return
        if not cancel.is_set():
            self.post_message(m.Looked(diagnosis, fixes))

    def _first_fixes(self, diagnosis: Diagnosis) -> list[Fix]:
        causes = diagnosis.causes
        return self.machine.fixes(diagnosis, causes[0]) if causes else []

    def on_probed(self, event: m.Probed) -> None:
        self.session.told(event.probe, event.found)
        self.refresh_screen()

    def on_looked(self, event: m.Looked) -> None:
        self.session.done(event.diagnosis, event.fixes)
        self._conclude()
        self._say_trouble()
        self.refresh_screen()

    def _conclude(self) -> None:
        result = self._result()
        if result is not None:
            self.session.case.add("concluded", result=result)

    def _result(self) -> dict[str, Any] | None:
        if self.session.diagnosis is None:
            return None
        from ddp_assist.app.saying import as_json

        return as_json(self.session.diagnosis, self.session.fixes)

    def on_given(self, event: m.Given) -> None:
        if self.take(event.kind, event.text):
            self.session.begin()
            self.look()
            self.refresh_screen()

    def take(self, kind: m.Kind, text: str) -> bool:
        """Makes it part of the question; False, and one line said, where it can't be."""
        question = self.session.question
        if kind == "launch":
            try:
                words = shlex.split(text)
            except ValueError as why:
                self.say(f"the command has unbalanced quotes: {why}")
                return False
            question = replace(question, launch=tuple(words), job=None)
        elif kind == "job":
            question = replace(question, job=int(text), launch=())
        elif kind == "paste":
            handle, name = tempfile.mkstemp(prefix="ddp-assist-paste-", suffix=".log")
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as kept:
                kept.write(text)
            self.temporary.append(Path(name))
            question = replace(question, logs=(*question.logs, name))
        else:
            path = Path(text).expanduser()
            if not path.exists():
                self.say(f"there is no {kind} {text}")
                return False
            if kind == "log":
                question = replace(question, logs=(*question.logs, str(path)))
            else:
                question = replace(question, script=path)
        self.session.question = question
        return True

    # -- the walk ----------------------------------------------------------------------------

    def on_symptom_picked(self, event: m.SymptomPicked) -> None:
        self.session.pick(event.symptom)
        if self.session.question.is_empty and not self.session.recorded:
            self._ask_for_the_launch()
        else:
            self._walk()

    def _walk(self) -> None:
        if not self.session.looking and self.session.diagnosis is None:
            self.look()
        self.show_step()

    def show_step(self) -> None:
        from ddp_assist.screens.step import StepScreen

        self.push_screen(StepScreen(self.session))

    def _ask_for_the_launch(self) -> None:
        """Without a launch, a log or a job there is little to look at."""
        from ddp_assist.screens.choose import Choose
        from ddp_assist.screens.entry import ENTRIES, entry
        from ddp_assist.screens.jobs import job_line

        jobs = self.session.jobs or []
        options = [
            ("launch", "I type or paste the command that starts it"),
            *((f"job {job['id']}", f"It is alive now: {job_line(job)}") for job in jobs[:5]),
            ("paste", "I paste the error it printed"),
            ("log", "I name its log file or folder"),
            ("", "Go on without: only this machine is looked at"),
        ]

        def chosen(what: str | None) -> None:
            if what is None:
                return
            if what.startswith("job "):
                given(what.removeprefix("job "), "job")
            elif what in ENTRIES:
                self.push_screen(entry(what), lambda text: given(text, what))
            else:
                self._walk()

        def given(text: str | None, kind: str) -> None:
            if text and self.take(kind, text):  # type: ignore[arg-type]
                self.session.begin()
                self._walk()

        self.push_screen(Choose("What is there to look at?", options), chosen)

    def on_went(self, event: m.Went) -> None:
        self.session.go(event.to)
        if event.to.is_step:
            self.refresh_screen()
        else:
            self.show_diagnosis(event.to.name)

    def on_again(self, _: m.Again) -> None:
        self.look()
        self.refresh_screen()

    def action_everything(self) -> None:
        """The road of who is not sure: every probe, and what is wrong first."""
        from ddp_assist.screens.everything import Everything

        if not self.session.looking and self.session.diagnosis is None:
            self.look()
        self.push_screen(Everything(self.session))

    def action_diagnosis(self) -> None:
        self.show_diagnosis(None)

    def show_diagnosis(self, cause: str | None) -> None:
        from ddp_assist.screens.diagnosis import DiagnosisScreen

        self.push_screen(DiagnosisScreen(self.session, cause))

    # -- fixes and trials --------------------------------------------------------------------

    def on_fix_wanted(self, event: m.FixWanted) -> None:
        from ddp_assist.screens.fix import FixScreen

        diagnosis = self.session.diagnosis
        if diagnosis is None:
            self.say("still looking")
            return
        ranked = next((r for r in diagnosis.ranked if r.cause == event.cause), None)
        if ranked is None:
            self.say("nothing seen here speaks for this cause")
            return
        if not any(fix.cause == event.cause for fix in self.session.fixes):
            self.session.fixes = self.machine.fixes(diagnosis, ranked)
            self._conclude()
        self.push_screen(FixScreen(self.session))

    def on_proof_wanted(self, event: m.ProofWanted) -> None:
        if self.session.diagnosis is not None and self.session.trying is None:
            self._begin_trial()
            self._prove(event.place, self.session)

    def _begin_trial(self) -> None:
        from ddp_assist.probes.trial.picture import Picture

        self.session.trying = Picture()
        self.ticking.resume()
        self.refresh_screen()

    @work(thread=True, exclusive=True, group="try", exit_on_error=False)
    def _prove(self, place: int, session: Session) -> None:
        assert session.diagnosis is not None
        fix = session.fixes[place]
        tried = self.machine.prove(session.diagnosis, fix, self._staged)
        self.post_message(m.Proven(place, tried))

    def _staged(self, stage: Any) -> None:
        self.post_message(m.Staged(stage))

    def on_staged(self, event: m.Staged) -> None:
        if self.session.trying is not None:
            self.session.trying(event.stage)
            self.refresh_screen()

    def on_proven(self, event: m.Proven) -> None:
        self.session.trying = None
        self.session.fixes[event.place] = event.fix
        self.session.case.add(
            "tried", fix=event.fix.title, badge=event.fix.badge, why=event.fix.why
        )
        self._conclude()
        self.refresh_screen()

    def action_trial(self) -> None:
        from ddp_assist.screens.trial import TrialScreen

        self.push_screen(TrialScreen(self.session))

    def on_trial_wanted(self, event: m.TrialWanted) -> None:
        if self.session.trying is None:
            self._begin_trial()
            self._meet(event.backend, event.ranks, self.session)

    @work(thread=True, exclusive=True, group="try", exit_on_error=False)
    def _meet(self, backend: str, ranks: int, session: Session) -> None:
        from ddp_assist.probes.trial.spec import TrialSpec

        spec = TrialSpec(backend=backend, nproc=ranks, python=session.question.python)
        self.post_message(m.Tried(self.machine.meet(spec, self._staged, session.cancel)))

    def on_tried(self, event: m.Tried) -> None:
        self.session.trying, self.session.tried = None, event.result
        self.session.case.add("trial", result=event.result.as_json())
        self.refresh_screen()

    # -- jobs, hosts, saved cases, stories ---------------------------------------------------

    def action_jobs(self) -> None:
        from ddp_assist.screens.jobs import JobsScreen

        self.push_screen(JobsScreen(self.session))
        self._find_jobs(False)

    def on_jobs_wanted(self, event: m.JobsWanted) -> None:
        self._find_jobs(event.with_stacks)

    @work(thread=True, exclusive=True, group="jobs", exit_on_error=False)
    def _find_jobs(self, with_stacks: bool) -> None:
        self.post_message(m.JobsSeen(self.machine.jobs(with_stacks)))

    def on_jobs_seen(self, event: m.JobsSeen) -> None:
        self.session.jobs = event.jobs
        self.refresh_screen()

    def action_hosts(self) -> None:
        from ddp_assist.screens.hosts import HostsScreen

        self.push_screen(HostsScreen(self.session))

    def on_hosts_wanted(self, event: m.HostsWanted) -> None:
        self.session.looking = True
        self.ticking.resume()
        self._ask_hosts(event.nodes, self.session)
        self.refresh_screen()

    @work(thread=True, exclusive=True, group="look", exit_on_error=False)
    def _ask_hosts(self, nodes: str, session: Session) -> None:
        from ddp_assist.app.nodes import NodesUnclear

        try:
            diagnosis, fixes, result = self.machine.hosts(nodes, session.question)
        except NodesUnclear as why:
            session.looking = False
            self.post_message(m.Said(str(why)))
            return
        fixes = fixes or self._first_fixes(diagnosis)
        self.post_message(m.HostsSeen(diagnosis, result, fixes))

    def on_hosts_seen(self, event: m.HostsSeen) -> None:
        self.session.hosts = event.result
        self.session.findings = event.diagnosis.findings
        for finding in event.diagnosis.findings:
            self.session.case.add_finding(finding)
        self.on_looked(m.Looked(event.diagnosis, event.fixes))

    def action_cases(self) -> None:
        from ddp_assist.app.resume import saved
        from ddp_assist.screens.cases import CasesScreen

        self.push_screen(CasesScreen(self.session, saved(but=self.session.case.id)))

    def on_case_wanted(self, event: m.CaseWanted) -> None:
        from ddp_assist.app.case import CaseUnreadable
        from ddp_assist.app.resume import resumed

        try:
            session = resumed(event.name, self.session.question)
        except CaseUnreadable as why:
            self.say(str(why))
            return
        self._leave()
        self.open(session)

    def on_story_wanted(self, event: m.StoryWanted) -> None:
        from ddp_assist.app.demo import Recorded, story

        told = story(event.name)
        self.machine = Recorded(told)
        self._leave()
        self.open(Session(told.question, recorded=told.title))
        self.session.jobs = list(told.jobs)

    def _leave(self) -> None:
        """Back to the bottom of the stack; in the demo the list of stories stays there."""
        self.session.cancel.set()
        while len(self.screen_stack) > (2 if self.demo else 1):
            self.pop_screen()

    # -- what changes something --------------------------------------------------------------

    def on_end_wanted(self, event: m.EndWanted) -> None:
        self._end(event.pids, event.port)

    @work(thread=True, exclusive=True, group="end", exit_on_error=False)
    def _end(self, pids: Sequence[int], port: int | None) -> None:
        from ddp_assist.app.actions import Refused

        ended = False
        for pid in pids:
            try:
                gone = self._end_one(pid, port if len(pids) == 1 else None)
            except Refused as why:
                self.post_message(m.Said(f"pid {pid} was not ended: {why}"))
                continue
            if gone is not None:
                ended = True
                said = f"pid {pid} {'is gone' if gone else 'is still there after SIGTERM'}"
                self.session.case.add("ended", pid=pid, port=port, gone=gone)
                self.session.changed.append(said)
                self.post_message(m.Said(said))
        if ended:
            self.post_message(m.Again())

    def _end_one(self, pid: int, port: int | None) -> bool | None:
        """Holds the process, shows what it is, asks; SIGKILL needs a yes of its own."""
        pinned, facts = self.machine.pin(pid, port)
        sent = "SIGTERM is sent to this one process. What it did not save is lost."
        try:
            if not self._yes("End this process?", [*facts, "", sent], f"end pid {pid}"):
                return None
            gone = self.machine.end(pinned, False)
            still = [f"pid {pid} got SIGTERM and is still there after 10 s.", "", *facts]
            if not gone and self._yes("Force it with SIGKILL?", still, f"kill pid {pid}"):
                gone = self.machine.end(pinned, True)
            return gone
        finally:
            pinned.close()

    def _yes(self, title: str, facts: list[str], yes: str) -> bool:
        """Asks from a worker, and waits for the answer; leaving the app is a no."""
        import threading

        said: list[bool] = []
        there = threading.Event()

        def answered(answer: bool) -> None:
            said.append(answer)
            there.set()

        self.post_message(m.Asked(title, facts, yes, answered))
        while not there.wait(0.2):
            if not self.is_running:
                return False
        return said[0]

    def on_asked(self, event: m.Asked) -> None:
        from ddp_assist.screens.confirm import Confirm

        def answered(yes: bool | None) -> None:
            event.answered(bool(yes))

        self.push_screen(Confirm(event.title, event.facts, event.yes), answered)

    def on_copy_wanted(self, event: m.CopyWanted) -> None:
        from ddp_assist.app.clipboard import copy
        from ddp_assist.app.report import standard_redactor

        redacted = standard_redactor().text(event.text)
        self.say(copy(redacted, self._raw))

    def _raw(self, code: str) -> None:
        if self._driver is not None:
            self._driver.write(code)

    def action_export(self) -> None:
        from ddp_assist.app.case import state_dir
        from ddp_assist.app.report import render, standard_redactor
        from ddp_assist.screens.export import ExportScreen

        result = self._result()
        if result is None:
            self.say("there is nothing to export yet")
            return

        def preview(form: str) -> str:
            return render(result, form, standard_redactor())  # type: ignore[arg-type]

        folder = str(state_dir() / "reports" / self.session.case.id)
        self.push_screen(ExportScreen(self.session, preview, folder))

    def on_export_wanted(self, event: m.ExportWanted) -> None:
        from ddp_assist.app.export import write_all
        from ddp_assist.app.files import WriteFailed
        from ddp_assist.screens.export import ExportScreen

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
        if isinstance(self.screen, ExportScreen):
            self.screen.written(str(folder))

    # -- help and commands -------------------------------------------------------------------

    def action_help(self) -> None:
        from ddp_assist.screens.help import Help

        self.push_screen(Help(self.screen))

    def action_map(self) -> None:
        from ddp_assist.app.outline import outline
        from ddp_assist.screens.reader import Reader

        self.push_screen(Reader("The tree: where you are, what is ruled out, what is left",
                                "\n".join(outline(self.session))))  # fmt: skip

    def action_commands(self) -> None:
        from ddp_assist.screens.choose import Choose
        from ddp_assist.screens.commands import commands

        async def chosen(action: str | None) -> None:
            if action is not None:
                await self.run_action(action, self.screen)

        offered = commands(self.screen, self.session)
        self.push_screen(Choose("What now? Type a part of it", offered, True), chosen)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """None: Textual's own would bring a screenshot, which holds what the report redacts."""
        return ()

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        raise RuntimeError("a screenshot would hold what the report redacts")


def run(options: argparse.Namespace) -> int:
    """Shows the session, and leaves what matters in the scrollback."""
    session = None
    if options.resume:
        from ddp_assist.app.resume import resumed

        session = resumed(options.resume, options.question)
    plain = options.ascii or is_plain(os.environ)
    app = Assistant(options.question, session, demo=options.demo, plain=plain)
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
