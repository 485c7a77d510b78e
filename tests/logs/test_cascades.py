"""One rank fails first and up to seven follow, each in other words: the first one is named.

Whatever prefix tells the ranks apart, and however their lines or files are shuffled.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Question, diagnose

TORCH = "/opt/v/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py"


def raised(error: str, *frames: str) -> list[str]:
    shown = [f'  File "{path}", line {20 + n}, in step' for n, path in enumerate(frames)]
    return ["Traceback (most recent call last):", *shown, error]


FIRST = {
    "key": (raised("KeyError: 'label'", "/w/fit.py", "/w/data.py"), "worker-crashed-first"),
    "file": (
        raised("FileNotFoundError: [Errno 2] No such file or directory: 'b.bin'", "/w/fit.py"),
        "worker-crashed-first",
    ),
    "memory": (
        raised("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "/w/m.py"),
        "worker-crashed-first",
    ),
    "shape": (
        raised("RuntimeError: shape '[8, 3]' is invalid for input of size 25", "/w/fit.py"),
        "worker-crashed-first",
    ),
    "chained": (
        [
            *raised("ZeroDivisionError: division by zero", "/w/loss.py"),
            "",
            "During handling of the above exception, another exception occurred:",
            "",
            *raised("ValueError: no loss", "/w/fit.py"),
        ],
        "worker-crashed-first",
    ),
    "descriptors": (
        raised("OSError: [Errno 24] Too many open files: '/d/9.npy'", "/w/data.py"),
        "fd-limit",
    ),
}
FOLLOWERS = (
    raised(
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] "
        "Connection closed by peer [10.0.0.2]:4011",
        "/w/fit.py",
        TORCH,
    ),
    raised(
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] "
        "Read error [10.0.0.2]:4012: Connection reset by peer",
        "/w/fit.py",
        TORCH,
    ),
    raised(
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.hpp:328, "
        "remote process exited or there was a network error, NCCL version 2.26.2",
        "/w/fit.py",
        TORCH,
    ),
    raised(
        "torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely "
        "closed. Did the remote server shutdown or crash?",
        "/w/fit.py",
        TORCH,
    ),
    raised(
        "torch.distributed.DistBackendError: [3] is setting up NCCL communicator and retrieving "
        "ncclUniqueId from [0] via c10d key-value store by key '0', but store->get('0') got "
        "error: Connection reset by peer",
        "/w/fit.py",
        TORCH,
    ),
    raised(
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] "
        "Timed out waiting 60000ms for recv operation to complete",
        "/w/fit.py",
        TORCH,
    ),
    [
        "[E1127 10:20:30.000 ProcessGroupNCCL.cpp:632] [Rank {rank}] Watchdog caught collective "
        "operation timeout: WorkNCCL(SeqNum=41, OpType=ALLREDUCE, NumelIn=9, NumelOut=9, "
        "Timeout(ms)=600000) ran for 600012 milliseconds before timing out.",
        "[E1127 10:20:30.001 ProcessGroupNCCL.cpp:684] [Rank {rank}] To avoid data inconsistency, "
        "we are taking the entire process down.",
    ],
    [],
)
"""The last one hangs: it says nothing, until its launcher ends it."""
WAITED = FOLLOWERS[5:7]
PREFIXES: dict[str, Callable[[int], str]] = {
    "torch": lambda rank: f"[rank{rank}]: ",
    "tee": lambda rank: f"[default{rank}]:",
    "both": lambda rank: f"[default{rank}]:[rank{rank}]: ",
    "srun": lambda rank: f"{rank}: ",
    "mpirun": lambda rank: f"[1,{rank}]<stderr>:",
    "sagemaker": lambda rank: f"[1,mpirank:{rank},algo-{rank // 4 + 1}]<stderr>:",
    "files": lambda rank: "",
}
KILLED = {9: "rank-oom-killed", 7: "shm-too-small", 11: "worker-crashed-first"}


@dataclass(frozen=True)
class Job:
    number: int
    world: int
    mover: int
    prefix: str
    first: str
    signal: int
    table: str
    """Whom torchrun's table calls the root: the one, a follower, or nobody for want of a table."""

    def __str__(self) -> str:
        how = f"signal {self.signal}" if self.signal else self.first
        who = f"rank {self.mover} of {self.world}"
        return f"{self.number}: {who}, {how}, {self.prefix}, table {self.table}"


def jobs() -> Iterator[Job]:
    dice = random.Random(7)
    for number in range(120):
        world = dice.randint(2, 8)
        signal = dice.choice((0, 0, 0, 9, 7, 11))
        table = "right" if signal else dice.choice(("right", "wrong", "missing"))
        yield Job(number, world, dice.randrange(world), dice.choice(list(PREFIXES)),
                  dice.choice(list(FIRST)), signal, table)  # fmt: skip


def row(rank: int, code: int) -> list[str]:
    return [
        "  time      : 2025-11-27_10:20:31",
        "  host      : n1",
        f"  rank      : {rank} (local_rank: {rank})",
        f"  exitcode  : {code} (pid: {1000 + rank})",
        "  error_file: <N/A>",
    ]


def table(job: Job, codes: dict[int, int]) -> list[str]:
    root = job.mover if job.table == "right" else (job.mover + 1) % job.world
    others = [rank for rank in codes if rank != root]
    return [
        f"E1127 10:20:31.000000 900 torch/distributed/elastic/multiprocessing/api.py:869] failed "
        f"(exitcode: {codes[root]}) local_rank: {root} (pid: {1000 + root}) of binary: /opt/v/p",
        "Failures:",
        *(line for rank in others for line in ["[1]:", *row(rank, codes[rank])]),
        "Root Cause (first observed failure):",
        "[0]:",
        *row(root, codes[root]),
    ]


def written(job: Job, said: dict[int, list[str]], folder: Path) -> tuple[str, ...]:
    """The job's logs: one of all ranks with their lines mixed, or a folder of ranks."""
    dice = random.Random(job.number)
    codes = {rank: 1 if lines else -15 for rank, lines in said.items()}
    if job.signal:
        codes[job.mover] = -job.signal
    launcher = [] if job.table == "missing" else table(job, codes)
    for rank, lines in said.items():
        prefix = PREFIXES[job.prefix](rank)
        said[rank] = [prefix + line.replace("{rank}", str(rank)) for line in lines]
    if job.prefix == "files":
        for rank, lines in said.items():
            place = folder / "logs" / "attempt_0" / str(rank)
            place.mkdir(parents=True)
            (place / "stderr.log").write_text("\n".join(lines) + "\n")
        (folder / "launcher.log").write_text("\n".join(launcher))
        names = [str(folder / "launcher.log"), str(folder / "logs")]
        dice.shuffle(names)
        return tuple(names)
    mixed: list[str] = []
    waiting = [lines[:] for lines in said.values() if lines]
    while waiting:
        lines = dice.choice(waiting)
        mixed.append(lines.pop(0))
        waiting = [lines for lines in waiting if lines]
    (folder / "job.log").write_text("\n".join(mixed + launcher) + "\n")
    return (str(folder / "job.log"),)


@pytest.mark.parametrize("job", list(jobs()), ids=str)
def test_the_first_mover_is_named(job: Job, tmp_path: Path) -> None:
    dice = random.Random(job.number)
    said = {rank: dice.choice(FOLLOWERS) for rank in range(job.world)}
    said[job.mover] = [] if job.signal else FIRST[job.first][0]
    outcome = diagnose(Question(logs=written(job, said, tmp_path), env={}, cwd=tmp_path))
    first = [f for f in outcome.findings if f.key == "story.first-failure"]
    assert [f.data.get("rank") for f in first] == [job.mover]
    wanted = KILLED[job.signal] if job.signal else FIRST[job.first][1]
    assert outcome.causes[0].cause == wanted


@pytest.mark.parametrize("job", [j for j in jobs() if not j.signal and j.table == "right"], ids=str)
def test_who_hangs_is_the_one_that_says_nothing(job: Job, tmp_path: Path) -> None:
    dice = random.Random(job.number)
    said = {rank: dice.choice(WAITED) for rank in range(job.world)}
    said[job.mover] = []
    job = replace(job, table="wrong")
    outcome = diagnose(Question(logs=written(job, said, tmp_path), env={}, cwd=tmp_path))
    silent = [f for f in outcome.findings if f.key == "story.silent-rank"]
    assert [f.data["ranks"] for f in silent] == [[job.mover]]
    assert not [f for f in outcome.findings if f.key == "story.first-failure"]
