"""When silence is a hang, without a job: what the looks show is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ddp_assist.app import watch
from ddp_assist.app.watch import Watch, is_evident
from ddp_assist.probes.model import Finding


def seen(key: str, **data: Any) -> Any:
    probe, _, outcome = key.partition(".")
    finding = Finding(probe, outcome, "said", data)
    bad = {"job.behind": "bad"}
    return SimpleNamespace(findings=(finding,), weights=bad, causes=[], question=None)


def judged(looks: list[Any], after: float = 10.0) -> list[bool]:
    told: list[Any] = []
    kept: Any = SimpleNamespace(last=0.0)
    asked: Any = None
    guard = Watch(kept, asked, after, lambda found: not told.append(found))
    answers = []
    for look in looks:
        guard.begun, guard.found = 1.0, look
        answers.append(not guard.told and guard._judge())
    return answers


def test_a_gpu_that_is_waited_for_is_a_hang_when_the_next_look_shows_the_same_turn() -> None:
    same = seen("job.gpu-wait", where="train.py:9", turns={"step": 118})
    later = seen("job.gpu-wait", where="train.py:9", turns={"step": 119})
    assert judged([same, same]) == [False, True]
    assert judged([same, later, later]) == [False, False, True]
    assert judged([same, seen("job.healthy"), same]) == [False, False, False]


def test_without_a_counter_nothing_tells_a_long_step_from_a_hang() -> None:
    uncounted = seen("job.gpu-wait", where="train.py:9", turns={})
    assert judged([uncounted] * 3) == [False, False, False]


@pytest.mark.parametrize(("key", "hung"), [
    ("job.behind", True), ("job.healthy", False), ("job.waits-briefly", False),
    ("job.gpu-wait", False)])  # fmt: skip
def test_what_the_ranks_show(key: str, hung: bool) -> None:
    assert is_evident(seen(key), 10.0) is hung


def test_a_core_that_nccl_may_use_for_waiting_is_no_work() -> None:
    process: Any = SimpleNamespace(thread_names=("python", "pt_nccl_watchdg"))
    assert watch.in_nccl(process)
    process.thread_names = ("python", "pt_gloo_runloop")
    assert not watch.in_nccl(process)
