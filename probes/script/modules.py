"""Modules that the script imports and that the Python of the launch does not have."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ddp_assist.probes.host.modules import Told, lacking
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target, unknown
from ddp_assist.probes.network.endpoints import is_here
from ddp_assist.probes.script.facts import ScriptFacts
from ddp_assist.probes.script.imports import Needed, needed, put_on_path
from ddp_assist.probes.script.spots import at

_PREPARES = re.compile(
    r"(?m)(?:^|[;&|(]|\b(?:then|else|do)\b)\s*(?:source|\.|module|ml|conda|mamba|micromamba|uv|poetry"
    r"|pdm|pipenv|spack|eval|make|cmake|ninja|git|curl|wget|tar|unzip|cp|mv|ln|rsync)\s"
    r"|\bpip3?\s+install\b|\bsetup\.py\s|-m\s+venv\b"
)
"""Commands of a launch script that may bring a module or another Python."""


def missing(facts: ScriptFacts) -> Iterator[Finding]:
    target = facts.target
    here = _played_here(target)
    if target.job is not None or here is None or _prepares(target):
        return
    more = put_on_path(facts)
    wanted = needed(facts) if more is not None else []
    if all(n.name in sys.stdlib_module_names or n.name == "torch" for n in wanted):
        return
    told = lacking(replace(target, plan=here), [n.name for n in wanted if n.name != "torch"],
                   more or ())  # fmt: skip
    if told is None:
        return
    if told.because:
        why = f"{brief(told.python)} did not tell which modules it has: {brief(told.because)}"
        yield unknown("script", why)
    for one in wanted:
        if one.name in told.lacks:
            yield from _said(facts, one, told, here)


def _said(facts: ScriptFacts, one: Needed, told: Told, here: LaunchPlan) -> Iterator[Finding]:
    python = brief(told.python)
    if not one.on(socket.gethostname()):
        others = sorted({p.host for p in facts.target.plans if p.host and one.on(p.host)})
        if others:
            where = one.call.source.where(getattr(one.call.node, "lineno", 1))
            yield unknown(
                "script",
                f"{where} imports {one.name} on {', '.join(map(brief, others))} only; the Python of"
                f" this host ({python}) has no such module, and what is there can't be seen from"
                " here",
            )  # fmt: skip
        return
    folder = _lies_in(one.name, here.cwd)
    near = f"; it lies in {brief(str(folder))}, where this launch does not look" if folder else ""
    outcome = "module-missing-maybe" if facts.target.logs else "module-missing"
    yield at(
        one.call,
        outcome,
        f"the module {one.name} is imported, which {python} does not have{near}",
        kind="import",
        name=one.name,
        module=one.name,
        interpreter=python,
        folder=str(folder) if folder else None,
    )


def _lies_in(name: str, cwd: Path) -> Path | None:
    """The working directory is not where Python looks for what a script elsewhere imports."""
    there = (cwd / f"{name}.py").is_file() or any((cwd / name).glob("*.py"))
    return cwd if there else None


def _played_here(target: Target) -> LaunchPlan | None:
    """The command that runs the script on this host."""
    own = socket.gethostname().partition(".")[0]
    for plan in target.plans:
        same = target.plan is None or plan.script == target.plan.script
        mine = plan.host is None or is_here(plan.host) or plan.host.partition(".")[0] == own
        if same and mine and not plan.conditional:
            return plan
    return None


def _prepares(target: Target) -> bool:
    launch = target.launch
    return launch is not None and bool(_PREPARES.search(launch.text))


CHECKS = (missing,)
