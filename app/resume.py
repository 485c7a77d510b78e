"""Saved cases for the guided session: the list of them, and one of them gone on with."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddp_assist.app.case import CaseUnreadable, find, load, saved_cases
from ddp_assist.app.diagnose import Diagnosis, conclude, target_of
from ddp_assist.app.question import Question
from ddp_assist.app.session import Session
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.model import Target

MOST = 50


@dataclass(frozen=True, slots=True)
class Saved:
    """One saved case as a list shows it."""

    id: str
    when: str
    said: str


def saved(but: str) -> Sequence[Saved]:
    """The newest first; those in which nothing was asked are left out."""
    cases: list[Saved] = []
    for path in saved_cases():
        if path.stem == but or len(cases) == MOST:
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        try:
            case = load(path)
        except CaseUnreadable as why:
            cases.append(Saved(path.stem, when, str(why)))
            continue
        asked = case.last("question") or {}
        what = " ".join(asked.get("launch") or asked.get("logs") or ())
        result = (case.last("concluded") or {}).get("result", {})
        causes = result.get("causes") or []
        if case.last("symptom") or causes or what:
            cases.append(
                Saved(case.id, when, f"{causes[0]['id'] if causes else 'no cause yet'}  {what}")
            )
    return cases


def resumed(name: str, question: Question) -> Session:
    """The session of a saved case, standing where it was left."""
    case = load(find(name))
    asked = case.last("question") or {}
    question = replace(
        question,
        launch=tuple(asked.get("launch", ())),
        logs=tuple(log for log in asked.get("logs", ()) if os.path.exists(log)),
        script=Path(asked["script"]) if asked.get("script") else None,
        job=asked.get("job"),
        python=asked.get("python"),
    )
    session = Session(question, case)
    session.findings = tuple(case.findings)
    session.answered = {e["probe"] for e in case.events if e["kind"] == "asked"}
    picked = case.last("symptom")
    if picked and picked["id"] in session.symptoms:
        symptom = session.symptoms[picked["id"]]
        session.question = replace(session.question, symptom=symptom.id)
        session.trail = [symptom.start]
        for event in case.events[case.events.index(picked) :]:
            if event["kind"] == "went" and event["to"] in session.tree.steps:
                session.trail.append(event["to"])
            elif event["kind"] == "back" and len(session.trail) > 1:
                session.trail.pop()
    return session


def concluded(session: Session) -> Diagnosis:
    """What follows from the saved findings, without looking at the machine again."""
    try:
        target = target_of(session.question)
    except LaunchError:
        target = Target(env=session.question.env)
    asked = frozenset(session.answered)
    return conclude(Diagnosis(session.question, target, session.findings, asked=asked))
