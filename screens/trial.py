"""A trial here: ranks of our own meet for a moment, and each one's way is seen."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.messages import TrialWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.lines import Page

BACKENDS = ("gloo", "nccl", "store")
MOST = 64


class TrialScreen(Framed):
    CSS_PATH = "trial.tcss"
    BINDINGS = [
        Binding("enter", "start", "Start the trial", key_display="enter"),
        Binding("g", "backend", "Backend"),
        Binding("plus,equals_sign", "ranks(1)", "More ranks", key_display="+"),
        Binding("minus", "ranks(-1)", "Fewer", key_display="-"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]
    backend = "gloo"
    ranks = 2

    def head(self) -> str:
        return "ddp-assist > Trial on this machine"

    def body(self) -> ComposeResult:
        yield Line("", id="what")
        yield Page(id="picture")

    def on_mount(self) -> None:
        self.query_one(Page).focus()

    def show(self) -> None:
        names = "  ".join(f"[{b}]" if b == self.backend else b for b in BACKENDS)
        self.query_one("#what", Line).say(
            f"Backend  {names}     Ranks  {self.ranks}\n"
            "Our own ranks meet on 127.0.0.1 and do one all_reduce. Nothing of yours runs, and "
            "after at most 30 s nothing of it is left." + self._cost()
        )
        self.query_one(Page).say("\n".join(self._picture()))

    def _cost(self) -> str:
        from ddp_assist.probes.trial.spec import TrialSpec

        cost = TrialSpec(backend=self.backend, nproc=self.ranks).cost
        return f"\nWith NCCL {cost}." if cost else ""

    def _picture(self) -> list[str]:
        if self.session.trying is not None:
            return ["running ...", "", *self.session.trying.lines()]
        if self.session.tried is None:
            return ["not started yet"]
        from ddp_assist.probes.trial.picture import render

        tried = self.session.tried
        return ["JOINED" if tried.joined else "NOT JOINED", "", *render(tried).splitlines()]

    def action_start(self) -> None:
        self.post_message(TrialWanted(self.backend, self.ranks))

    def action_backend(self) -> None:
        self.backend = BACKENDS[(BACKENDS.index(self.backend) + 1) % len(BACKENDS)]
        self.show()

    def action_ranks(self, by: int) -> None:
        self.ranks = max(1, min(MOST, self.ranks + by))
        self.show()
