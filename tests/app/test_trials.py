"""Trials of a diagnosis: what is told while they run, and what is tried where NCCL cannot be."""

from __future__ import annotations

from ddp_assist.app.diagnose import Question
from ddp_assist.app.trials import Trials
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
