"""Does the launch make sense in itself? Whatever can be told without asking the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ddp_assist.probes.launch import (
    check_meeting,
    check_ranks,
    check_script,
    check_typed,
    check_words,
)
from ddp_assist.probes.launch.judging import PROBE
from ddp_assist.probes.launch.read import reread
from ddp_assist.probes.model import Finding, Probe, Target, Weight

OUTCOMES: Mapping[str, Weight] = {
    "fine": "ok",
    "no-launcher": "info",
    "not-understood": "info",
    "port-out-of-range": "bad",
    "port-privileged": "info",
    "port-ephemeral": "info",
    "port-differs-per-rank": "bad",
    "port-shared-by-jobs": "bad",
    "master-addr-malformed": "bad",
    "master-addr-is-loopback": "bad",
    "master-addr-not-rank0": "bad",
    "rdzv-endpoint-without-port": "bad",
    "rdzv-id-differs": "bad",
    "node-rank-duplicated": "bad",
    "node-rank-out-of-range": "bad",
    "nnodes-disagree": "bad",
    "world-size-mismatch": "bad",
    "rank-never-started": "bad",
    "one-of-several": "info",
    "slurm-plan-mismatch": "bad",
    "gpu-count": "bad",
    "nccl-not-in-build": "bad",
    "env-left-exported": "bad",
    "env-export-syntax": "bad",
    "missing-env": "bad",
    "local-rank-argument": "bad",
    "launcher-flag-ignored": "bad",
    "launcher-deprecated": "info",
    "option-unknown": "info",
    "hostfile-invalid": "bad",
    "init-method-malformed": "bad",
    "container-shm-default": "info",
}
CHECKS = (
    check_meeting.port,
    check_meeting.address,
    check_meeting.loopback,
    check_meeting.endpoint,
    check_meeting.init_method,
    check_meeting.rdzv_id,
    check_meeting.port_of_each,
    check_meeting.together,
    check_ranks.node_ranks,
    check_ranks.single_ranks,
    check_ranks.one_after_another,
    check_ranks.slurm,
    check_ranks.without_srun,
    check_ranks.gpus,
    check_ranks.tensorflow,
    check_words.exports,
    check_words.ignored,
    check_words.swallowed,
    check_typed.typed,
    check_words.unknown_options,
    check_words.hostfile,
    check_words.container,
    check_script.missing,
    check_script.local_rank,
)


def look(target: Target) -> Iterator[Finding]:
    left = list(check_words.left_over(target))
    if left and target.launch is not None:
        target = _without(target, {name for f in left for name in f.data["variables"]})
    found = left + [finding for check in CHECKS for finding in check(target)]
    yield from _once(found)
    strange = [word for plan in target.plans for word in plan.not_understood]
    if not target.plans:
        sentence = "no command in the launch is one that starts ranks, as far as it can be read"
        yield Finding(PROBE, "no-launcher", sentence)
    elif strange:
        sentence = f"{', '.join(strange[:4])}: not understood, and left as it is"
        yield Finding(PROBE, "not-understood", sentence, {"words": strange[:32]})
    if target.plans and not any(OUTCOMES[f.outcome] == "bad" for f in found):
        yield Finding(
            PROBE, "fine", "the launch makes sense in itself", {"plans": len(target.plans)}
        )


def _without(target: Target, names: set[str]) -> Target:
    """The launch as it would be read without what was left exported, which is told once."""
    env = {name: value for name, value in target.env.items() if name not in names}
    launch = target.launch and reread(replace(target.launch, env=env), target.launch.text)
    return replace(target, env=env, launch=launch, plan=launch.main if launch else None)


def _once(found: list[Finding]) -> Iterator[Finding]:
    """Several commands of one launch often share one mistake: it is told once."""
    told = set()
    for finding in found:
        if (finding.outcome, finding.sentence) not in told:
            told.add((finding.outcome, finding.sentence))
            yield finding


PROBES: tuple[Probe, ...] = (
    Probe(
        PROBE,
        "Does the launch command make sense in itself?",
        OUTCOMES,
        look,
        applies=lambda target: target.launch is not None or target.plan is not None,
        deadline=3.0,
        after=("torch", "gpu", "script"),
    ),
)
