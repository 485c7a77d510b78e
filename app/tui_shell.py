"""The app as a shell: its signals, its end, one line to the user, and when a screen is drawn."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.driver import Driver
from textual.filter import LineFilter
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from ddp_assist.app.gate import Gate
from ddp_assist.app.machine import Live, Machine
from ddp_assist.app.question import Question
from ddp_assist.app.session import Session
from ddp_assist.probes.text import clean
from ddp_assist.screens import messages as m
from ddp_assist.screens.widgets.frame import Framed

if TYPE_CHECKING:
    from ddp_assist.app.watching import Watched

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
BREATH = 0.05
"""Seconds in which answers gather before the screen shows them: a slow link gets fewer paints."""


class Shell(App[int]):
    CSS = """
    Screen { background: $background; overflow: hidden; }
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
        driver: type[Driver] | None = None,
    ) -> None:
        super().__init__(driver_class=driver)
        self.session = session or Session(question)
        self.machine = machine or Live()
        self.demo, self.plain = demo, plain
        self.warned = False
        self.stale = False
        self.temporary: list[Path] = []
        self.exported: Path | None = None
        self.crash: Path | None = None
        self.watched: Watched | None = None

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), Gate(self.plain)]

    def listen(self) -> None:
        """To signals, as long as there is a loop; and to the clock, while somebody waits."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.exit, 128 + number)
        self.ticking = self.set_interval(1.0, self._tick, pause=True)

    def watch_logs(self) -> None:
        """From where they end now: what is written while they are read is new as well."""
        self.watched = None
        if self.session.question.logs:
            from ddp_assist.app.watching import Watched

            self.watched = Watched(self.session.question.logs, self._from_a_thread)

    def _from_a_thread(self, line: str) -> None:
        self.post_message(m.Said(line))

    def tell_of_news(self) -> None:
        """Once all is read, each new kind of failure that a log shows is said."""
        if self.watched is not None:
            known = {f.outcome for f in self.session.findings if f.probe == "log"}
            self.watched.begin(known, self.session.cancel)
            self.watched = None

    def say_trouble(self) -> None:
        """A case that can't be saved is said once, and the session goes on."""
        if self.session.case.trouble:
            self.say(self.session.case.trouble)
            self.session.case.trouble = ""

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
        if self._exit:
            return  # what fails to be drawn on the way out is missed by nobody
        from ddp_assist.app.report.crash import write_crash

        self.crash = write_crash(error, sys.argv)
        self._return_code = 4
        self.exit(4, message=f"ddp-assist: internal error, see {self.crash} (redacted)")

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A worker that fails is said, and nobody waits for it for ever."""
        if event.state is WorkerState.ERROR and event.worker.error is not None:
            from ddp_assist.app.report.crash import write_crash

            path = write_crash(event.worker.error, sys.argv)
            self.session.looking, self.session.trying = False, None
            self.session.asking, self.session.hosts_so_far = False, None
            self.say(f"that failed inside ddp-assist ({path}); r looks again")
            self.refresh_screen()

    # -- what is known reaches the case and the screen ----------------------------------------

    def conclude(self) -> None:
        """What follows from all that is known reaches the saved case."""
        result = self.result()
        if result is not None:
            self.session.case.add("concluded", result=result)

    def result(self) -> dict[str, Any] | None:
        if self.session.diagnosis is None:
            return None
        from ddp_assist.app.saying import as_json

        return as_json(self.session.diagnosis, self.session.fixes)

    def _tick(self) -> None:
        """Once a second, and only while somebody waits: nothing is sent when nothing happens."""
        session = self.session
        if not session.looking and not session.asking and session.trying is None:
            self.ticking.pause()
        self.refresh_screen()

    def refresh_screen(self) -> None:
        if not self.stale:
            self.stale = True
            self.set_timer(BREATH, self._show)

    def _show(self) -> None:
        self.stale = False
        if self.screen_stack and isinstance(self.screen, Framed):
            self.screen.show()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """None: Textual's own would bring a screenshot, which holds what the report redacts."""
        return ()

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        raise RuntimeError("a screenshot would hold what the report redacts")
