"""The tree walked with what was found, exhaustively, and the causes it reaches ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ddp_assist.app.tree import ORDER, Certainty, Symptom, To, Tree
from ddp_assist.probes.model import Finding, Weight, matches


@dataclass(frozen=True, slots=True)
class Passed:
    """One step of a path: what answered it, or how it was passed without an answer."""

    step: str
    how: Literal["seen", "otherwise", "unknown"]
    finding: Finding | None = None


@dataclass(slots=True)
class Ranked:
    """A cause with what speaks for it, against it, and what would decide."""

    cause: str
    certainty: Certainty
    path: tuple[Passed, ...]
    speaks_for: list[Finding] = field(default_factory=list)
    against: list[Finding] = field(default_factory=list)
    would_decide: list[str] = field(default_factory=list)
    hidden_by: str | None = None
    place: int = 0
    complained: bool = True
    """Whether a symptom that somebody saw leads here."""
    gave_way: bool = False
    """Whether the very failure it was said of is known by a line that leads elsewhere."""


def rank(
    tree: Tree,
    findings: Sequence[Finding],
    complained: Sequence[Symptom],
    asked: Iterable[str],
    weights: Mapping[str, Weight],
) -> list[Ranked]:
    """Every cause the walks reach, the likeliest first.

    `complained` are the symptoms somebody saw: there a cause that is merely not ruled out counts.
    All others are walked too, but a cause there needs something bad on its path, for nobody said
    that anything is wrong. `asked` are the probes that looked.
    """
    answered = set(asked) - {f.probe for f in findings if f.outcome == "unknown"}
    best: dict[str, Ranked] = {}
    ruled_out: dict[str, dict[int, Finding]] = {}
    for guess, symptoms in (
        (True, complained),
        (False, [s for s in tree.symptoms.values() if s not in complained]),
    ):
        walk = _Walk(tree, findings, answered, guess, weights, best, ruled_out)
        for symptom in symptoms:
            hints = [f for f in findings if any(matches(f.key, k) for k in symptom.recognised_by)]
            walk.step(symptom.start, (), "certain", hints)
    for cause in best.values():
        cause.against = _distinct(
            [f for f in ruled_out.get(cause.cause, {}).values() if f not in cause.speaks_for]
        )
    _give_way(tree, best.values(), weights)
    ranked = sorted(best.values(), key=_strength)
    _hide(tree, ranked)
    return sorted(ranked, key=lambda r: (r.hidden_by is not None, *_strength(r)))


def ruled_out(tree: Tree, ranked: Sequence[Ranked]) -> dict[str, Finding]:
    """What the walk to the first cause left aside, each with what led elsewhere."""
    reached = {r.cause for r in ranked}
    found: dict[str, Finding] = {}
    for passed in ranked[0].path if ranked else ():
        if passed.finding is None:
            continue
        for to in tree.steps[passed.step].targets():
            for cause in sorted(_below(tree, to) - reached):
                found.setdefault(cause, passed.finding)
    return found


def _give_way(tree: Tree, causes: Iterable[Ranked], weights: Mapping[str, Weight]) -> None:
    """A rank that failed "of its own" did so of what its last line is known for.

    Where nothing was seen of how it failed, any known failure is a better guess.
    """
    every = list(causes)
    others = [r for r in every if not tree.pages[r.cause].gives_way]
    for r in every:
        if r in others or r.certainty == "certain":
            continue
        own = {f.key for f in r.speaks_for}
        stories = [f.data for f in r.speaks_for if f.probe == "story"]
        spots = {(data.get("file"), data.get("line")) for data in stories}
        known = {f"log.{id}" for data in stories for id in data.get("known_as", ())}
        by_elimination = not any(p.how == "seen" for p in r.path)
        elsewhere = [
            f for other in others for f in other.speaks_for if f.probe == "log" and f.key not in own
        ]
        r.gave_way = any(
            f.key in known
            or _spot(f) in spots
            or (by_elimination and weights.get(f.key) == "bad")
            for f in elsewhere
        )
        if r.gave_way:
            r.certainty = "possible"


def _spot(finding: Finding) -> tuple[object, object]:
    return finding.data.get("file"), finding.data.get("line")


def _strength(r: Ranked) -> tuple[float, ...]:
    """Surest first; then what the complaint leads to, what was seen live, and what came first."""
    seen = [p.finding for p in r.path if p.finding is not None]
    logged = [f for f in seen if f.probe in ("log", "story")]
    first = min((float(f.data.get("order", 0)) for f in logged), default=0.0)
    live = len({f.key for f in seen}) - len({f.key for f in logged})
    # Where nothing that was seen speaks for the complaint, what is certain elsewhere goes first.
    aside = 2.0 if not r.complained else 0.0 if r.speaks_for else 1.5
    many = len({f.key for f in seen})
    return (ORDER[r.certainty] + aside, r.gave_way, -live, -many, first, r.place)


def _hide(tree: Tree, ranked: list[Ranked]) -> None:
    """A cause hides those it explains, but none that is surer than itself.

    One that is merely possible explains nothing yet, and what was seen by itself needs no
    explanation.
    """
    stands = {key for step in tree.steps.values() for key in step.stands}
    for strong in ranked:
        if strong.hidden_by is not None:
            continue
        explained = tree.pages[strong.cause].hides if strong.cause in tree.pages else ()
        for weak in ranked:
            mutual = weak.cause in tree.pages and strong.cause in tree.pages[weak.cause].hides
            if (
                weak is not strong
                and weak.cause in explained
                and weak.hidden_by is None
                and not mutual
                and not any(f.key in stands for f in weak.speaks_for)
                and strong.certainty != "possible"
                and ORDER[strong.certainty] <= ORDER[weak.certainty]
            ):
                weak.hidden_by = strong.cause


@dataclass(slots=True)
class _Walk:
    """One exhaustive walk; what it reaches is gathered in `best` and `ruled_out`."""

    tree: Tree
    findings: Sequence[Finding]
    answered: set[str]
    guess: bool
    weights: Mapping[str, Weight]
    best: dict[str, Ranked]
    ruled_out: dict[str, dict[int, Finding]]
    """By cause, each finding once: a walk comes by here often."""

    def step(
        self, name: str, path: tuple[Passed, ...], at_most: Certainty, hints: Sequence[Finding]
    ) -> None:
        step = self.tree.steps[name]
        followed: set[To] = set()

        def go(to: To, passed: Passed, most: Certainty) -> None:
            followed.add(to)
            limit = max(at_most, most, to.at_most, key=lambda c: ORDER[c])
            if to.is_step:
                self.step(to.name, (*path, passed), limit, hints)
            else:
                self.arrive(to.name, (*path, passed), limit, hints)

        hits = [
            (finding, tos)
            for pattern, tos in step.on.items()
            for finding in self.findings
            if matches(finding.key, pattern)
        ]
        for finding, tos in hits:
            for to in tos:
                go(to, Passed(name, "seen", finding), "certain")
        if hits:
            for to in step.targets():
                if to not in followed:
                    for cause in _below(self.tree, to):
                        self.ruled_out.setdefault(cause, {}).update((id(f), f) for f, _ in hits)
            return
        asked = not step.probes or not self.answered.isdisjoint(step.probes)
        how: Literal["otherwise", "unknown"] = "otherwise" if asked else "unknown"
        # A step that asks nobody only lets what was seen elsewhere rule something out.
        first: Certainty = "likely" if step.probes else "certain"
        for index, to in enumerate(step.otherwise if asked else step.unknown):
            best_guess: Certainty = first if asked and index == 0 else "possible"
            if self.guess or to.is_step:
                go(to, Passed(name, how), "certain" if to.is_step else best_guess)

    def arrive(
        self, cause: str, path: tuple[Passed, ...], limit: Certainty, hints: Sequence[Finding]
    ) -> None:
        open_questions = [
            self.tree.steps[p.step].question
            for p in path
            if p.how != "seen" and self.tree.steps[p.step].probes
        ]
        seen = [p.finding for p in path if p.finding is not None]
        if not self.guess and not any(self.weights.get(f.key) == "bad" for f in seen):
            return
        found = Ranked(
            cause,
            "likely" if open_questions and limit == "certain" else limit,
            path,
            _distinct([*seen, *hints]),
            would_decide=open_questions,
            place=len(self.best),
            complained=self.guess,
        )
        known = self.best.get(cause)
        if known is None:
            self.best[cause] = found
            return
        found.place = known.place
        better, other = (found, known) if _strength(found) < _strength(known) else (known, found)
        better.speaks_for = _distinct(better.speaks_for + other.speaks_for)
        self.best[cause] = better


def _below(tree: Tree, to: To) -> set[str]:
    if not to.is_step:
        return {to.name}
    return {cause for other in tree.steps[to.name].targets() for cause in _below(tree, other)}


def _distinct(findings: Sequence[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    for finding in findings:
        if not any(finding is other or finding == other for other in kept):
            kept.append(finding)
    return kept
