"""Ending a left-over: only a process that speaks for the cause is ever named."""

from __future__ import annotations

from typing import Any

from ddp_assist.app.fixes.model import Situation
from ddp_assist.app.fixes.processes import end_process
from ddp_assist.probes.model import Finding, Target


def found(key: str, **data: Any) -> Finding:
    probe, _, outcome = key.partition(".")
    return Finding(probe, outcome, "seen", data)


def test_the_holder_of_the_port_is_named_with_its_port() -> None:
    orphan = found("port.held-by-orphan", pid=4187, port=29500, command="torchrun")
    fix = end_process(Situation(Target(), (orphan,), "port-held-by-orphan", (orphan,)))
    assert fix is not None and "pid 4187" in fix.title
    assert any("--yes-end 4187 --port 29500" in step for step in fix.steps)


def test_a_process_of_another_finding_is_never_named() -> None:
    killed = found("memory.oom-seen", pid=25665)
    orphans = found("left-overs.orphan-ranks", pids=[11, 12])
    situation = Situation(Target(), (killed, orphans), "gpu-stale-process", (orphans,))
    fix = end_process(situation)
    assert fix is not None and "25665" not in fix.title + " ".join(fix.steps)
    assert "kill 11 12" in fix.steps[-1] and not any("--yes-end" in step for step in fix.steps)
    assert end_process(Situation(Target(), (killed,), "gpu-stale-process", (killed,))) is None
