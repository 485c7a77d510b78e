"""The whole tree as text: where the walk stands, what is ruled out and by what, what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddp_assist.probes.model import matches

if TYPE_CHECKING:
    from ddp_assist.app.session import Session
    from ddp_assist.app.tree import Step
    from ddp_assist.app.walk import Ranked


def outline(session: Session) -> list[str]:
    tree = session.tree
    symptom = session.symptoms.get(session.question.symptom or "")
    ranked = {r.cause: r for r in session.diagnosis.ranked} if session.diagnosis else {}
    if symptom is None:
        return ["No symptom was picked yet.", "", *_left(ranked)]
    lines = [symptom.title]
    shown: set[str] = set()

    def draw(name: str, depth: int) -> None:
        step, pad = tree.steps[name], "  " * depth
        here = "   <- you are here" if session.trail and session.trail[-1] == name else ""
        mark = ">" if name in session.trail else " "
        if name in shown:
            lines.append(f"{mark} {pad}{step.question}  (see above)")
            return
        shown.add(name)
        lines.append(f"{mark} {pad}{step.question}{here}")
        for finding in _answers(session, step):
            lines.append(f"  {pad}  seen: {finding}")
        for to in {(to.name, to.is_step): to for to in step.targets()}.values():
            if to.is_step:
                draw(to.name, depth + 1)
            else:
                lines.append(f"  {pad}  {_cause(to.name, ranked, session)}")

    draw(symptom.start, 0)
    return [*lines, "", *_left(ranked)]


def _answers(session: Session, step: Step) -> list[str]:
    return [
        finding.sentence
        for finding in session.findings
        if any(matches(finding.key, key) for key in step.on)
    ]


def _cause(name: str, ranked: dict[str, Ranked], session: Session) -> str:
    title = session.tree.pages[name].title
    if name in ranked and ranked[name].hidden_by is None:
        return f"[{ranked[name].certainty}] {title}"
    if name in ranked:
        return f"[explained by {ranked[name].hidden_by}] {title}"
    return f"[{'open' if session.diagnosis is None else 'ruled out'}] {title}"


def _left(ranked: dict[str, Ranked]) -> list[str]:
    left = [r for r in ranked.values() if r.hidden_by is None and r.cause != "benign"]
    return ["What is left, the likeliest first:"] + [f"  {r.certainty:<9} {r.cause}" for r in left]
