"""Trials of a diagnosis: what is told while they run, and what is tried where NCCL cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.app import prove
from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.trials import Trials
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.trial.spec import Stage


def test_where_nccl_cannot_be_tried_the_meeting_still_is() -> None:
    stages: list[Stage] = []
    said: list[str] = []
    with Trials(Question(env={}), stages.append, said.append) as trials:
        joined, sentence = trials.meet({"backend": "nccl", "nproc": 2, "env": {}})
    if "nccl joined" in sentence:  # this host has GPUs: then it was tried
        return
    assert joined and sentence.startswith("2 ranks of gloo joined")
    assert "NCCL itself could not be tried here" in sentence and "torch" in sentence
    assert said == ["a trial takes up to 1024 MiB of each of the GPUs 0, 1 for at most 30 s"]
    assert {s.rank for s in stages if s.stage == "all-reduce"} == {0, 1}
    assert trials.last is not None and trials.last["backend"] == "gloo"


def test_a_trial_that_never_came_to_meet_says_nothing_of_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a starved machine torch is still loading when the time is over."""
    asked = Question(env={})
    with Trials(asked) as trials:
        joined, sentence = trials.meet({"backend": "gloo", "nproc": 2, "env": {}, "deadline": 0.05})
    assert joined is None and "still not done" in sentence
    seen = diagnose(asked)
    monkeypatch.setattr(prove, "look_again", lambda *_: seen)
    launch = read_launch("torchrun --nproc-per-node=2 t.py", {}, Path("/"))
    fix = Fix("port-held-by-service", "another port", "command", launch, trial={"nproc": 2})
    for told, badge in ((None, "holds"), (False, "failed"), (True, "ran")):
        proven = prove.prove(seen, fix, lambda _, told=told: (told, "so it went"))  # type: ignore[misc]
        assert (proven.badge, "so it went" in proven.why) == (badge, True)
        assert ("could not be tried" in proven.why) == (told is None)
