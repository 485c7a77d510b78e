from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ddp_assist.probes.logs import ras, story
from ddp_assist.probes.logs.ranks import Line, taken_apart, tracebacks
from ddp_assist.probes.model import Finding, Target

OWN = (
    "Traceback (most recent call last):",
    '  File "/home/ann/fit.py", line 12, in main',
    "    frob()",
    "ZeroDivisionError: division by zero",
)
PEER = (
    "Traceback (most recent call last):",
    '  File "/opt/py/lib/python3.11/site-packages/torch/distributed/x.py", line 9, in f',
    "    work.wait()",
    "RuntimeError: [pair.cc:553] Connection closed by peer [10.0.0.2]:41000",
)


def lines(*texts: str) -> list[Line]:
    return [taken_apart("job.log", number, text) for number, text in enumerate(texts, 1)]


def told(*texts: str) -> dict[str, Finding]:
    return {finding.outcome: finding for finding in story.told(lines(*texts))}


def of(rank: int, texts: tuple[str, ...]) -> list[str]:
    return [f"[rank{rank}]: {text}" for text in texts]


@pytest.mark.parametrize(
    ("text", "rank", "host", "timed"),
    [
        ("[rank3]: hello", 3, None, False),
        ("[default7]:[rank7]: hello", 7, None, False),
        ("5: hello", 5, None, False),
        ("[1,4]<stderr>: hello", 4, None, False),
        ("[1,mpirank:5,algo-2]<stderr>:hello", 5, "algo-2", False),
        ("gpu12: 3: hello", 3, "gpu12", False),
        ("[rank1]:[E1120 19:26:38.678 x.cpp:1] hello", 1, None, True),
        ("2026-11-20 19:26:38,123 hello", None, None, True),
        ("W1120 20:18:33.409000 19 torch/x.py:1] hello", None, None, True),
        ("[E1332 25:61:61.9 x.cpp:1] hello", None, None, False),
        ("worker3:812:830 [2] NCCL INFO hello", None, "worker3", False),
        ("[rank99999999]: hello", None, None, False),
    ],
)
def test_lines_are_taken_apart(text: str, rank: int | None, host: str | None, timed: bool) -> None:
    line = taken_apart("f", 1, text)
    assert (line.rank, line.host, line.when is not None) == (rank, host, timed)


def test_eight_interleaved_tracebacks_come_apart() -> None:
    mixed = [f"[rank{rank}]: {text}" for text in OWN for rank in (3, 1, 4, 0, 5, 7, 2, 6)]
    found = tracebacks(lines(*mixed))
    assert sorted(one.rank for one in found if one.rank is not None) == list(range(8))
    assert all(one.frames == [("/home/ann/fit.py", 12, "main")] for one in found)


def test_the_rank_with_an_error_of_its_own_is_first_though_it_prints_last() -> None:
    found = told(*of(0, PEER), *of(2, PEER), *of(1, OWN))
    assert found["first-failure"].data["rank"] == 1
    assert found["first-failure"].data["followers"] == [0, 2]
    assert found["script-error"].data["script_line"] == 12


def test_where_everything_follows_the_other_log_is_asked_for() -> None:
    assert set(told(*of(0, PEER))) == {"cascade-only"}


def test_the_chain_leads_to_where_it_began() -> None:
    link = ("", "During handling of the above exception, another exception occurred:", "")
    late = (*OWN[:3], "AssertionError: no group")
    found = told(*OWN, *link, *late)
    assert found["first-failure"].data["exception"] == "ZeroDivisionError"


def test_a_killed_rank_comes_before_those_that_lost_it() -> None:
    table = ("  rank      : 1 (local_rank: 1)", "  exitcode  : -9 (pid: 77)",
             "  rank      : 0 (local_rank: 0)", "  exitcode  : -15 (pid: 76)")  # fmt: skip
    found = told(*of(0, PEER), *table)
    assert found["killed-9"].data["rank"] == 1
    assert found["first-failure"].data["rank"] == 1
    assert "killed-15" not in found, "the launcher ended rank 0"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("torch.distributed.elastic.SignalException: Process 9 got signal: 15", "killed-15"),
        ("W1 Received 1 death signal, shutting down workers", "killed-1"),
        ("run.sh: line 3:  812 Segmentation fault      (core dumped) python t.py", "segfault-11"),
        ("srun: error: n1: task 2: Bus error", "bus-7"),
        ("process 1 terminated with signal SIGABRT", "abort-6"),
        ("rank 3 exited with code 137", "killed-9"),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=1.0", "killed-9"),
    ],
)
def test_ends_are_told_by_their_signal(text: str, outcome: str) -> None:
    assert outcome in told(text)


def test_an_abort_after_the_work_is_no_failure() -> None:
    noise = "terminate called without an active exception"
    assert told("done", noise, "E1 failed (exitcode: -6) local_rank: 0 (pid: 4) of binary") == {}


def test_a_path_that_speaks_of_oom_kills_nobody() -> None:
    assert told('  File "/home/x/rank-oom-kill-test/a.py", line 3') == {}


def test_the_silent_rank_is_pointed_at() -> None:
    found = told("world_size=4", *of(0, PEER), *of(1, PEER), "[rank3]: hello")
    assert found["silent-rank"].data["ranks"] == [2]


def test_who_left_early_is_the_gap_among_those_that_lost_it() -> None:
    found = told(*of(0, PEER), *of(2, PEER), *of(3, PEER))
    assert found["silent-rank"].data["ranks"] == [1]
    assert "silent-rank" not in told(*of(4, PEER), *of(6, PEER)), "the other node has the rest"


def test_a_syntax_error_has_no_header() -> None:
    found = told('  File "/home/ann/fit.py", line 4', "    for", "SyntaxError: invalid syntax")
    assert found["script-error"].data["script_line"] == 4


def test_ras_names_who_is_behind() -> None:
    text = (
        "#0-0 (27a079b828ff1a75) MISMATCH",
        "  Communicator ranks have different collective operation counts",
        "  3 ranks have launched up to operation 41",
        "  1 rank has launched up to operation 40",
        "  Rank 2 -- GPU 2 managed by process 990 on node 10.1.1.4",
    )
    (finding,) = ras.told(lines(*text))
    assert finding.outcome == "rank-behind"
    assert (finding.data["rank"], finding.data["last"], finding.data["front"]) == (2, 40, 41)


SCRIPT = """
import os, sys, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
how = sys.argv[1]
dist.all_reduce(torch.ones(1))
if rank == 1 and how == "raises":
    raise KeyError("shard-17")
if rank == 1 and how == "dies":
    os.kill(os.getpid(), 9)
if rank == 1 and how == "leaves":
    os._exit(0)
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("how", "outcome"),
    [("raises", "script-error"), ("dies", "killed-9"), ("leaves", "silent-rank")],
)
def test_real_ranks(how: str, outcome: str, tmp_path: Path) -> None:
    import subprocess

    pytest.importorskip("torch", reason="needs torch for real ranks")
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT)
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3",
         str(script), how], capture_output=True, timeout=120, check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    log = tmp_path / "job.log"
    log.write_bytes(ran.stdout + ran.stderr)
    found = {f.outcome: f for f in story.look(Target(logs=(str(log),)))}
    assert outcome in found, ran.stderr.decode(errors="replace")[-3000:]
    pointed = found.get("first-failure") or found["silent-rank"]
    assert pointed.data["rank"] == 1


ANNOUNCED = [f"initializing ddp: GLOBAL_RANK: {n}, MEMBER: {n + 1}/4" for n in range(4)]


def test_ranks_that_never_announced_themselves_are_named() -> None:
    found = told(*ANNOUNCED[:2])["ranks-unannounced"]
    assert found.data["ranks"] == [2, 3]


@pytest.mark.parametrize(
    "near",
    [
        ANNOUNCED,
        ANNOUNCED[:1],
        ANNOUNCED[1:3],
        [*ANNOUNCED[:2], ANNOUNCED[1]],
        [*ANNOUNCED[:2], "All distributed processes registered. Starting with 4 processes"],
        [*ANNOUNCED[:2], "Epoch 3: 40%"],
    ],
)
def test_all_of_them_one_line_another_node_and_a_job_under_way_name_nobody(near: list[str]) -> None:
    assert "ranks-unannounced" not in told(*near)


def test_a_traceback_of_a_program_of_the_system_is_no_rank() -> None:
    aside = [line.replace("/home/ann/fit.py", "/usr/bin/aws") for line in OWN]
    assert "first-failure" not in told(*aside)
    assert "first-failure" in told(*(line.replace("/aws", "/torchrun") for line in aside))


def test_what_python_itself_ignores_is_no_failure() -> None:
    ignored = "Exception ignored in: <function _DataLoader.__del__ at 0x7f>"
    assert "first-failure" not in told(ignored, *OWN)
    assert told(ignored, *OWN, *OWN)["first-failure"].data["line"] == 9


def test_the_last_line_alone_is_a_failure_where_torch_labels_it() -> None:
    only = "[rank2]: KeyError: 'shard-17'"
    assert told(only)["first-failure"].data["rank"] == 2
    assert "first-failure" not in told("KeyError: 'shard-17'")
    assert "first-failure" not in told("[rank2]: error: shard-17 is missing")
    # What follows an exception is its message.
    last = "[rank1]: ncclSystemError: System call failed"
    assert len(told(*of(1, OWN), last)["first-failure"].evidence) == 1
    assert told(*of(1, PEER), last).keys() == {"cascade-only"}
    waited = "[rank0]: RuntimeError: [unbound_buffer.cc:78] Timed out waiting 6ms for recv"
    assert "first-failure" not in told(waited)
