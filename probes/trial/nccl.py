"""What NCCL's own log says about a trial, and what is tried by hand when it fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ddp_assist.probes.trial.spec import TrialResult, TrialSpec

# What people switch off one after the other, cheapest first.
EXPERIMENTS: tuple[Mapping[str, str], ...] = (
    {"NCCL_P2P_DISABLE": "1"},
    {"NCCL_SHM_DISABLE": "1"},
    {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"},
)
SHORT = 15.0
_TRANSPORT = re.compile(r"NCCL INFO Channel [^:\n]+: \S+ -> \S+ (?:\[\w+\] )?via (\S+)")
_INTERFACE = re.compile(r"NCCL INFO (?:Bootstrap|NET/\w+) ?: ?Using (?:\[\d+\])?(\S+)")
_VERSION = re.compile(r"NCCL version (\d\S*)")
_WARNING = re.compile(r"NCCL WARN (.*)")


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


def worth_experiments(spec: TrialSpec, result: TrialResult) -> bool:
    """GPUs were there and met, and then NCCL did not come through."""
    return (
        spec.backend == "nccl" and spec.nproc > 1 and result.outcome in ("group", "all-reduce")
    )  # fmt: skip


def experiment(
    spec: TrialSpec, result: TrialResult, attempt: Callable[[TrialSpec], TrialResult]
) -> TrialResult:
    """The same trial with one way between the GPUs switched off at a time, until one works."""
    tried: list[dict[str, Any]] = []
    for change in EXPERIMENTS:
        env = dict(spec.env) | dict(change)
        again = attempt(replace(spec, env=env, deadline=min(SHORT, spec.deadline)))
        tried.append({"env": dict(change), "outcome": again.outcome, "seconds": again.seconds})
        if again.joined:
            names = " ".join(f"{name}={value}" for name, value in change.items())
            sentence = f"{result.sentence}; with {names} it works"
            return replace(result, sentence=sentence, experiments=tuple(tried))
    return replace(result, experiments=tuple(tried))
