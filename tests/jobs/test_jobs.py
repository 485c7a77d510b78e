"""Jobs that are found, judged healthy, stopped, incomplete, or asked through their own store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app import jobs
from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.app.jobs import alive
from ddp_assist.probes.host.processes import look
from ddp_assist.probes.jobs.job import PROBES
from ddp_assist.probes.jobs.live import live
from ddp_assist.probes.jobs.peek import NotAnswered, peek
from ddp_assist.probes.jobs.stacks import pyspy, read_frames, read_threads
from ddp_assist.probes.model import Target

needs_pyspy = pytest.mark.skipif(pyspy() is None, reason="needs py-spy")
JOIN = """
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
value = torch.ones(1)
"""
MEET = JOIN + """
dist.all_reduce(value)
print("sum", value.item(), flush=True)
dist.barrier()
dist.destroy_process_group()
"""
AT_WORK = JOIN + """
dist.all_reduce(value)
while True:
    value = (value * 1.0001).sin()
"""
SLOW_STEPS = JOIN + """
while True:
    time.sleep(0.3 + 0.3 * rank)
    dist.all_reduce(value)
"""
IN_TURN = """
import sys, time, torch, torch.distributed as dist, torch.multiprocessing as mp
def work(rank, world, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank,
                            world_size=world)
    time.sleep(600)
if __name__ == "__main__":
    mp.spawn(work, (3, int(sys.argv[1])), nprocs=3)
"""


@pytest.mark.parametrize("libuv", ["1", "0"])
def test_a_look_into_the_store_names_who_lacks_and_changes_nothing(
    gang: Any, libuv: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both backends of the store; afterwards the job goes on as if nobody had asked."""
    gang.before = ("env", f"USE_LIBUV={libuv}")
    gang.ranks(MEET, 3, but=[1])
    gang.shows("rank-missing")
    gang.until_joined(2)
    first = peek("127.0.0.1", gang.port, 3, lists=True)
    again = [peek("127.0.0.1", gang.port, 3, lists=lists) for lists in (False, True, False)]
    assert first.count == 2
    assert first.published == {2}  # rank 0 hosts the store and writes its own last
    assert {a.keys for a in again} == {first.keys}
    assert all((a.count, a.published) == (2, {2}) for a in again)
    said = gang.diagnosed(peek=True)
    assert said["causes"][0]["id"] == "rank-never-started"
    told = next(f for f in said["findings"] if f["probe"] == "store-peek")
    assert "2 of 3 joined" in told["sentence"]
    assert told["data"]["missing"] == [1]
    own = [shown for shown in live() if shown.scene.job.port == gang.port]
    monkeypatch.setattr(jobs, "live", lambda _: own)  # nobody else's store is touched by a test
    (mine,) = jobs.alive(touch=True)
    assert "2 of 3 joined the store" in mine["verdict"]["sentence"]
    assert mine["missing"] == [1]
    gang.rank(MEET, 1, 3)
    assert [child.wait(120) for child in gang.children] == [0, 0, 0]
    assert gang.output.count("sum 3.0") == 3


@pytest.mark.needs("strace")
def test_without_a_yes_nobody_connects_to_the_store(gang: Any, tmp_path: Path) -> None:
    gang.ranks(MEET, 3, but=[1])
    gang.shows("rank-missing")
    gang.until_joined(2)
    before = gang.connections()
    calls = tmp_path / "calls"
    said = gang.diagnosed("strace", "-f", "-o", str(calls), "-e", "trace=connect")
    assert said["causes"][0]["id"] == "rank-never-started"
    assert "store-peek" not in {f["probe"] for f in said["findings"]}
    assert gang.connections() == before
    assert "connect(" in calls.read_text()
    assert f"htons({gang.port})" not in calls.read_text()


def test_what_is_no_store_is_not_taken_for_one() -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-c", "import socket\ns=socket.create_server(('127.0.0.1',0))\n"
             "print(s.getsockname()[1], flush=True)\nc,_=s.accept()\nc.recv(9)\n"
             "c.sendall(b'x'*64)\nc.recv(999)"], stdout=subprocess.PIPE,
        ) as other, pytest.raises(NotAnswered),
    ):  # fmt: skip
        assert other.stdout is not None
        try:
            peek("127.0.0.1", int(other.stdout.readline()), 2, lists=True)
        finally:
            other.kill()


def test_a_stopped_rank_is_named_and_left_as_it_was(gang: Any) -> None:
    gang.ranks(AT_WORK, 2)
    gang.shows("healthy")
    gang.children[1].send_signal(signal.SIGSTOP)
    stopped = gang.shows("rank-stopped")
    assert (stopped.data["rank"], stopped.data["pid"]) == (1, gang.children[1].pid)
    after = look(gang.children[1].pid)
    assert after is not None
    assert after.state == "T"
    assert diagnose(Question(job=gang.children[0].pid)).causes[0].cause == "rank-stopped"


def test_ranks_that_wait_for_a_moment_are_no_hang(gang: Any) -> None:
    """Each step one of them sleeps while the other waits; five seconds show that it goes on."""
    gang.ranks(SLOW_STEPS, 2)
    gang.shows("waits-briefly")
    for _ in range(2):
        assert {f.outcome for f in gang.look()} <= {"waits-briefly", "healthy"}
    mine = [job for job in alive() if job["master"].endswith(f":{gang.port}")]
    assert [job["verdict"]["cause"] for job in mine] == [None]


@needs_pyspy
def test_spawned_ranks_are_numbered_by_their_own_word(gang: Any) -> None:
    gang.python(IN_TURN)
    found: list[dict[str, Any]] = []

    def numbered() -> bool:
        found[:] = [j for j in jobs.alive(True) if j["id"] == str(gang.children[0].pid)]
        return bool(found) and found[0]["world_size"] == 3

    gang.until(numbered)
    (shown,) = found
    assert shown["launcher"] == "spawn"
    assert [(r["rank"], r["told_by"]) for r in shown["ranks"]] == [
        (0, "start order"), (1, "start order"), (2, "start order"),
    ]  # fmt: skip
    assert shown["master"] == "" or shown["master"].endswith(f":{gang.port}")
    gang.shows("healthy")


def test_a_process_that_is_no_job() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        (finding,) = PROBES[0].look(Target(job=other.pid))
        other.kill()
    assert finding.outcome == "not-distributed"
    (finding,) = PROBES[0].look(Target(job=other.pid))
    assert finding.outcome == "unknown" and "any more" in finding.sentence


def test_the_verb_speaks_the_agreed_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ddp_assist", "jobs", "--json"], capture_output=True, check=False
    )
    said = json.loads(done.stdout)
    assert said["schema"] == "ddp-assist/jobs/1"
    for job in said["jobs"]:
        assert {"id", "launcher", "master", "world_size", "ranks", "missing", "verdict"} <= set(job)
        assert set(job["verdict"]) == {"cause", "sentence"}


def test_frames_are_read_from_the_inside_out() -> None:
    frames: list[dict[str, object]] = [
        {"name": "wait", "filename": "/x/lib/python3.11/threading.py", "line": 1},
        {"name": "all_reduce", "filename": "/x/site-packages/torch/distributed/c.py", "line": 2},
        {"name": "step", "filename": "/home/me/train.py", "line": 7},
    ]
    stack = read_frames(frames)
    assert (stack.where, stack.waits_in) == ("train.py:7 in step", "all_reduce")


def test_numbers_are_all_that_is_kept_of_a_users_variables() -> None:
    secret = {"name": "token", "repr": "'hf_abcdefgh'"}
    frames: list[dict[str, object]] = [
        {"name": "init_process_group", "filename": "/x/site-packages/torch/distributed/c.py",
         "line": 2, "locals": [{"name": "rank", "repr": "3"}, {"name": "world_size", "repr": "4"}]},
        {"name": "main", "filename": "/home/me/train.py", "line": 7,
         "locals": [secret, {"name": "step", "repr": "118"}, {"name": "rank", "repr": "1"}]},
    ]  # fmt: skip
    stack = read_frames(frames)
    assert (stack.given, stack.rank, stack.world_size) == (3, 1, 4)
    assert stack.turns == {"step": 118}
    assert "hf_" not in repr(stack)


def test_the_thread_that_trains_speaks_for_a_rank_whose_main_thread_only_joins_it() -> None:
    threading, torch = "/x/lib/python3.11/threading.py", "/x/site-packages/torch/distributed/c.py"
    main = [("Thread._wait_for_tstate_lock", threading), ("Thread.join", threading),
            ("<module>", "/home/me/train.py")]  # fmt: skip
    trains = [("all_reduce", torch), ("train", "/home/me/train.py"), ("Thread.run", threading)]
    threads = [
        {"thread_name": name, "frames": [{"name": n, "filename": f, "line": 7} for n, f in frames]}
        for name, frames in (("MainThread", main), ("Thread-1 (train)", trains))
    ]
    stack = read_threads(threads)
    assert (stack.where, stack.waits_in) == ("train.py:7 in train", "all_reduce")
