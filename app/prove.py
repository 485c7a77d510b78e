"""Fixes for the causes found, each with the badge it earned here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddp_assist.app.diagnose import Diagnosis, Question, diagnose
from ddp_assist.app.fixes.catalogue import builders
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.app.tree import page
from ddp_assist.app.walk import Ranked
from ddp_assist.probes.model import Finding

Trial = Callable[[Mapping[str, Any]], tuple[bool | None, str]]
"""Whether the ranks met, None where the trial came to no end; and one sentence about it."""
STEERING = ("GLOO_", "NCCL_", "TORCH_NCCL_", "TORCH_GLOO_", "TORCH_DISTRIBUTED_", "USE_LIBUV")
MOST = 3
"""Causes for which fixes are built: nobody reads the tenth."""


def fixes(diagnosis: Diagnosis) -> list[Fix]:
    """For each of the first causes its cures, those first that change least."""
    built: list[Fix] = []
    for ranked in diagnosis.causes[:MOST]:
        built += for_cause(diagnosis, ranked)
    return built


def for_cause(diagnosis: Diagnosis, ranked: Ranked) -> list[Fix]:
    situation = Situation(
        diagnosis.target, diagnosis.findings, ranked.cause, tuple(ranked.speaks_for)
    )
    known = builders()
    built = [known[name](situation) for name in page(ranked.cause).fixes if name in known]
    real = [fix for fix in built if fix is not None]
    return real or [by_page(ranked.cause, ranked.speaks_for)]


def in_words(diagnosis: Diagnosis, ranked: Ranked) -> list[Fix]:
    """What to do about it where no command is tried."""
    told = [fix for fix in for_cause(diagnosis, ranked) if fix.safety == "system"]
    return told or [by_page(ranked.cause, ranked.speaks_for)]


def by_page(cause: str, speaks_for: Sequence[Finding]) -> Fix:
    """Where no builder applies, the steps of the cause's page, filled with what was seen."""
    about = page(cause)
    seen: dict[str, Any] = {}
    for finding in reversed(speaks_for):
        seen.update({k: v for k, v in finding.data.items() if v is not None})
    steps = tuple(fill(step, seen) for step in numbered(about.section("How to fix")))
    return Fix(cause, about.title, "system", steps=steps, why="no command alone can cure this")


def numbered(text: str) -> list[str]:
    """The items of a numbered list; what is indented below an item belongs to it."""
    items: list[str] = []
    for line in text.splitlines():
        head, dot, rest = line.partition(". ")
        if dot and head.strip().isdigit() and not line.startswith("   "):
            items.append(rest)
        elif items and line.strip():
            items[-1] += "\n" + line.strip()
    return items


def fill(text: str, seen: Mapping[str, Any]) -> str:
    for name, value in seen.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def prove(
    diagnosis: Diagnosis, fix: Fix, trial: Trial | None, cancel: threading.Event | None = None
) -> Fix:
    """Looks again with the fix in place, and lets ranks meet where it says they can."""
    if fix.launch is None and not fix.files:
        return replace(fix, why=fix.why or "this cure is not a command, so it was not tried here")
    again = look_again(diagnosis, fix, cancel)
    still = [r for r in again.causes if r.cause == fix.cause and r.certainty != "possible"]
    if still:
        said = still[0].speaks_for[0].sentence
        return replace(fix, badge="failed", why=f"looked again: still there: {said}")
    why = f"looked again with the fix in place ({len(again.asked)} probes): the cause is gone"
    left = tuple(r.cause for r in again.causes if r.certainty == "certain")
    if left:
        fix, why = replace(fix, left=left), f"{why}, but there is another: {', '.join(left)}"
    if fix.trial is None or trial is None:
        return replace(fix, badge="holds", why=why)
    joined, said = trial({**fix.trial, "env": trial_env(diagnosis, fix)})
    if joined is None:
        return replace(fix, badge="holds", why=f"{why}; it could not be tried here in time: {said}")
    return replace(fix, badge="ran" if joined else "failed", why=f"{why}; {said}")


def trial_env(diagnosis: Diagnosis, fix: Fix) -> dict[str, str | None]:
    """What steers the backends, as the corrected launch has it; None takes a variable away."""
    user = diagnosis.target.env
    plan = fix.launch.main if fix.launch else diagnosis.target.plan
    seen = plan.environment(user) if plan else dict(user)
    names = {n for n in {*user, *seen} if n.startswith(STEERING)}
    given: Mapping[str, str | None] = (fix.trial or {}).get("env", {})
    return {**{name: seen.get(name) for name in sorted(names)}, **given}


def look_again(
    diagnosis: Diagnosis, fix: Fix, cancel: threading.Event | None = None
) -> Diagnosis:
    """The probes run again on the corrected launch and script, without the old log."""
    from ddp_assist.app.export import corrected

    with corrected(fix, diagnosis) as words:
        return diagnose(
            Question(
                launch=words,
                script=None if words else diagnosis.question.script,
                python=diagnosis.question.python,
                env=diagnosis.question.env,
                cwd=diagnosis.question.cwd,
                may_touch=diagnosis.question.may_touch,
                beside=diagnosis.question.job,
            ),
            cancel=cancel,
        )


def all_of(diagnosis: Diagnosis, trial: Trial | None) -> list[Fix]:
    """The first fix is tried; the others are there to choose from, and say that they were not."""
    built = fixes(diagnosis)
    for place, fix in enumerate(built):
        if fix.safety in ("command", "edit") and (fix.launch is not None or fix.files):
            built[place] = prove(diagnosis, fix, trial)
            if built[place].badge != "failed":
                break
    return sorted(built, key=lambda fix: _rank(diagnosis, fix))


def _rank(diagnosis: Diagnosis, fix: Fix) -> tuple[int, bool]:
    """In the order of the causes; within one, a cure that failed here comes last."""
    order = [ranked.cause for ranked in diagnosis.causes]
    return order.index(fix.cause), fix.badge == "failed"
