"""Runs probes side by side: what waits for what, deadlines, cancellation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue

from ddp_assist.probes.model import Finding, Probe, Target, unknown

Told = Callable[[Probe, tuple[Finding, ...]], None]


def run(
    probes: Sequence[Probe],
    target: Target,
    told: Told | None = None,
    cancel: threading.Event | None = None,
    deadline: float | None = None,
) -> tuple[Finding, ...]:
    """All findings of the probes that apply, in the order of the catalogue.

    A probe that names others in `after` starts when those are done and sees their findings.
    Each looks in a thread of its own that nobody waits for past its deadline.
    """
    until = time.monotonic() + deadline if deadline is not None else None
    cancel = cancel or threading.Event()
    ids = {probe.id for probe in probes}
    waiting = list(probes)
    answers: dict[str, tuple[Finding, ...]] = {}
    looking: dict[str, tuple[Probe, float]] = {}
    done: SimpleQueue[tuple[str, tuple[Finding, ...]]] = SimpleQueue()

    def settle(probe: Probe, findings: tuple[Finding, ...]) -> None:
        answers[probe.id] = findings
        if told:
            told(probe, findings)

    while waiting or looking:
        seen = target.seen + tuple(f for found in answers.values() for f in found)
        for probe in [p for p in waiting if all(a in answers or a not in ids for a in p.after)]:
            waiting.remove(probe)
            knowing = replace(target, seen=seen)
            if probe.applies(knowing):
                looking[probe.id] = (probe, time.monotonic())
                threading.Thread(
                    target=_look, args=(probe, knowing, done), name=f"probe {probe.id}", daemon=True
                ).start()
            else:
                answers[probe.id] = ()
        if not looking:
            if waiting and not any(
                all(a in answers or a not in ids for a in p.after) for p in waiting
            ):
                raise ValueError(f"probes wait for each other: {[p.id for p in waiting]}")
            continue
        ends = [start + probe.deadline for probe, start in looking.values()]
        now = time.monotonic()
        patience = min([*ends, until] if until else ends) - now
        try:
            name, findings = done.get(timeout=max(0.0, min(patience, 0.1)))
            if name in looking:
                settle(looking.pop(name)[0], findings)
        except Empty:
            pass
        now = time.monotonic()
        stop = cancel.is_set() or (until is not None and now >= until)
        for name, (probe, start) in list(looking.items()):
            if stop or now - start > probe.deadline:
                why = "it was stopped" if stop else f"it gave up after {probe.deadline:g} s"
                del looking[name]
                settle(probe, _cut_short(probe, target, why))
        if stop:
            for probe in waiting:
                settle(probe, _cut_short(probe, target, "there was no time left to look"))
            waiting.clear()
    return in_order(probes, answers)


def _cut_short(probe: Probe, target: Target, why: str) -> tuple[Finding, ...]:
    """What it has found so far, and that there may be more."""
    found = tuple(probe.look_so_far(target))
    more = f"{why}, and told what it had found so far" if found else why
    return (*found, unknown(probe.id, more))


def in_order(
    probes: Iterable[Probe], answers: dict[str, tuple[Finding, ...]]
) -> tuple[Finding, ...]:
    return tuple(finding for probe in probes for finding in answers.get(probe.id, ()))


def _look(probe: Probe, target: Target, done: SimpleQueue[tuple[str, tuple[Finding, ...]]]) -> None:
    begun = time.monotonic()
    findings: tuple[Finding, ...]
    try:
        findings = tuple(probe.look(target))
        for finding in findings:
            probe.weight(finding.outcome)
    except Exception as fault:  # noqa: BLE001 - whatever a probe meets is a finding, never a crash
        findings = (unknown(probe.id, f"the probe failed: {type(fault).__name__}: {fault}"),)
    took = round(time.monotonic() - begun, 4)
    done.put((probe.id, tuple(replace(f, seconds=f.seconds or took) for f in findings)))
