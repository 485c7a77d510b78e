"""Single corrections of a launch: an option or a variable set, or taken away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.launchers import ELASTIC
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan, Option, Span
from ddp_assist.probes.launch.write import Edit, fitting, rewritten
from ddp_assist.probes.network.endpoints import LOOPBACK_NAMES, is_here

NAMES: Mapping[str, Mapping[str, str]] = {
    "accelerate": {
        "master-port": "main-process-port",
        "master-addr": "main-process-ip",
        "node-rank": "machine-rank",
        "nnodes": "num-machines",
        "nproc-per-node": "num-processes",
    },
    "deepspeed": {"nnodes": "num-nodes", "nproc-per-node": "num-gpus"},
    "colossalai": {"nnodes": "num-nodes"},
    "composer": {"nproc-per-node": "nproc"},
    "lightning": {
        "master-port": "main-port",
        "master-addr": "main-address",
        "nnodes": "num-nodes",
        "nproc-per-node": "devices",
    },
}
"""What a launcher calls an option that torchrun knows by another name."""
PLAIN = frozenset({"python", "srun", "mpirun"})
"""Launchers whose ranks are told by variables, not by options."""


def option_name(plan: LaunchPlan, name: str) -> str:
    return NAMES.get(plan.launcher, {}).get(name, name)


def set_option(launch: Launch, plan: LaunchPlan, name: str, value: str) -> Edit:
    """The value of an option replaced where it stands, or the option put behind the launcher."""
    name = option_name(plan, name)
    given = plan.option(name)
    turns = given is not None and _differs_per_turn(launch, given)
    if given is not None and given.value_span is not None and not turns:
        return Edit(given.value_span, fitting(launch, given.value_span, value))
    if given is not None:
        written = launch.text[slice(*given.span)] if given.span[0] >= 0 else ""
        if not written.startswith(given.spelling):
            raise LaunchError(f"the value of --{name} is put together in several places")
        return Edit(given.span, fitting(launch, given.span, f"{given.spelling}={value}"))
    where = placed(plan, plan.launcher_span[1])
    word = f"{spelled(plan, name)}={value}"
    return Edit((where, where), " " + fitting(launch, (where, where), word))


def _differs_per_turn(launch: Launch, given: Option) -> bool:
    """Written once in a loop that fills in another value each time: its words mean more than it."""
    same = [o for p in launch.plans for o in p.options if o.span == given.span and o.span[0] >= 0]
    return len({o.value for o in same}) > 1


def set_part(launch: Launch, plan: LaunchPlan, name: str, span: Span, value: str) -> Edit:
    """A part of an option's value replaced, e.g. the port of an endpoint."""
    given = plan.option(name)
    if given is not None and given.value is not None and _differs_per_turn(launch, given):
        whole = given.value[: span[0]] + value + given.value[span[1] :]
        return set_option(launch, plan, name, whole)
    where = given.part(*span) if given is not None else None
    if where is None:
        raise LaunchError(f"the value of --{name} is put together in several places")
    return Edit(where, fitting(launch, where, value))


def add_flag(plan: LaunchPlan, name: str) -> Edit:
    where = placed(plan, plan.launcher_span[1])
    return Edit((where, where), " " + spelled(plan, name))


def drop_option(launch: Launch, plan: LaunchPlan, name: str) -> list[Edit]:
    """Every occurrence of an option taken away, with the blank in front of it."""
    found = []
    for option in plan.options:
        if option.name == name:
            start, end = option.span
            while start > 0 and launch.text[start - 1] in " \t":
                start -= 1
            found.append(Edit((placed(plan, start), end), ""))
    return found


def set_variable(launch: Launch, plan: LaunchPlan, name: str, value: str) -> Edit:
    """A variable's value replaced where the launch sets it, or set for this command alone."""
    given = plan.assignment(name)
    if given is not None and given.value_span[0] >= 0:
        return Edit(given.value_span, fitting(launch, given.value_span, value))
    where = placed(plan, plan.launcher_span[0])
    word = fitting(launch, (where, where), f"{name}={value}")
    before = launch.text[plan.span[0] : where]
    bare = re.fullmatch(r"\s*([A-Za-z_]\w*=\S*\s+)*", before) and not plan.prefix
    return Edit((where, where), f"{word} " if bare else f"env {word} ")


def take_variables(launch: Launch, plan: LaunchPlan, names: Iterable[str]) -> list[Edit]:
    """Variables of the user's shell kept away from this command."""
    edits: list[Edit] = []
    foreign = []
    for name in names:
        given = plan.assignment(name)
        if given is None:
            foreign.append(name)
            continue
        start, end = given.span
        while end < len(launch.text) and launch.text[end] in " \t":
            end += 1
        edits.append(Edit((placed(plan, start), end), ""))
    if foreign:
        edits.append(before(plan, "env " + " ".join(f"-u {name}" for name in foreign)))
    return edits


def before(plan: LaunchPlan, words: str) -> Edit:
    """Words put right in front of the launcher."""
    where = placed(plan, plan.launcher_span[0])
    return Edit((where, where), words + " ")


def placed(plan: LaunchPlan, where: int) -> int:
    if not plan.editable or where < 0:
        raise LaunchError(f"the command {plan.launcher} stands in another file than the launch")
    return where


def spelled(plan: LaunchPlan, name: str) -> str:
    """An option in the spelling that the user prefers: `--a-b` or `--a_b`."""
    own = [o.spelling for o in plan.options if o.spelling.startswith("--") and o.known]
    underscores = any("_" in spelling for spelling in own) and not any(
        "-" in spelling.lstrip("-") for spelling in own
    )
    dashed = plan.launcher in ELASTIC or plan.launcher == "lightning"
    return "--" + (name if dashed and not underscores else name.replace("-", "_"))


def is_single(plan: LaunchPlan) -> bool:
    """Whether all ranks of this command run on one host."""
    return plan.nnodes is None or plan.nnodes[1] <= 1


Rule = Callable[[Launch, LaunchPlan], Iterable[Edit]]


def edited(situation: Situation, rule: Rule) -> Launch | None:
    """The launch with a rule applied to each of its commands; None where nothing is to change."""
    launch = situation.target.launch
    if launch is None:
        return None
    try:
        edits = {edit for plan in launch.plans for edit in rule(launch, plan)}
        result = rewritten(launch, edits) if edits else None
    except LaunchError:
        return None  # an edit that would be a guess is not made: the page's steps stand instead
    return result if result is not None and result.text != launch.text else None


def meeting(situation: Situation, launch: Launch, port: int | None = None) -> dict[str, Any] | None:
    """What a trial must be told to let ranks meet as the corrected launch says."""
    plan = launch.main
    if plan is None or launch.is_submitted:
        return None  # what is submitted runs on hosts that Slurm chooses: here it proves nothing
    address = plan.master_addr or "127.0.0.1"
    if plan.rdzv_endpoint:
        address = plan.rdzv_endpoint.rpartition(":")[0] or plan.rdzv_endpoint
    if not is_here(address):
        return None
    ranks = plan.nproc if isinstance(plan.nproc, int) and plan.nproc > 0 else 2
    backend = situation.target.backend if situation.target.backend in ("gloo", "nccl") else "gloo"
    asked: dict[str, Any] = {
        "backend": backend,
        # NCCL wants a GPU for each rank, so a second one is not added there.
        "nproc": min(ranks if backend == "nccl" else max(ranks, 2), 8),
        "addr": "127.0.0.1" if address in LOOPBACK_NAMES else address,
    }
    return asked | ({} if port is None else {"port": port})


def as_fix(situation: Situation, title: str, launch: Launch | None, **more: Any) -> Fix | None:
    """A fix of the launch, or None where the launch could not be corrected."""
    if launch is None:
        return None
    return Fix(situation.cause, title, "command", launch=launch, **more)
