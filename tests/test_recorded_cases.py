"""Every recorded case walks to what it expects, and never to what it forbids."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.diagnose import COMPLAINTS, Diagnosis, Question, conclude
from ddp_assist.probes.catalogue import READERS, probes
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.runner import run

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CASES = sorted((Path(__file__).parent / "cases").rglob("*.toml"))


def walked(case: dict[str, Any], folder: Path) -> Diagnosis:
    findings = [
        Finding(*entry["key"].split(".", 1), entry["sentence"], entry.get("data", {}))
        for entry in case.get("finding", ())
    ]
    asked = {f.probe for f in findings}
    target = Target(env={})
    if case.get("log"):
        log = folder / "pasted.log"
        log.write_text(case["log"])
        target = Target(env={}, logs=(str(log),))
        readers = [p for p in probes() if p.id in READERS]
        findings += run(readers, target)
        asked |= {p.id for p in readers}
    question = Question(env={}, symptom=case.get("symptom"))
    return conclude(Diagnosis(question, target, tuple(findings), asked=frozenset(asked)))


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recorded_case(path: Path, tmp_path: Path) -> None:
    case = tomllib.loads(path.read_text("utf-8"))
    named = [ranked.cause for ranked in walked(case, tmp_path).causes]
    if case["expect"]:
        assert named, case["about"]
        assert named[0] in case["expect"], (named[:4], case["about"])
    else:
        assert named == [], case["about"]
    if case.get("never") and named:
        assert named[0] not in case["never"], case["about"]


def test_cases_speak_of_what_probes_say() -> None:
    known = {f"{p.id}.{o}" for p in probes() for o in (*p.outcomes, "unknown")}
    for path in CASES:
        for entry in tomllib.loads(path.read_text("utf-8")).get("finding", ()):
            assert entry["key"] in known, f"{path.parent.name}/{path.name}: {entry['key']}"


def test_complaints_are_probes() -> None:
    assert {p.id for p in probes()} >= COMPLAINTS
