"""Trials that the screens ask for: of a fix, or of this machine alone, with their stages told."""

from __future__ import annotations

from typing import Any

from textual import work

from ddp_assist.app.session import Session
from ddp_assist.app.tui_changes import Changes
from ddp_assist.screens import messages as m


class Trials(Changes):
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
        self.conclude()
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
