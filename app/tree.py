"""The decision tree: loaded from assets, checked, walked, and its causes ranked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ddp_assist.probes.model import Finding, Probe, Weight, matches

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Certainty = Literal["certain", "likely", "possible"]
ORDER: Mapping[str, int] = {"certain": 0, "likely": 1, "possible": 2}


@dataclass(frozen=True, slots=True)
class To:
    """Where an outcome leads: to a step or a cause, and the most it allows to be said of it."""

    name: str
    is_step: bool
    at_most: Certainty

    @classmethod
    def read(cls, text: str) -> To:
        first, _, rest = text.partition(" ")
        if rest and first in ORDER:
            step = rest.startswith("step:")
            return cls(rest.removeprefix("step:"), step, first)  # type: ignore[arg-type]
        return cls(text.removeprefix("step:"), text.startswith("step:"), "certain")


@dataclass(frozen=True, slots=True)
class Step:
    """A question, the probes that answer it, and where each answer leads."""

    id: str
    question: str
    probes: tuple[str, ...]
    on: Mapping[str, tuple[To, ...]]
    otherwise: tuple[To, ...]
    unknown: tuple[To, ...]

    def targets(self) -> list[To]:
        every = [to for tos in self.on.values() for to in tos]
        return list(dict.fromkeys([*every, *self.otherwise, *self.unknown]))


@dataclass(frozen=True, slots=True)
class Symptom:
    """Where a walk starts, in the user's words."""

    id: str
    title: str
    words: tuple[str, ...]
    recognised_by: tuple[str, ...]
    start: str
    often: int = 0
    """Its place among those that most people see; 0 for the others."""


@dataclass(frozen=True, slots=True)
class Page:
    """A cause: what it is called, what it explains, what cures it, and its text."""

    id: str
    title: str
    family: str
    hides: tuple[str, ...]
    fixes: tuple[str, ...]
    text: str

    def section(self, heading: str) -> str:
        _, found, rest = self.text.partition(f"## {heading}\n")
        return rest.split("\n## ")[0].strip() if found else ""


@dataclass(frozen=True, slots=True)
class Tree:
    symptoms: Mapping[str, Symptom]
    steps: Mapping[str, Step]
    pages: Mapping[str, Page]


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


def _tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def read_page(name: str, text: str) -> Page:
    _, head, body = text.split("+++\n", 2)
    data = tomllib.loads(head)
    return Page(
        name,
        data["title"],
        data["family"],
        _tuple(data.get("hides")),
        _tuple(data.get("fixes")),
        body.strip(),
    )


@cache
def page(cause: str) -> Page:
    """One page alone: `explain` must not read them all."""
    text = (files("ddp_assist.assets") / "causes" / f"{cause}.md").read_text("utf-8")
    return read_page(cause, text)


@cache
def page_ids() -> tuple[str, ...]:
    names = (entry.name for entry in (files("ddp_assist.assets") / "causes").iterdir())
    return tuple(sorted(name[:-3] for name in names if name.endswith(".md")))


def read_tree(documents: Iterable[str], pages: Mapping[str, Page]) -> Tree:
    symptoms: dict[str, Symptom] = {}
    steps: dict[str, Step] = {}
    for document in documents:
        data = tomllib.loads(document)
        for entry in data.get("symptom", ()):
            if entry["id"] in symptoms:
                raise ValueError(f"two symptoms are called {entry['id']}")
            symptoms[entry["id"]] = _symptom(entry)
        for entry in data.get("step", ()):
            if entry["id"] in steps:
                raise ValueError(f"two steps are called {entry['id']}")
            on = {key: tuple(map(To.read, _tuple(to))) for key, to in entry.get("on", {}).items()}
            steps[entry["id"]] = Step(
                entry["id"],
                entry["question"],
                _tuple(entry.get("probes")),
                on,
                tuple(map(To.read, _tuple(entry.get("otherwise")))),
                tuple(map(To.read, _tuple(entry["unknown"])))
                if "unknown" in entry
                else tuple(dict.fromkeys(to for tos in on.values() for to in tos)),
            )
    return Tree(symptoms, steps, pages)


def _symptom(entry: Mapping[str, Any]) -> Symptom:
    return Symptom(
        entry["id"],
        entry["title"],
        _tuple(entry.get("words")),
        _tuple(entry.get("recognised_by")),
        entry["start"],
        entry.get("often", 0),
    )


@cache
def _documents() -> tuple[str, ...]:
    folder = files("ddp_assist.assets") / "tree"
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".toml")]
    names.sort(key=lambda name: (name != "symptoms.toml", not name.startswith("symptoms"), name))
    return tuple((folder / name).read_text("utf-8") for name in names)


@cache
def symptoms() -> Mapping[str, Symptom]:
    """Where walks start, without the tree below: the first screen waits for nothing else."""
    tables = [table for text in _documents() for table in re.split(r"(?m)^(?=\[\[)", text)]
    document = "".join(table for table in tables if table.startswith("[[symptom]]"))
    return {entry["id"]: _symptom(entry) for entry in tomllib.loads(document)["symptom"]}


@cache
def load() -> Tree:
    return read_tree(_documents(), {cause: page(cause) for cause in page_ids()})


def problems(tree: Tree, probes: Sequence[Probe]) -> list[str]:
    """What dangles, loops or leads nowhere. Empty when the tree is whole."""
    found: list[str] = []
    outcomes: dict[str, Weight] = {
        f"{probe.id}.{name}": weight for probe in probes for name, weight in probe.outcomes.items()
    }
    for symptom in tree.symptoms.values():
        if symptom.start not in tree.steps:
            found.append(f"symptom {symptom.id} starts at {symptom.start}, which is no step")
        found += _dangling(f"symptom {symptom.id}", symptom.recognised_by, outcomes)
    reached: set[str] = set()
    used = [key for symptom in tree.symptoms.values() for key in symptom.recognised_by]
    for step in tree.steps.values():
        used += step.on
        found += _dangling(f"step {step.id}", step.on, outcomes)
        found += [
            f"step {step.id} asks {name}, which is no probe"
            for name in step.probes
            if name not in {probe.id for probe in probes}
        ]
        for to in step.targets():
            known = tree.steps if to.is_step else tree.pages
            if to.name not in known:
                found.append(f"step {step.id} leads to {to.name}, which is not there")
            elif not to.is_step:
                reached.add(to.name)
    found += [f"no step leads to cause {cause}" for cause in tree.pages if cause not in reached]
    for cause in tree.pages.values():
        found += [
            f"cause {cause.id} hides {other}, which is not there"
            for other in cause.hides
            if other not in tree.pages
        ]
    found += [
        f"outcome {key} leads nowhere"
        for key, weight in outcomes.items()
        if weight == "bad" and not any(matches(key, pattern) for pattern in used)
    ]
    walked = {symptom.start for symptom in tree.symptoms.values()}
    frontier = list(walked)
    while frontier:
        step_here = tree.steps.get(frontier.pop())
        for to in step_here.targets() if step_here else ():
            if to.is_step and to.name not in walked:
                walked.add(to.name)
                frontier.append(to.name)
    found += [f"no symptom leads to step {name}" for name in tree.steps if name not in walked]
    return found + [f"steps go in a circle: {' > '.join(loop)}" for loop in _loops(tree)]


def _dangling(who: str, keys: Iterable[str], outcomes: Mapping[str, Weight]) -> list[str]:
    return [
        f"{who} names {key}, which no probe says"
        for key in keys
        if not any(matches(outcome, key) for outcome in outcomes)
    ]


def _loops(tree: Tree) -> list[list[str]]:
    loops: list[list[str]] = []
    finished: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        if name in trail:
            loops.append([*trail[trail.index(name) :], name])
        elif name not in finished and name in tree.steps:
            for to in tree.steps[name].targets():
                if to.is_step:
                    visit(to.name, [*trail, name])
            finished.add(name)

    for name in tree.steps:
        visit(name, [])
    return loops


def recognised(tree: Tree, findings: Sequence[Finding]) -> list[Symptom]:
    """The symptoms that something found speaks for, the strongest hint first."""
    hits: list[tuple[int, int, Symptom]] = []
    for place, symptom in enumerate(tree.symptoms.values()):
        lines = [
            int(f.data.get("order", 0))
            for f in findings
            if any(matches(f.key, key) for key in symptom.recognised_by)
        ]
        if lines:
            hits.append((min(lines), place, symptom))
    return [symptom for _, _, symptom in sorted(hits, key=lambda hit: hit[:2])]


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


def _strength(r: Ranked) -> tuple[float, ...]:
    """Surest first; then what the complaint leads to, what was seen live, and what came first."""
    seen = [p.finding for p in r.path if p.finding is not None]
    logged = [f for f in seen if f.probe in ("log", "story")]
    first = min((float(f.data.get("order", 0)) for f in logged), default=0.0)
    live = len({f.key for f in seen}) - len({f.key for f in logged})
    # Where nothing that was seen speaks for the complaint, what is certain elsewhere goes first.
    aside = 2.0 if not r.complained else 0.0 if r.speaks_for else 1.5
    return (ORDER[r.certainty] + aside, -live, -len({f.key for f in seen}), first, r.place)


def _hide(tree: Tree, ranked: list[Ranked]) -> None:
    """A cause hides those it explains, but none that is surer than itself.

    One that is merely possible explains nothing yet.
    """
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
