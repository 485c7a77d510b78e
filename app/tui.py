"""The Textual app: which screen is shown, and how what workers tell reaches the case.

The first screen is painted before the tree, the probes and the other screens are even loaded.
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work
from textual.worker import get_current_worker

from ddp_assist.app.case import Case
from ddp_assist.app.gate import is_plain
from ddp_assist.app.session import Session
from ddp_assist.app.tui_trials import Trials
from ddp_assist.probes.text import clean
from ddp_assist.screens import messages as m
from ddp_assist.screens.home import Home

if TYPE_CHECKING:
    from ddp_assist.app.diagnose import Diagnosis
    from ddp_assist.app.fixes.model import Fix
    from ddp_assist.app.machine import SoFar


class Assistant(Trials):
    # -- start and end -----------------------------------------------------------------------

    def on_mount(self) -> None:
        self.listen()
        if self.demo:
            from ddp_assist.screens.stories import Stories

            self.push_screen(Stories(self.session))
        else:
            self.open(self.session)
            self.call_after_refresh(self._find_jobs, False)

    def open(self, session: Session) -> None:
        """Home of this session, and the step where it was left."""
        if session is not self.session:
            self.session.cancel.set()
        self.session = session
        if session.case.saved is None and not session.recorded:
            session.begin()
            session.case.keep()
        self.push_screen(Home(session))
        self.say_trouble()
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

    def on_unmount(self) -> None:
        self.session.cancel.set()
        self.machine.close()
        for path in self.temporary:
            path.unlink(missing_ok=True)

    # -- looking -----------------------------------------------------------------------------

    def look(self) -> None:
        self.session.cancel.set()
        self.session.start_looking()
        self.watch_logs()
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
        self.tell_of_news()
        self.conclude()
        self.say_trouble()
        self.refresh_screen()

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

    # -- fixes -------------------------------------------------------------------------------

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
            self.conclude()
        self.push_screen(FixScreen(self.session))

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
        self.session.asking = True
        self.ticking.resume()
        self._ask_hosts(event.nodes, self.session)
        self.refresh_screen()

    @work(thread=True, exclusive=True, group="hosts", exit_on_error=False)
    def _ask_hosts(self, nodes: str, session: Session) -> None:
        from ddp_assist.app.nodes import NONE, NodesUnclear

        worker = get_current_worker()

        def begun(so_far: SoFar) -> None:
            session.hosts_so_far = so_far

        try:
            diagnosis, fixes, result = self.machine.hosts(nodes, session.question, begun)
        except NodesUnclear as why:
            session.asking = False
            said = "no nodes are known here: n names them" if str(why) == NONE else str(why)
            self.post_message(m.Said(said))
            return
        if not worker.is_cancelled and session is self.session:  # nothing else was asked meanwhile
            fixes = fixes or self._first_fixes(diagnosis)
            self.post_message(m.HostsSeen(diagnosis, result, fixes))

    def on_hosts_seen(self, event: m.HostsSeen) -> None:
        self.session.cancel.set()  # what this host alone would say comes too late
        self.session.asking, self.session.hosts_so_far = False, None
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
        case = Case(id=f"demo-{told.name}")
        self.open(Session(told.question, case, recorded=told.title))
        self.session.jobs = list(told.jobs)

    def _leave(self) -> None:
        """Back to the bottom of the stack; in the demo the list of stories stays there."""
        self.session.cancel.set()
        while len(self.screen_stack) > (2 if self.demo else 1):
            self.pop_screen()

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


def run(options: argparse.Namespace) -> int:
    """Shows the session, and leaves what matters in the scrollback."""
    session = None
    if options.resume:
        from ddp_assist.app.resume import resumed

        session = resumed(options.resume, options.question)
    plain = options.ascii or is_plain(os.environ)
    from ddp_assist.app.terminal import Terminal

    app = Assistant(options.question, session, demo=options.demo, plain=plain, driver=Terminal)
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
