"""Whether a tree is whole: nothing dangles, loops or leads nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ddp_assist.app.tree import Tree
from ddp_assist.probes.model import Probe, Weight, matches


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
        found += _dangling(f"step {step.id}", [*step.on, *step.stands], outcomes)
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
