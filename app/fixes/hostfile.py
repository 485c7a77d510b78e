"""A hostfile with the nodes of the job: the user's own lines of them, and like them the others."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ddp_assist.app.fixes.model import FileEdit
from ddp_assist.probes.launch.hosts import host_on, hosts_option, text_of
from ddp_assist.probes.launch.plan import LaunchError, LaunchPlan

SLOTS = re.compile(r"\bslots=\d+")


def corrected(plan: LaunchPlan, names: Sequence[str], gpus: Mapping[str, int]) -> FileEdit:
    """Of the file that the launch names, or of one that it is to name."""
    path = plan.cwd / (named(plan) or "hostfile")
    after = hostfile(plan, names, gpus)
    if plan.launcher in ("deepspeed", "accelerate"):
        bare = next((line for line in after.splitlines() if host_on(line) and "=" not in line), "")
        if bare:
            raise LaunchError(f"how many ranks {bare} is to have is not known")
    return FileEdit(path, text_of(path), after)


def is_in_words(plan: LaunchPlan) -> bool:
    """Whether the hosts stand in the launch itself."""
    return plan.launcher == "colossalai" and plan.option("host") is not None


def named(plan: LaunchPlan) -> str | None:
    return plan.hostfile or hosts_option(plan)


def hostfile(plan: LaunchPlan | None, names: Sequence[str], gpus: Mapping[str, int]) -> str:
    """One line a node. How many ranks it has is known from lines, launch or GPUs, or left open."""
    file = named(plan) if plan is not None else None
    lines = text_of(plan.cwd / file).splitlines() if plan is not None and file else []
    known: dict[str, str] = {}
    kept = []
    for line in lines:
        host = host_on(line)
        if host is None or (host in names and host not in known):
            known[host or ""] = line
            kept.append(line)
    mine = [line for line in kept if host_on(line)] or [line for line in lines if host_on(line)]
    each = next((line.split(None, 1)[1:] for line in mine), [])
    kept += [" ".join([name, *each]) for name in names if name not in known]
    if plan is not None and plan.launcher == "colossalai":
        kept = [host_on(line) or line for line in kept]
    if plan is not None and plan.launcher in ("deepspeed", "accelerate"):
        kept = [_with_slots(line, plan, mine, gpus) for line in kept]
    return "".join(f"{line}\n" for line in kept)


def _with_slots(line: str, plan: LaunchPlan, others: Sequence[str], gpus: Mapping[str, int]) -> str:
    host = host_on(line)
    if host is None or SLOTS.search(line):
        return line
    told = next((found[0] for other in others if (found := SLOTS.search(other))), None)
    count = plan.nproc if isinstance(plan.nproc, int) else gpus.get(host)
    word = told or (f"slots={count}" if count else "")
    return f"{host} {word}".rstrip()
