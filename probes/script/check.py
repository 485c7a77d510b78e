"""The probe `script`: reads the training script and names what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from ddp_assist.probes.model import Evidence, Finding, Probe, Target, Weight, unknown
from ddp_assist.probes.script import (
    children,
    code,
    devices,
    forks,
    groups,
    locks,
    meeting,
    modules,
    ranks,
    rounds,
    starts,
    store_use,
    stores,
)
from ddp_assist.probes.script.facts import ScriptFacts, read_facts, script_of
from ddp_assist.probes.script.read import ScriptError

Check = Callable[[ScriptFacts], Iterable[Finding]]
CHECKS: tuple[Check, ...] = tuple(
    chain(
        code.CHECKS,
        modules.CHECKS,
        meeting.CHECKS,
        starts.CHECKS,
        groups.CHECKS,
        stores.CHECKS,
        store_use.CHECKS,
        children.CHECKS,
        locks.CHECKS,
        forks.CHECKS,
        ranks.CHECKS,
        rounds.CHECKS,
        devices.CHECKS,
    )
)

_BAD = [
    "port-differs-per-rank",
    "port-out-of-range",
    "launcher-port-overridden",
    "store-hosted-twice",
    "store-not-hosted",
    "store-key-never-set",
    "store-misused",
    "store-race",
    "store-object-shared",
    "missing-env",
    "init-method-malformed",
    "init-file-stale",
    "local-rank-as-rank",
    "local-rank-argument",
    "framework-not-distributed",
    "process-group-missing",
    "process-group-twice",
    "name-missing-in-script",
    "module-shadowed",
    "module-missing",
    "module-in-other-python",
    "error-masked",
    "missing-main-guard",
    "spawn-target-invalid",
    "unpicklable-object",
    "notebook-main",
    "lock-not-shared",
    "fork-after-cuda",
    "fork-with-threads",
    "start-method-already-set",
    "daemonic-parent",
    "context-dropped",
    "rank-never-started",
    "world-size-mismatch",
    "collective-skipped",
    "collective-order",
    "unused-parameters",
    "shape-mismatch",
    "cpu-tensor-on-nccl",
    "nccl-not-in-build",
    "gpu-global-rank-index",
    "gpu-shared-by-ranks",
    "uneven-inputs",
    "port-lost-after-pick",
    "store-left-early",
    "rank0-busy",
]
_MAYBE = [
    "port-lost-after-pick",
    "store-left-early",
    "store-not-hosted",
    "init-file-stale",
    "local-rank-as-rank",
    "local-rank-argument",
    "name-missing-in-script",
    "module-missing",
    "error-masked",
    "fork-with-threads",
    "launcher-port-overridden",
    "uneven-inputs",
    "rank0-busy",
    "gpu-global-rank-index",
    "gpu-map-location",
]
OUTCOMES: dict[str, Weight] = {
    "fine": "ok", **dict.fromkeys(_BAD, "bad"), **{f"{name}-maybe": "info" for name in _MAYBE},
}  # fmt: skip


def findings(facts: ScriptFacts) -> Iterator[Finding]:
    """Everything the checks say, in the order of the checks."""
    broken = facts.source.problem is not None
    for check in CHECKS:
        if broken and check not in code.CHECKS:
            continue
        yield from check(facts)


def look(target: Target) -> Iterator[Finding]:
    script = script_of(target)
    if script is None:
        yield unknown("script", "the launch names no script that can be read")
        return
    try:
        seen = list(findings(read_facts(target, script)))
    except RecursionError:
        yield unknown(
            "script", f"{script.name} is nested too deeply to be followed", file=str(script)
        )
        return
    except ScriptError as error:
        yield unknown(
            "script",
            f"{script.name} could not be checked: {error}",
            Evidence(str(script)),
            file=str(script),
        )
        return
    yield from seen
    if not any(OUTCOMES.get(f.outcome) == "bad" or f.outcome == "unknown" for f in seen):
        yield Finding(
            "script",
            "fine",
            f"{script.name} has none of the mistakes that are looked for",
            {"file": str(script)},
        )


def applies(target: Target) -> bool:
    return target.script is not None or (target.plan is not None and target.plan.script is not None)


PROBES: tuple[Probe, ...] = (
    Probe(
        "script",
        "Is the training script right?",
        OUTCOMES,
        look,
        applies,
        deadline=10.0,
        after=("torch",),
    ),
)
