"""What is wrong with a launch before it starts: only what a glance at this host tells."""

from __future__ import annotations

from dataclasses import replace

from ddp_assist.app.question import Question
from ddp_assist.probes.host import environment, limits
from ddp_assist.probes.launch import check
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Target
from ddp_assist.probes.network import ports
from ddp_assist.probes.network.endpoints import endpoints
from ddp_assist.probes.runner import run

WITHIN = 0.5
"""Seconds after which the job starts all the same."""
GLANCES = [
    probe
    for module in (check, environment, ports, limits)
    for probe in module.PROBES
    if probe.id in ("plan", "env", "port", "limits")
]


def troubles(asked: Question) -> list[str]:
    """A sentence for each; a launch that we can't read may be a fine one all the same."""
    try:
        launch = read_launch(list(asked.launch), asked.env, asked.cwd)
    except LaunchError:
        return []
    plan = launch.main
    if plan is None:
        return []
    target = Target(
        plan=plan, launch=launch, script=plan.script_path, env=asked.env, cwd=plan.cwd
    )
    target = replace(target, endpoints=endpoints(target))
    weights = {probe.id: probe.outcomes for probe in GLANCES}
    found = run(GLANCES, target, deadline=WITHIN)
    return [f.sentence for f in found if weights[f.probe].get(f.outcome) == "bad"]
