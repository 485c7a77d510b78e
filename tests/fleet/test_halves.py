"""Halves and pairs name the node or the link, whoever it is, in few rounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ddp_assist.probes.fleet.halves import Culprits, Group, OutOfTime, find


class World:
    """Nodes of which some never meet anybody, and pairs that never meet each other."""

    def __init__(self, size: int, sick: Sequence[int] = (), cut: Sequence[tuple[int, int]] = (),
                 deaf: Sequence[int] = ()) -> None:  # fmt: skip
        self.nodes = tuple(f"n{at}" for at in range(size))
        self.sick, self.deaf = {f"n{a}" for a in sick}, {f"n{a}" for a in deaf}
        self.cut = [{f"n{a}", f"n{b}"} for a, b in cut]
        self.rounds = 0

    def tries(self, groups: Sequence[Group]) -> list[bool]:
        names = [name for group in groups for name in group]
        assert len(names) == len(set(names)), "a node can be in one trial at a time"
        self.rounds += 1
        return [self.meets(group) for group in groups]

    def meets(self, group: Group) -> bool:
        if self.sick & set(group) or (len(group) > 1 and self.deaf & set(group)):
            return False
        return not any(pair <= set(group) for pair in self.cut)

    def found(self) -> Culprits:
        assert not self.meets(self.nodes)
        return find(self.nodes, self.tries)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 13, 32])
def test_a_node_with_a_trouble_of_its_own(size: int) -> None:
    for sick in {0, 1, size // 2, size - 1}:
        world = World(size, sick=[sick])
        found = world.found()
        assert (found.nodes, found.links) == ([f"n{sick}"], [])
        assert world.rounds <= 2


@pytest.mark.parametrize("size", [3, 4, 5, 8, 13, 32])
def test_a_node_that_is_well_alone_and_meets_nobody(size: int) -> None:
    for deaf in {0, 1, size // 2, size - 1}:
        world = World(size, deaf=[deaf])
        found = world.found()
        assert (found.nodes, found.links) == ([f"n{deaf}"], []), (size, deaf)
        assert set(found.without) == set(world.nodes) - {f"n{deaf}"}
        assert world.rounds <= 16


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 13, 32])
def test_a_link(size: int) -> None:
    for pair in {(0, 1), (0, size - 1), (size // 2 - 1, size // 2), (size - 2, size - 1)}:
        if pair[0] == pair[1] or pair[0] < 0:
            continue
        found = World(size, cut=[pair]).found()
        named = {frozenset(link) for link in found.links}
        assert (found.nodes, named) == ([], {frozenset((f"n{pair[0]}", f"n{pair[1]}"))})


def test_two_culprits_at_once() -> None:
    found = World(8, sick=[2], deaf=[5]).found()
    assert sorted(found.nodes) == ["n2", "n5"]
    assert sorted(World(8, deaf=[1, 6]).found().nodes) == ["n1", "n6"]


def test_what_is_known_when_the_time_is_over_is_the_answer() -> None:
    world = World(8, sick=[3], cut=[(0, 7)])

    def tries(groups: Sequence[Group]) -> list[bool]:
        if world.rounds > 1:
            raise OutOfTime
        return world.tries(groups)

    found = find(world.nodes, tries)
    assert found.nodes == ["n3"] and "no time" in found.lines[-1]
