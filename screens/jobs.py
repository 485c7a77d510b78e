"""The distributed jobs alive on this machine, and what each of their ranks is doing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.screens.messages import Given, JobsWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.rows import Rows

KINDS = {"env": "no launcher", "spawn": "mp.spawn"}
EVERY = 3.0
"""Seconds between two looks at the machine, while the screen is in front."""


def job_line(job: Mapping[str, Any]) -> str:
    """A live job in one line, with what is odd about it."""
    launcher = KINDS.get(job["launcher"], job["launcher"])
    return f"{launcher}, pid {job['id']}: {job['verdict']['sentence']}"


def rank_line(rank: Mapping[str, Any]) -> str:
    number = "?" if rank["rank"] is None else rank["rank"]
    return f"   rank {number:<4} pid {rank['pid']:<8} {rank['state']:<16} {rank['where']}".rstrip()


class JobsScreen(Framed):
    CSS_PATH = "jobs.tcss"
    lines: Sequence[tuple[str, str]] = ()
    BINDINGS = [
        Binding("enter", "pick", "Diagnose this job", key_display="enter"),
        Binding("r", "again(False)", "Look again"),
        Binding("s", "again(True)", "Stacks (py-spy)"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]

    def head(self) -> str:
        return "ddp-assist > Jobs alive on this machine"

    def body(self) -> ComposeResult:
        yield Line("", id="count")
        yield Rows(id="jobs")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()
        self.with_stacks = False
        self.answered: object = None
        self.set_interval(EVERY, self._look)

    def _look(self) -> None:
        """Each answer is followed by one question; stacks stay until somebody asks anew."""
        jobs = self.session.jobs
        waits = jobs is None or jobs is self.answered
        if self.is_current and not self.with_stacks and not waits:
            self.answered = jobs
            self.post_message(JobsWanted(False))

    def _lines(self) -> Iterator[tuple[str, str]]:
        """Each line with the job it belongs to."""
        for job in self.session.jobs or ():
            at = f"  meets at {job['master']}" if job["master"] else ""
            yield job["id"], job_line(job) + at
            for rank in job["ranks"]:
                yield job["id"], rank_line(rank)

    def show(self) -> None:
        jobs = self.session.jobs
        self.query_one("#count", Line).say(
            "Looking for jobs ..."
            if jobs is None
            else f"{len(jobs)} alive. Stacks pause nothing; they are asked only with s."
            if jobs
            else "No distributed job is alive here, or none that you may see."
        )
        rows = self.query_one(Rows)
        picked, below = self._picked()
        self.lines = list(self._lines())
        rows.show([line for _, line in self.lines])
        first = next((n for n, (job, _) in enumerate(self.lines) if job == picked), None)
        if first is not None:
            rows.select(first + below, by_hand=False)

    def _picked(self) -> tuple[str | None, int]:
        """The job under the cursor, and how many lines below its first: jobs come and go above."""
        if not self.lines:
            return None, 0
        cursor = self.query_one(Rows).cursor
        job = self.lines[cursor][0]
        return job, cursor - next(n for n, (other, _) in enumerate(self.lines) if other == job)

    def action_pick(self) -> None:
        if self.lines:
            job, _ = self.lines[self.query_one(Rows).cursor]
            self.app.pop_screen()
            self.post_message(Given("job", job))

    def action_again(self, with_stacks: bool) -> None:
        self.session.jobs, self.with_stacks = None, with_stacks
        self.show()
        self.post_message(JobsWanted(with_stacks))
