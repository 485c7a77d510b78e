"""Jobs found and judged on real gloo ranks of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.probes.host.processes import look, snapshot
from ddp_assist.probes.jobs.find import Job, find_jobs
from ddp_assist.probes.jobs.job import PROBES
from ddp_assist.probes.jobs.stacks import pyspy, read_frames
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.network.ports import free_port

MEET = """
import os, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
value = torch.ones(1)
"""
ONE_ELSEWHERE = (
    MEET
    + """
if rank == 1:
    print("up", flush=True)
    while True: time.sleep(0.05)
print("up", flush=True)
dist.all_reduce(value)
"""
)
AT_WORK = (
    MEET
    + """
dist.all_reduce(value)
print("up", flush=True)
while True: value = (value * 1.0001).sin()
"""
)


class Gang:
    """Ranks that were started as plain processes."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder, self.port = stack, folder, free_port()
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, source: str, rank: int, world: int) -> None:
        script = self.folder / "train.py"
        script.write_text(source)
        env = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, str(script)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.stack.callback(child.wait, 20)
        self.stack.callback(child.kill)
        self.children.append(child)

    def are_up(self) -> None:
        for child in self.children:
            assert child.stdout is not None
            assert b"up" in child.stdout.readline()

    @property
    def job(self) -> Job:
        return next(job for job in find_jobs(snapshot()) if job.port == self.port)

    def look(self) -> list[Finding]:
        return list(PROBES[0].look(Target(job=self.children[0].pid)))


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[Gang]:
    with ExitStack() as stack:
        yield Gang(stack, tmp_path)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def waits(gang: Gang) -> Callable[[], bool]:
    return lambda: (
        any(f.outcome in ("meeting", "rank-missing") for f in gang.look())
        and all((p := look(c.pid)) is not None and p.state == "S" for c in gang.children)
    )


def test_a_rank_that_never_started_is_named(gang: Gang) -> None:
    for rank in (0, 2):
        gang.start(MEET, rank, 3)
    until(waits(gang))
    (missing,) = [f for f in gang.look() if f.outcome == "rank-missing"]
    assert missing.data["missing"] == [1]
    assert gang.job.world_size == 3
    diagnosis = diagnose(Question(job=gang.children[0].pid))
    assert diagnosis.causes[0].cause == "rank-never-started"


def test_a_stopped_rank_is_named_and_left_as_it_was(gang: Gang) -> None:
    for rank in (0, 1):
        gang.start(AT_WORK, rank, 2)
    gang.are_up()
    gang.children[1].send_signal(signal.SIGSTOP)
    until(lambda: (p := look(gang.children[1].pid)) is not None and p.state == "T")
    (stopped,) = [f for f in gang.look() if f.outcome == "rank-stopped"]
    assert (stopped.data["rank"], stopped.data["pid"]) == (1, gang.children[1].pid)
    after = look(gang.children[1].pid)
    assert after is not None
    assert after.state == "T"
    diagnosis = diagnose(Question(job=gang.children[0].pid))
    assert diagnosis.causes[0].cause == "rank-stopped"


@pytest.mark.skipif(pyspy() is None, reason="needs py-spy")
def test_the_rank_that_does_not_enter_the_collective_is_the_odd_one(gang: Gang) -> None:
    for rank in (0, 1):
        gang.start(ONE_ELSEWHERE, rank, 2)
    gang.are_up()
    until(lambda: any(f.outcome == "behind" for f in gang.look()))
    (behind,) = [f for f in gang.look() if f.outcome == "behind"]
    assert behind.data["rank"] == 1
    assert "train.py" in behind.data["where"]


def test_ranks_at_work_are_healthy(gang: Gang) -> None:
    for rank in (0, 1):
        gang.start(AT_WORK, rank, 2)
    gang.are_up()
    assert [f.outcome for f in gang.look()] == ["healthy"]
    assert gang.job.missing == []


def test_a_process_that_is_no_job() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        (finding,) = PROBES[0].look(Target(job=other.pid))
        other.kill()
    assert finding.outcome == "not-distributed"


def test_frames_are_read_from_the_inside_out() -> None:
    frames: list[dict[str, object]] = [
        {"name": "wait", "filename": "/x/lib/python3.11/threading.py", "line": 1},
        {"name": "all_reduce", "filename": "/x/site-packages/torch/distributed/c.py", "line": 2},
        {"name": "step", "filename": "/home/me/train.py", "line": 7},
    ]
    stack = read_frames(frames)
    assert (stack.where, stack.waits_in) == ("train.py:7 in step", "all_reduce")
