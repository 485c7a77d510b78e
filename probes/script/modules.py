"""Modules that the script imports and that the Python of the launch does not have."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddp_assist.probes.host.modules import Told, lacking
from ddp_assist.probes.host.python import of_shell
from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target, unknown
from ddp_assist.probes.network.endpoints import is_here
from ddp_assist.probes.network.scope import is_submitted
from ddp_assist.probes.script.facts import ScriptFacts, read_facts, script_of
from ddp_assist.probes.script.imports import Needed, needed, put_on_path
from ddp_assist.probes.script.read import ScriptError
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
    known = _wanted(facts) if here is not None else None
    if here is None or known is None:
        return
    wanted, more = known
    told = lacking(replace(target, plan=here), [n.name for n in wanted], more)
    if told is None:
        return
    if told.because:
        why = f"{brief(told.python)} did not tell which modules it has: {brief(told.because)}"
        yield unknown("script", why)
    lacked = [one for one in wanted if one.name in told.lacks]
    other = _other(replace(target, plan=here), [one.name for one in lacked], more)
    for one in lacked:
        yield from _said(facts, one, told, here, other)


def _other(target: Target, names: list[str], more: list[str]) -> str | None:
    """The Python of this shell, where the launcher's is another one and all is there for it."""
    python = of_shell(target) if names and not target.python else None
    told = lacking(replace(target, python=python), names, more) if python else None
    return python if told is not None and not told.because and not told.lacks else None


def for_nodes(target: Target) -> dict[str, Any] | None:
    """What the nodes of a fleet are asked for: each module, where it is imported, and on whom."""
    script = script_of(target)
    try:
        known = _wanted(read_facts(target, script)) if script is not None else None
    except (ScriptError, RecursionError):
        return None  # the probe of scripts says so
    if known is None:
        return None
    wanted, more = known
    names = {one.name: {"where": one.where, "hosts": one.hosts} for one in wanted}
    return {"names": names, "more": more}


def _wanted(facts: ScriptFacts) -> tuple[list[Needed], list[str]] | None:
    """What the script surely imports, and where it looks for it; None where that can't be told."""
    target = facts.target
    more = put_on_path(facts)
    if target.job is not None or more is None or _prepares(target):
        return None
    wanted = [one for one in needed(facts) if one.name != "torch"]
    usual = all(one.name in sys.stdlib_module_names for one in wanted)
    return None if usual else (wanted, more)


def _said(
    facts: ScriptFacts, one: Needed, told: Told, here: LaunchPlan, other: str | None
) -> Iterator[Finding]:
    python, name = brief(told.python), one.name
    if not one.on(socket.gethostname()):
        others = sorted({p.host for p in facts.target.plans if p.host and one.on(p.host)})
        if others:
            yield unknown(
                "script",
                f"{one.where} imports {one.name} on {several(others)} only; the Python of this host"
                f" ({python}) has no such module, and what is there can't be seen from here",
            )
        return
    if other and not facts.target.logs:
        yield at(
            one.call,
            "module-in-other-python",
            f"the module {name} is imported, which {python} does not have, but {brief(other)} has",
            name=name,
            interpreter=python,
            python_on_path=other,
        )
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
    for plan in () if is_submitted(target) else target.plans:
        same = target.plan is None or plan.script == target.plan.script
        mine = plan.host is None or is_here(plan.host) or plan.host.partition(".")[0] == own
        if same and mine and not plan.conditional:
            return plan
    return None


def _prepares(target: Target) -> bool:
    launch = target.launch
    return launch is not None and bool(_PREPARES.search(launch.text))


CHECKS = (missing,)
