"""Probes side by side: order, deadlines, cancellation, and what a broken probe becomes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import pytest

from ddp_assist.probes.model import Finding, Probe, Target
from ddp_assist.probes.runner import run


def probe(
    name: str, look: Callable[[Target], Iterable[Finding]], deadline: float = 5.0, **more: object
) -> Probe:
    return Probe(name, "?", {"fine": "ok"}, look, deadline=deadline, **more)  # type: ignore[arg-type]


def fine(name: str) -> Callable[[Target], Iterable[Finding]]:
    return lambda target: [Finding(name, "fine", "fine")]


def test_answers_come_in_the_order_of_the_catalogue() -> None:
    first_may_go = threading.Event()

    def slow(target: Target) -> Iterable[Finding]:
        first_may_go.wait(5)
        return [Finding("slow", "fine", "fine")]

    def quick(target: Target) -> Iterable[Finding]:
        first_may_go.set()
        return [Finding("quick", "fine", "fine")]

    found = run([probe("slow", slow), probe("quick", quick)], Target())
    assert [f.probe for f in found] == ["slow", "quick"]


def test_a_probe_that_hangs_is_unknown_and_the_others_answer() -> None:
    never = threading.Event()

    def hang(target: Target) -> Iterable[Finding]:
        never.wait()
        return []

    found = run([probe("hung", hang, deadline=0.2), probe("b", fine("b"))], Target())
    never.set()
    assert [f.key for f in found] == ["hung.unknown", "b.fine"]
    assert "gave up after 0.2 s" in found[0].sentence


@pytest.mark.parametrize("fault", [OSError(5, "x"), ValueError("y"), RecursionError()])
def test_a_probe_that_raises_is_unknown(fault: Exception) -> None:
    def broken(target: Target) -> Iterable[Finding]:
        raise fault

    found = run([probe("broken", broken)], Target())
    assert found[0].outcome == "unknown"
    assert type(fault).__name__ in found[0].sentence


def test_an_outcome_nobody_declared_is_unknown_too() -> None:
    found = run([probe("x", lambda t: [Finding("x", "surprise", "!")])], Target())
    assert found[0].outcome == "unknown"


def test_a_later_probe_sees_what_an_earlier_one_found() -> None:
    seen: list[str] = []

    def second(target: Target) -> Iterable[Finding]:
        seen.extend(f.key for f in target.found("a.*"))
        return [Finding("b", "fine", "fine")]

    run([probe("b", second, after=("a",)), probe("a", fine("a"))], Target())
    assert seen == ["a.fine"]


def test_cancelled_probes_say_that_they_were_stopped() -> None:
    cancel = threading.Event()
    never = threading.Event()

    def hang(target: Target) -> Iterable[Finding]:
        cancel.set()
        never.wait()
        return []

    found = run([probe("hung", hang)], Target(), cancel=cancel)
    never.set()
    assert "it was stopped" in found[0].sentence


def test_a_deadline_of_all_leaves_nobody_unmentioned() -> None:
    never = threading.Event()

    def hang(target: Target) -> Iterable[Finding]:
        never.wait()
        return []

    probes = [probe("a", hang), probe("b", fine("b"), after=("a",))]
    found = run(probes, Target(), deadline=0.2)
    never.set()
    assert [f.key for f in found] == ["a.unknown", "b.unknown"]


def test_probes_that_wait_for_each_other_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="wait for each other"):
        run([probe("a", fine("a"), after=("b",)), probe("b", fine("b"), after=("a",))], Target())
