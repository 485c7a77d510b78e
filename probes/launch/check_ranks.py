"""Checks of how many nodes and ranks there are, and of which is which."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator

from ddp_assist.probes.host.words import counted
from ddp_assist.probes.launch.judging import (
    ONE_A_NODE,
    PLAIN,
    groups,
    is_counted,
    is_static,
    meets_at,
    node_rank,
    nodes,
    option,
    rank,
    raw,
    say,
)
from ddp_assist.probes.launch.launchers import ELASTIC, whole
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target

PER_TASK = re.compile(r"\$\{?SLURM_(NODEID|PROCID|LOCALID)\b")


def node_ranks(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        count, number = nodes(plan), node_rank(plan)
        if count is None or number is None or plan.launcher in PLAIN or 0 <= number < max(count, 1):
            continue
        sentence = f"node rank {number} with {count} nodes: they run from 0 to {count - 1}"
        yield say(target, plan, "node-rank-out-of-range", sentence, node_rank=number, nnodes=count)
    for group in groups(target):
        mine = [p for p in group if p.launcher not in PLAIN]
        if len(mine) < 2:
            continue
        counts = {nodes(p) for p in mine if nodes(p)}
        if len(counts) > 1 and max(c or 0 for c in counts) > 1 and _one_job(mine):
            shown = " and ".join(map(str, sorted(c or 0 for c in counts)))
            sentence = f"the nodes were told different numbers of nodes (nnodes): {shown}"
            yield say(
                target, mine[-1], "nnodes-disagree", sentence,
                nnodes=sorted(c or 0 for c in counts), started=len(mine),
            )  # fmt: skip
        fixed = [p for p in mine if (nodes(p) or 1) > 1 and is_static(p)]
        told = Counter(n for p in fixed if (n := node_rank(p)) is not None)
        twice = sorted(n for n, times in told.items() if times > 1)
        if twice and _one_job(fixed):
            sentence = f"two nodes were given the same node rank {twice[0]}"
            yield say(target, fixed[-1], "node-rank-duplicated", sentence, node_rank=twice[0])


def _one_job(plans: list[LaunchPlan]) -> bool:
    """The commands want to meet at one place."""
    return len({meets_at(p) for p in plans}) == 1


def single_ranks(target: Target) -> Iterator[Finding]:
    """Commands that are one rank each, numbered by RANK."""
    for group in groups(target):
        mine = [p for p in group if p.launcher in PLAIN and p.scheduler is None]
        numbered = [p for p in mine if rank(p) is not None]
        if not numbered:
            continue
        worlds = {whole(p.environment(target.env).get("WORLD_SIZE")) for p in numbered} - {None}
        size = next(iter(worlds)) if len(worlds) == 1 else None
        ranks = Counter(r for p in numbered if (r := rank(p)) is not None)
        if len(worlds) > 1:
            shown = " and ".join(sorted(map(str, worlds)))
            sentence = f"the ranks are told different world sizes: {shown}"
            yield say(target, numbered[-1], "world-size-mismatch", sentence, world_size=shown)
        twice = sorted(r for r, times in ranks.items() if times > 1)
        if twice and len(numbered) == len(mine):
            sentence = f"two processes are started as rank {twice[0]}"
            yield say(target, numbered[-1], "node-rank-duplicated", sentence, rank=twice[0])
        if size is None or size < 1:
            continue
        beyond = sorted(r for r in ranks if not 0 <= r < size)
        if beyond:
            sentence = f"RANK={beyond[0]} with WORLD_SIZE={size}: ranks run from 0 to {size - 1}"
            yield say(
                target, numbered[-1], "node-rank-out-of-range", sentence,
                rank=beyond[0], world_size=size,
            )  # fmt: skip
        missing = [r for r in range(min(size, 4096)) if r not in ranks]
        if not missing or beyond or twice or len(numbered) != len(mine) or not is_counted(target):
            continue
        shown = ", ".join(map(str, missing[:8]))
        if len(numbered) > 1:
            sentence = f"WORLD_SIZE is {size}, but rank {shown} is never started by this launch"
            yield say(
                target, numbered[-1], "rank-never-started", sentence,
                missing=missing[:64], world_size=size, started=len(numbered),
            )  # fmt: skip
        else:
            sentence = f"this launch starts rank {rank(numbered[0])} of {size} and no other"
            yield say(target, numbered[0], "one-of-several", sentence, missing=missing[:64])


def one_after_another(target: Target) -> Iterator[Finding]:
    """Commands of one job that wait for each other, each started when the one before has ended."""
    if not is_counted(target):
        return
    rounds = [group for group in groups(target) if group]
    for first, then in zip(rounds, rounds[1:], strict=False):
        one, other = first[-1], then[0]
        job, number, later = _job(target, one), _number(target, one), _number(target, other)
        if job is None or job != _job(target, other) or None in (number, later):
            continue
        if job[0] <= len(first) or later in [_number(target, p) for p in first]:
            continue
        sentence = (
            f"the command of {later} starts only when that of {number} has ended, which waits for "
            "it: there is no & behind it"
        )
        yield say(target, one, "rank-never-started", sentence, in_turn=True, waits_for=later)
        return


def _job(target: Target, plan: LaunchPlan) -> tuple[int, tuple[str, str]] | None:
    """How many commands make the job, and where they meet."""
    if plan.launcher not in PLAIN:
        count, where = nodes(plan), meets_at(plan)
    else:
        seen = plan.environment(target.env)
        count = whole(seen.get("WORLD_SIZE")) if rank(plan) is not None else None
        where = seen.get("MASTER_ADDR", ""), seen.get("MASTER_PORT", "")
    return (count, where) if count is not None and count > 1 and where[0] else None


def _number(target: Target, plan: LaunchPlan) -> str | None:
    """Which part of its job a command is; agents that agree on it are told apart by their hosts."""
    if plan.launcher in PLAIN:
        return None if rank(plan) is None else f"rank {rank(plan)}"
    if is_static(plan):
        return None if node_rank(plan) is None else f"node rank {node_rank(plan)}"
    listed = plan.option("srun-nodelist")
    host = plan.host or (listed.value if listed else None)
    return f"host {host[:60]}" if host else None


def slurm(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        if plan.scheduler != "srun":
            continue
        asked = plan.option("srun-nodes")
        count = whole((asked.value or "").partition("-")[0]) if asked else None
        count = count or whole(plan.env.get("SLURM_NNODES"))
        tasks = plan.tasks or whole(plan.env.get("SLURM_NTASKS"))
        name = "torchrun" if plan.launcher in ELASTIC else plan.launcher
        if plan.launcher in ONE_A_NODE:
            each = option(plan, "srun-ntasks-per-node")
            per_node = whole(each.value) if each else whole(plan.env.get("SLURM_NTASKS_PER_NODE"))
            many = per_node is not None and per_node > 1 and plan.tasks != count
            if many or (count and tasks and tasks > count):
                sentence = (
                    f"srun starts {tasks or per_node} tasks on {count or '?'} nodes, and each is a "
                    f"{name} of its own: {name} wants one task per node"
                )
                yield say(target, plan, "slurm-plan-mismatch", sentence, tasks=tasks, nodes=count)
            elif count and nodes(plan) and nodes(plan) != count and not plan.standalone:
                word = {"accelerate": "--num_machines"}.get(name, "--nnodes")
                sentence = f"srun has {count} nodes, but {name} is told {word}={nodes(plan)}"
                yield say(
                    target, plan, "slurm-plan-mismatch", sentence, nodes=count, nnodes=nodes(plan)
                )
        yield from _expanded_once(target, plan, count or tasks or 2)


def _expanded_once(target: Target, plan: LaunchPlan, count: int) -> Iterator[Finding]:
    """A task's own number that the batch shell fills in once, so that all tasks get the same."""
    after = plan.prefix[plan.prefix.index("srun") + 1 :] if "srun" in plan.prefix else ()
    if any(word in ("-c", "-lc", "-xc", "-ec") for word in after) or not plan.editable:
        return
    given = option(plan, "node-rank")
    written = raw(target, given)
    static = is_static(plan)
    if count > 1 and PER_TASK.search(written) and static:
        sentence = f"{written[:60]} is filled in once, before srun starts, so every node gets it"
        yield say(target, plan, "slurm-plan-mismatch", sentence, option=written[:60])
    elif count > 1 and given and given.value and static and (nodes(plan) or 1) > 1:
        sentence = f"every task of srun gets the same node rank {given.value}"
        yield say(target, plan, "slurm-plan-mismatch", sentence, node_rank=given.value)
    elif count > 1 and given is None and _is_first_without(target, plan):
        sentence = f"every task of srun is node rank {plan.node_rank or 0}: none is told another"
        yield say(target, plan, "slurm-plan-mismatch", sentence, node_rank=str(plan.node_rank or 0))
    for one in plan.assignments:
        text = target.launch.text[slice(*one.span)] if target.launch and one.span[0] >= 0 else ""
        if one.name in ("RANK", "LOCAL_RANK", "NODE_RANK") and PER_TASK.search(text):
            sentence = f"{text[:60]} is filled in once, before srun starts, so every task gets it"
            yield say(target, plan, "slurm-plan-mismatch", sentence, variable=one.name)


def _is_first_without(target: Target, plan: LaunchPlan) -> bool:
    """A launcher of several nodes that takes itself for the first where no rank is given."""
    seen = {**plan.environment(target.env), **dict.fromkeys(plan.unclear, "")}
    return (
        plan.launcher in ONE_A_NODE and is_static(plan) and (nodes(plan) or 1) > 1
        and "PET_NODE_RANK" not in seen
    )  # fmt: skip


def without_srun(target: Target) -> Iterator[Finding]:
    """A batch script runs on the first of its nodes, and so does what it starts without srun."""
    if target.launch is None or not target.launch.is_submitted or len(target.plans) != 1:
        return
    plan, given = target.plans[0], whole(target.plans[0].env.get("SLURM_NNODES"))
    elsewhere = plan.scheduler or plan.host or plan.repeated or plan.conditional
    by_itself = any("deepspeed" in one.name for one in plan.options)
    if elsewhere or by_itself or plan.launcher not in ONE_A_NODE or plan.standalone:
        return
    if given is not None and given > 1 and (nodes(plan) or 1) > 1:
        sentence = (
            f"the job has {given} nodes, and without srun {plan.launcher} is started on the first "
            "of them only"
        )
        yield say(target, plan, "slurm-plan-mismatch", sentence, nodes=given, without_srun=True)


def gpus(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        if not isinstance(plan.nproc, int) or target.backend == "gloo" or plan.option("cpu"):
            continue
        shown = plan.environment(target.env).get("CUDA_VISIBLE_DEVICES")
        visible = [d for d in (shown or "").split(",") if d.strip()]
        count = _counted(target)
        if shown is not None and visible and "$" not in shown and plan.nproc > len(visible):
            sentence = (
                f"{plan.nproc} ranks on this host, but CUDA_VISIBLE_DEVICES={shown[:40]} "
                f"shows them {counted(len(visible), 'GPU')}"
            )
            yield say(target, plan, "gpu-count", sentence, nproc=plan.nproc, visible=len(visible))
        elif count and plan.nproc > count and plan.host is None:
            sentence = f"{plan.nproc} ranks on this host, which has {counted(count, 'GPU')}"
            yield say(target, plan, "gpu-count", sentence, nproc=plan.nproc, visible=count)
    lacks = target.found("torch.no-nccl")
    if target.backend == "nccl" and lacks and target.plans:
        sentence = "backend nccl is asked for, and the torch that is installed has none"
        yield say(target, target.plans[0], "nccl-not-in-build", sentence, **dict(lacks[0].data))


def _counted(target: Target) -> int | None:
    for finding in target.found("gpu.*"):
        count = finding.data.get("count")
        if isinstance(count, int) and not isinstance(count, bool):
            return count
    return None


def tensorflow(target: Target) -> Iterator[Finding]:
    """TF_CONFIG, which TensorFlow's multi-worker strategy reads."""
    for plan in target.plans:
        text = plan.env.get("TF_CONFIG")
        if not text or "$" in text or len(text) > 1 << 16:
            continue
        try:
            config = json.loads(text)
            workers = [str(w) for w in config["cluster"]["worker"]]
            index = int(config["task"]["index"])
            kind = str(config["task"]["type"])
        except (ValueError, KeyError, TypeError, RecursionError):
            sentence = "TF_CONFIG is not the JSON that TensorFlow wants: cluster, task, index"
            yield say(target, plan, "master-addr-malformed", sentence, variable="TF_CONFIG")
            continue
        ports = [whole(w.rpartition(":")[2]) for w in workers]
        if any(p is None or not 0 < p < 65536 for p in ports):
            sentence = "an address in TF_CONFIG has no port from 1 to 65535"
            yield say(target, plan, "port-out-of-range", sentence, variable="TF_CONFIG")
        if len(set(workers)) < len(workers):
            sentence = "two workers of TF_CONFIG have the same address and port"
            yield say(target, plan, "node-rank-duplicated", sentence, variable="TF_CONFIG")
        if kind == "worker" and not 0 <= index < len(workers):
            sentence = f"task index {index} in TF_CONFIG, with {len(workers)} workers"
            yield say(target, plan, "node-rank-out-of-range", sentence, node_rank=index)
