"""What all checks of a launch share: which commands run at the same time, and how to say it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ddp_assist.probes.launch.launchers import ELASTIC, whole
from ddp_assist.probes.launch.plan import Launch, LaunchPlan, Option
from ddp_assist.probes.model import Evidence, Finding, Target

PROBE = "plan"
PLAIN = frozenset({"python", "srun", "mpirun"})
LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|::1|0\.0\.0\.0|\[::1\])\Z", re.I)
NAMED = {"accelerate": {"node-rank": "machine-rank", "nnodes": "num-machines"}}


def say(
    target: Target, plan: LaunchPlan | None, outcome: str, sentence: str, **data: Any
) -> Finding:
    """A finding with the line of the launch that it is about."""
    evidence: tuple[Evidence, ...] = ()
    if target.launch is not None:
        source = str(target.launch.path or "the launch command")
        lines = (line_of(target.launch, plan),) if plan is not None else ()
        evidence = (Evidence(source, lines),)
    return Finding(PROBE, outcome, sentence, data, evidence)


def line_of(launch: Launch, plan: LaunchPlan) -> str:
    """The words of one command as they stand in the launch."""
    text = launch.text[slice(*plan.span)] if plan.span[1] > 0 else " ".join(plan.words)
    return text[:400]


ONE_A_NODE = ELASTIC | {"accelerate"}
"""Launchers of which one is started on each node, and whose agents can agree on the ranks."""


def option(plan: LaunchPlan, name: str) -> Option | None:
    return plan.option(NAMED.get(plan.launcher, {}).get(name, name))


def raw(target: Target, found: Option | None) -> str:
    """An option as it was written, before anything was expanded."""
    if found is None or target.launch is None or found.span[0] < 0:
        return ""
    return target.launch.text[slice(*found.span)]


def origin(target: Target, written: str) -> str:
    """What is written, and what the launch sets the variables to that stand in it."""
    text = target.launch.text if target.launch else ""
    for name in dict.fromkeys(re.findall(r"\$\{?([A-Za-z_]\w*)", written)):
        written += "".join(re.findall(rf"(?m)^[ \t]*(?:export[ \t]+)?{name}=(.*)$", text))
    return written


def is_handed_on(text: str, name: str) -> bool:
    """Whether a variable that is not exported is used all the same, e.g. as an argument."""
    return re.search(rf"\$\{{?{name}\b", text) is not None


def nodes(plan: LaunchPlan) -> int | None:
    return plan.nnodes[1] if plan.nnodes else None


def node_rank(plan: LaunchPlan) -> int | None:
    """The node's number where it is known; a launcher without the option means 0."""
    if plan.node_rank is not None:
        return plan.node_rank
    return None if option(plan, "node-rank") else 0


def is_static(plan: LaunchPlan) -> bool:
    """Whether the node rank that it is told counts; else the agents agree on one."""
    return plan.launcher not in ONE_A_NODE or plan.rdzv_backend in (None, "static")


def rank(plan: LaunchPlan) -> int | None:
    return whole(plan.env.get("RANK"))


def groups(target: Target) -> Iterator[list[LaunchPlan]]:
    """Commands that run at the same time: those in the background, and the one that follows them.

    A command in a loop that can't be followed or in a branch stands for an unknown number.
    """
    group: list[LaunchPlan] = []
    for plan in target.plans:
        if plan.conditional or plan.repeated:
            continue
        group.append(plan)
        if not plan.background:
            yield group
            group = []
    if group:
        yield group


def is_counted(target: Target) -> bool:
    """Whether each command that starts ranks is known to be started just once."""
    return not any(p.conditional or p.repeated for p in target.plans)


def meets_at(plan: LaunchPlan) -> tuple[str, str]:
    """Host and port that a command is told, empty where it is not told."""
    if plan.rdzv_endpoint:
        host, colon, port = plan.rdzv_endpoint.rpartition(":")
        return (host.strip("[]"), port) if colon else (plan.rdzv_endpoint, "")
    return plan.master_addr or "", plan.master_port or ""


def here_alone(target: Target, plan: LaunchPlan) -> bool:
    """All nodes of the job are played by commands of this launch on this host."""
    for group in groups(target):
        if plan in group:
            alike = [p for p in group if p.host is None and nodes(p) == nodes(plan)]
            return plan.host is None and len(alike) >= (nodes(plan) or 1)
    return False
