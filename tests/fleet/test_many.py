"""A thousand and ten thousand nodes: the work grows with their number, what is shown does not."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from recorded import hosts  # type: ignore[import-not-found]

from ddp_assist.app.hosts_drawn import picture, rows
from ddp_assist.app.verbs.fleet import text


@pytest.mark.parametrize("count", [64, 600])
def test_many_nodes_are_told_in_few_lines(count: int) -> None:
    many = hosts(count)
    news: list[int] = []
    many.told = lambda: news.append(1)
    many.meeting.fleet.told = many._heard
    many.ask()
    lines = text(many.result)
    assert len(lines) < 60
    shown = "\n".join(lines)
    assert "2.4.1+cpu on n7" in shown and "n13" in lines[1] and "n11" in shown
    assert len(many.rows()) <= 4 and many.rows()[0].nodes == "n13"
    drawn = many.picture().lines(78)
    assert len(drawn) < 12 and max(map(len, drawn)) <= 78
    assert len(news) > count and many.stage == "done"


def calls(count: int) -> int:
    """Python functions entered from the first question to the last line."""
    many = hosts(count)
    entered = 0

    def count_calls(frame: Any, event: str, arg: Any) -> None:
        nonlocal entered
        entered += event == "call"

    many.ask()  # what is loaded once does not count
    many = hosts(count)
    sys.setprofile(count_calls)
    try:
        many.ask()
        text(many.result)
    finally:
        sys.setprofile(None)
    return entered


def test_the_work_grows_with_the_number_of_nodes_and_no_faster() -> None:
    few, more = calls(100), calls(400)
    assert more < 4.6 * few, (few, more)


def test_a_matrix_of_many_kinds_of_nodes_still_fits() -> None:
    names = [f"a-long-name-of-a-node-{n}" for n in range(40)]
    kinds = ("silent", "refused", "reset", "unreachable", "no-route", "large-lost", "reached")
    links = [
        {"from": a, "to": b, "kind": "data", "port": 1, "outcome": kinds[(i * i + j) % 7]}
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if a != b
    ]
    lines = picture(links).lines(78)
    assert len(lines) <= 14 and max(map(len, lines)) <= 78, lines


def test_rows_put_who_did_not_come_first() -> None:
    nodes = [
        {"node": "n1", "state": "ok", "group": "B", "why": ""},
        {"node": "n2", "state": "ok", "group": "B", "why": ""},
        {"node": "n3", "state": "ok", "group": "A", "why": ""},
        {"node": "n4", "state": "refused", "group": None, "why": "ssh is refused"},
    ]
    assert [(row.nodes, row.count) for row in rows(nodes)] == [
        ("n4", 1), ("n3", 1), ("n[1-2]", 2)]  # fmt: skip
