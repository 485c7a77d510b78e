"""Which stage and which ranks a course of events is told as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ddp_assist.probes.model import Target
from ddp_assist.probes.trial.errors import explain
from ddp_assist.probes.trial.picture import Picture, line
from ddp_assist.probes.trial.probe import OUTCOMES, PROBES, finding, spec_for
from ddp_assist.probes.trial.spec import STAGES, Stage, TrialSpec
from ddp_assist.probes.trial.verdict import Course

SCHEMA = json.loads((Path(__file__).parents[2] / "assets/schema/trial.json").read_text())
EACH = ("connect", "rendezvous", "group", "all-reduce", "clean-up")


def passed(stage: str, *ranks: int | None) -> list[dict[str, Any]]:
    return [
        {"event": "stage", "stage": stage, "state": "passed", "rank": r, "seconds": 0.1}
        for r in ranks
    ]


def failed(stage: str, rank: int | None, error: str, kind: str = "") -> dict[str, Any]:
    return {
        "event": "stage", "stage": stage, "state": "failed", "rank": rank, "seconds": 0.2,
        "error": error, "kind": kind, "type": "RuntimeError",
    }  # fmt: skip


def begun(stage: str, rank: int) -> dict[str, Any]:
    return {"event": "stage", "stage": stage, "state": "begun", "rank": rank, "pid": 1000 + rank}


ONCE = [event for stage in STAGES[:5] for event in passed(stage, None)]
PEER = "Connection closed by peer [127.0.0.1]:41234"


def course(nproc: int, *events: dict[str, Any] | list[dict[str, Any]]) -> Course:
    told = Course(TrialSpec(nproc=nproc))
    for event in [*ONCE, *events]:
        for one in event if isinstance(event, list) else [event]:
            told.hear(one)
    told.close("still not done after 30.0 s")
    return told


CASES: dict[str, tuple[Course, str, tuple[int, ...]]] = {
    "all pass": (course(2, *[passed(s, 0, 1) for s in EACH]), "joined", ()),
    "nobody got anywhere": (course(2), "connect", (0, 1)),
    "one never came": (
        course(3, passed("connect", 0, 1, 2), begun("rendezvous", 0), begun("rendezvous", 2)),
        "rendezvous", (1,),
    ),
    "those who waited agree on who was absent": (
        course(4, passed("connect", 0, 1, 2, 3), begun("rendezvous", 2),
               failed("rendezvous", 0, "ranks [2] did not come", "absent"),
               failed("rendezvous", 1, "ranks [2] did not come", "absent"),
               failed("rendezvous", 3, "ranks [1, 2] did not come", "absent")),
        "rendezvous", (2,),
    ),
    "who noticed is further behind than who died": (
        course(2, passed("connect", 0, 1), passed("rendezvous", 0), begun("group", 0),
               failed("rendezvous", 1, PEER), {"event": "exit", "rank": 0, "code": -11}),
        "group", (0,),
    ),
    "who died comes before who noticed": (
        course(3, *[passed(s, 0, 1, 2) for s in EACH[:3]], begun("all-reduce", 1),
               failed("all-reduce", 0, PEER), failed("all-reduce", 2, PEER),
               {"event": "exit", "rank": 1, "code": -9}),
        "all-reduce", (1,),
    ),
    "all fail alike": (
        course(2, passed("connect", 0, 1), passed("rendezvous", 0, 1),
               failed("group", 0, "Unable to find address for: eth9"),
               failed("group", 1, "Unable to find address for: eth9")),
        "group", (),
    ),
    "one has another interface": (
        course(2, passed("connect", 0, 1), passed("rendezvous", 0, 1),
               failed("group", 1, "Unable to find address for: eth9"),
               failed("group", 0, "timed out waiting")),
        "group", (1,),
    ),
    "a rank without a stage is gone": (
        course(2, passed("connect", 0), {"event": "exit", "rank": 1, "code": -9}), "connect", (1,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    told, outcome, missing = CASES[name]
    result = told.result("")
    assert (result.outcome, result.missing) == (outcome, missing), result.sentence
    assert result.joined == (outcome == "joined") == (not result.errors and "did not" not in
                                                      result.sentence)  # fmt: skip
    jsonschema.validate(json.loads(json.dumps(result.as_json())), SCHEMA)


def test_who_was_called_off_says_because_of_whom() -> None:
    told = course(2, begun("rendezvous", 0), failed("backend", 1, "no GPU 1", "few-gpus"),
                  {"event": "left", "ranks": [0]})  # fmt: skip
    result = told.result("")
    assert (result.outcome, result.missing, result.kind) == ("backend", (1,), "few-gpus")
    assert "ended while it waited: rank 1 had failed" in result.errors


@pytest.mark.parametrize("event", [
    {"event": "left"}, {"event": "left", "ranks": ["0", None]}, {"event": "left", "ranks": 3},
    {"event": "stage"}, {"event": "stage", "stage": "nonsense", "state": "passed"},
    {"event": "stage", "stage": ["connect"], "state": "passed"},
    {"event": "stage", "stage": "connect", "state": "passed", "rank": 99, "seconds": "x"},
    {"event": "stage", "stage": "connect", "state": {}, "rank": [1]},
    {"event": "exit", "rank": "0", "code": None}, {"event": "exit", "rank": 0, "code": "x"},
    {"event": "stage", "stage": "listen", "state": "passed", "port": "seven"},
    {"event": "\x1b]52;c;eA==\x07"},
])  # fmt: skip
def test_no_event_can_break_the_course(event: dict[str, Any]) -> None:
    told = Course(TrialSpec())
    told.hear(event)
    assert told.result("").outcome in STAGES


@pytest.mark.parametrize(("stage", "error", "kind"), [
    ("torch-import", "No module named 'torch'", "no-torch"),
    ("torch-import", "libcudart.so.12: cannot open shared object file: No such file",
     "library-missing"),
    ("torch-import", "/x/libtorch.so: undefined symbol: iJIT_NotifyEvent", "library-mismatch"),
    ("torch-import", "module 'random' has no attribute 'Random'", "shadowed"),
    ("group", "Unable to find address for: eth9", "interface-missing"),
    ("group", "bind: Cannot assign requested address", "interface-down"),
    ("group", "Bootstrap : no socket interface found", "interface-missing"),
    ("all-reduce", "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000",
     "gpu-twice"),
    ("group", "Failed to recv, got 0 bytes. Connection was likely closed.", "peer-left"),
    ("all-reduce", "Read error [127.0.0.1]:33: Connection reset by peer", "peer-left"),
    ("group", "Gloo connectFullMesh failed with ... Connect timeout [none]", "timed-out"),
    ("group", "something new", "other"),
])  # fmt: skip
def test_kinds_of_errors(stage: str, error: str, kind: str) -> None:
    got, sentence = explain(stage, {"error": error, "type": "X"}, "10.0.0.1", 29500)
    assert got == kind
    assert error[:40] in sentence


def test_the_probe_answers_with_every_outcome_there_is() -> None:
    (probe,) = PROBES
    assert set(OUTCOMES) == {"joined", *STAGES} == set(probe.outcomes)
    assert probe.weight("joined") == "ok" and not probe.disturbs and not probe.applies(Target())
    found = finding(CASES["one never came"][0].result("a\nb"))
    assert found.key == "trial.rendezvous" and found.data["missing"] == [1]
    json.dumps(dict(found.data))
    assert spec_for(Target(backend="mpi")).backend == "gloo"


def test_picture_shows_each_rank_and_how_far_it_is() -> None:
    picture = Picture()
    for stage in (Stage("name"), Stage("connect", 1, state="begun"),
                  Stage("connect", 0, error="refused", state="failed")):  # fmt: skip
        picture(stage)
    assert picture.lines() == [
        "all ranks  name ok", "rank 0     connect FAILED", "rank 1     connect ...",
    ]  # fmt: skip
    assert line(Stage("connect", 1, 0.0021)) == "rank 1     connect       ok 2 ms"
    assert "refused" in line(Stage("connect", 0, error="refused", state="failed"))
