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
    good, bad, split = _halves(rest, meet)
    for one, other in bad:
        _whose(one, other, good, meet, found)
    for one_half, other_half in split:
        _across(one_half, other_half, meet, found)
    rest = tuple(n for n in rest if n not in found.nodes and not any(n in x for x in found.links))
    if found.nodes and len(rest) > 1 and meet([rest])[0]:
        found.without = rest


def _halves(
    nodes: Group, meet: Tries
) -> tuple[list[Group], list[tuple[str, str]], list[tuple[Group, Group]]]:
    """Groups that meet, pairs that do not, and halves that meet each but not together."""
    good: list[Group] = []
    bad: list[tuple[str, str]] = []
    split: list[tuple[Group, Group]] = []
    failing = [nodes]
    while failing:
        halves = [(g[: len(g) // 2], g[len(g) // 2 :]) for g in failing]
        asked = [half for both in halves for half in both if len(half) > 1]
        well = {half for half, joined in zip(asked, meet(asked), strict=True) if joined}
        well |= {half for both in halves for half in both if len(half) == 1}
        good += well
        split += [both for both in halves if well.issuperset(both)]
        left = [half for half in asked if half not in well]
        bad += [(half[0], half[1]) for half in left if len(half) == 2]
        failing = [half for half in left if len(half) > 2]
    return sorted(good, key=lambda group: nodes.index(group[0])), bad, split


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


def _across(one: Group, other: Group, meet: Tries, found: Culprits) -> None:
    """Each half meets, both together do not: pairs with one node of each."""
    big, small = (one, other) if len(one) >= len(other) else (other, one)
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
