"""What NCCL's own log says about a trial, and what is tried by hand when it fails."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from ddp_assist.probes.trial.spec import LONGEST, TrialResult, TrialSpec

# What people switch off, or on again, one after the other, cheapest first.
EXPERIMENTS = (
    ("NCCL_P2P_DISABLE",), ("NCCL_SHM_DISABLE",), ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE"),
)  # fmt: skip
SHORTEST = 4.0
"""Seconds below which an experiment would only prove that NCCL needs some time to start."""
NO_TIME = "no time was left to try it with P2P and SHM off: a shorter --timeout leaves some"
# With these no way between the GPUs can help.
DECIDED = frozenset({
    "gpu-twice", "gpu-full", "gpu-busy", "gpu-architecture", "driver-too-old", "interface-missing",
    "nccl-versions", "cancelled",
})  # fmt: skip
UNTRIED = frozenset({"no-nccl", "no-gpu", "gpu-full", "gpu-busy"})
"""Why NCCL could not be tried here and now; it says nothing about the launch."""
_TRANSPORT = re.compile(r"NCCL INFO Channel [^:\n]+: \S+ -> \S+ (?:\[\w+\] )?via (\S+)")
_INTERFACE = re.compile(r"NCCL INFO (?:Bootstrap|NET/\w+) ?: ?Using (?:\[\d+\])?(?!\[)(\S+)")
_VERSION = re.compile(r"NCCL version (\d\S*)")
_WARNING = re.compile(r"NCCL WARN (.*)")


def gpus_here(env: Mapping[str, str | None], devices: str = "/dev") -> int:
    """How many GPUs a launch with this environment may see: what the host shows, less its wish."""
    nodes = [n for n in os.listdir(devices) if n.startswith("nvidia") and n[6:].isdigit()]
    wish = env.get("CUDA_VISIBLE_DEVICES")
    if wish is None:
        return len(nodes)
    names = [name.strip() for name in wish.split(",")]
    named = [*takewhile(lambda name: name and not name.startswith("-"), names)]
    return min(len(named), len(nodes))


def changes(env: Mapping[str, str | None]) -> list[dict[str, str]]:
    """What each experiment sets: the other way round than this launch has it."""
    return [
        {name: "0" if env.get(name, os.environ.get(name)) == "1" else "1" for name in names}
        for names in EXPERIMENTS
    ]


def read_log(log: str) -> dict[str, list[str]]:
    """Transports, interfaces, version and warnings, in the order in which they were printed."""

    def all_of(pattern: re.Pattern[str]) -> list[str]:
        return list(dict.fromkeys(pattern.findall(log)))[:16]

    return {
        "transports": all_of(_TRANSPORT),
        "interfaces": all_of(_INTERFACE),
        "version": all_of(_VERSION),
        "warnings": all_of(_WARNING),
    }


def what_nccl_said(log: str) -> list[str]:
    """The log in one line each: what it chose, and what it warned of."""
    names = {"transports": "between GPUs", "interfaces": "between hosts and for the start-up"}
    said = read_log(log)
    chose = [
        f"NCCL chose {', '.join(said[key])} {what}" for key, what in names.items() if said[key]
    ]
    return chose + [f"NCCL warned: {warning}" for warning in said["warnings"]]


def what_it_took(result: TrialResult) -> list[str]:
    """The memory of each GPU that the trial was seen to take, other jobs' changes included."""
    seats = {s.rank: s.facts for s in result.stages if s.stage == "backend" and s.rank is not None}
    took = {s.rank: s.facts.get("took_mib") for s in result.stages if s.stage == "all-reduce"}
    return [
        f"rank {rank} had GPU {facts.get('index')} ({facts.get('gpu')}, {facts.get('free_mib')} MiB"
        f" free), and took {took[rank]} MiB of it"
        for rank, facts in seats.items()
        if took.get(rank) is not None
    ]


def worth_experiments(spec: TrialSpec, result: TrialResult) -> bool:
    """GPUs were there and met, and then NCCL did not come through for no reason of its own."""
    return (
        spec.backend == "nccl"
        and spec.nproc > 1
        and result.outcome in ("group", "all-reduce")
        and result.kind not in DECIDED
    )


def experiment(
    spec: TrialSpec,
    result: TrialResult,
    attempt: Callable[[TrialSpec], TrialResult],
    say: Callable[[str], None],
) -> TrialResult:
    """The same trial with one way between the GPUs switched off at a time, until one works.

    All of it together ends within the longest time of a trial."""
    until = time.monotonic() + LONGEST - result.seconds
    tried: list[dict[str, Any]] = []
    for place, change in enumerate(changes(spec.env)):
        seconds = min(spec.deadline, (until - time.monotonic()) / (len(EXPERIMENTS) - place))
        if seconds < SHORTEST:
            return replace(result, experiments=tuple(tried), notes=(*result.notes, NO_TIME))
        names = " ".join(f"{name}={value}" for name, value in change.items())
        say(f"trying again with {names}")
        again = attempt(replace(spec, env=dict(spec.env) | dict(change), deadline=seconds))
        tried.append({"env": dict(change), "outcome": again.outcome, "seconds": again.seconds})
        if again.joined:
            sentence = f"{result.sentence}; with {names} it works"
            return replace(result, sentence=sentence, experiments=tuple(tried))
        if again.kind == "cancelled":
            break
    return replace(result, experiments=tuple(tried))
