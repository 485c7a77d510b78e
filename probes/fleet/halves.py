"""Which node, or which link, keeps the ranks from meeting: halves, then pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Group = tuple[str, ...]
Tries = Callable[[Sequence[Group]], Sequence[bool]]
"""Lets disjoint groups of nodes meet, all at once; says of each whether it did."""


@dataclass(slots=True)
class Culprits:
    nodes: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    without: Group = ()
    """The nodes that meet when the culprits stay away."""
    lines: list[str] = field(default_factory=list)


class OutOfTime(Exception):
    """Raised by who lets them meet: what is known by then is the answer."""


def find(nodes: Group, tries: Tries) -> Culprits:
    """For nodes that do not meet all together."""
    found = Culprits()

    def meet(groups: Sequence[Group]) -> list[bool]:
        joined = list(tries(groups))
        for group, well in zip(groups, joined, strict=True):
            found.lines.append(f"{' '.join(group)}: {'met' if well else 'did not meet'}")
        return joined

    try:
        _find(nodes, meet, found)
    except OutOfTime:
        found.lines.append("there was no time to look further")
    return found


def _find(nodes: Group, meet: Tries, found: Culprits) -> None:
    alone = meet([(name,) for name in nodes])
    found.nodes = [name for name, well in zip(nodes, alone, strict=True) if not well]
    rest = tuple(name for name in nodes if name not in found.nodes)
    if found.nodes and (len(rest) < 2 or meet([rest])[0]):
        found.without = rest
        return
    if len(rest) == 2:
        found.links.append((rest[0], rest[1]))
        return
    good, bad = _halves(rest, meet)
    for one, other in bad:
        _whose(one, other, good, meet, found)
    if not bad:
        _across(good, meet, found)
    rest = tuple(n for n in rest if n not in found.nodes and not any(n in x for x in found.links))
    if found.nodes and len(rest) > 1 and meet([rest])[0]:
        found.without = rest


def _halves(nodes: Group, meet: Tries) -> tuple[list[Group], list[tuple[str, str]]]:
    """Groups that meet, and pairs that do not."""
    good: list[Group] = []
    bad: list[tuple[str, str]] = []
    failing = [nodes]
    while failing:
        halves = [h for g in failing for h in (g[: len(g) // 2], g[len(g) // 2 :])]
        good += [h for h in halves if len(h) == 1]
        halves = [h for h in halves if len(h) > 1]
        joined = meet(halves) if halves else []
        failing = []
        for half, well in zip(halves, joined, strict=True):
            if well:
                good.append(half)
            elif len(half) == 2:
                bad.append((half[0], half[1]))
            else:
                failing.append(half)
    return good, bad


def _whose(one: str, other: str, good: Sequence[Group], meet: Tries, found: Culprits) -> None:
    """Of a pair that does not meet: one of the two, or the way between them."""
    third = next((n for group in good for n in group), None)
    if third is None:
        found.links.append((one, other))
        return
    guilty = [name for name in (one, other) if not meet([(third, name)])[0]]
    if guilty:
        found.nodes += guilty
    else:
        found.links.append((one, other))


def _across(good: Sequence[Group], meet: Tries, found: Culprits) -> None:
    """Every half meets, the whole does not: pairs with one node of each of two groups."""
    groups = sorted(good, key=len, reverse=True)
    first, others = groups[0], tuple(n for group in groups[1:] for n in group)
    big, small = (first, others) if len(first) >= len(others) else (others, first)
    failed: list[tuple[str, str]] = []
    for turn in range(len(big)):
        pairs = [(big[(turn + i) % len(big)], name) for i, name in enumerate(small)]
        failed += [p for p, well in zip(pairs, meet(pairs), strict=True) if not well]
    for name in (*big, *small):
        mine = [p for p in failed if name in p]
        against = len(small) if name in big else len(big)
        if len(mine) == against > 1:
            found.nodes.append(name)
    found.links += [p for p in failed if not any(n in found.nodes for n in p)]
