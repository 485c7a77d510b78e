"""What leaves this process or changes something: a process ended, text copied, files written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from textual import work

from ddp_assist.app.tui_shell import Shell
from ddp_assist.screens import messages as m


class Changes(Shell):
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

        result = self.result()
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

        result = self.result()
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
