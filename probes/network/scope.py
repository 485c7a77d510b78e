"""Does the job that is examined span several hosts? Much is wrong only then."""

from __future__ import annotations

import socket

from ddp_assist.probes.model import Target
from ddp_assist.probes.network.endpoints import is_here
from ddp_assist.probes.network.links import is_ours, plain

TORCHRUN = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})


def environment(target: Target) -> dict[str, str]:
    """What the launch will see: the user's variables, and what the line itself sets."""
    return dict(target.plan.environment(target.env) if target.plan else target.env)


def number(text: str | None) -> int | None:
    """A whole number that a variable holds, or None."""
    try:
        return int(text) if text and len(text) < 20 else None
    except ValueError:
        return None


def runs_elsewhere(target: Target) -> tuple[str, ...]:
    """The hosts that the launch starts its ranks on, where this host is none of them."""
    hosts = {plan.host for plan in target.plans}
    mine = socket.gethostname().partition(".")[0]
    if not hosts or None in hosts or target.job is not None:
        return ()
    named = sorted(host for host in hosts if host)
    return () if any(is_here(h) or h.partition(".")[0] == mine for h in named) else tuple(named)


def is_submitted(target: Target) -> bool:
    """Whether the launch is handed to Slurm, which chooses the hosts for it."""
    if target.launch is None or target.job is not None:
        return False
    by_srun = bool(target.plans) and all(plan.scheduler == "srun" for plan in target.plans)
    return target.launch.is_submitted or (
        by_srun and "SLURM_JOB_ID" not in target.env
    )


def spans_hosts(target: Target) -> bool | None:
    """True or False where the launch says so, None where it can't be known."""
    plan, env = target.plan, environment(target)
    if target.found("env.left-over-pet"):
        return None  # what the left-over variables say is not what the user means
    if any(p.nnodes and p.nnodes[1] > 1 for p in target.plans):
        return True
    if len({p.host for p in target.plans}) > 1:
        return True
    if plan and (plan.standalone or plan.launcher in TORCHRUN):
        nodes = number(env.get("PET_NNODES", "").rpartition(":")[2])
        return nodes is not None and nodes > 1 and plan.nnodes is None
    world, local = number(env.get("WORLD_SIZE")), number(env.get("LOCAL_WORLD_SIZE"))
    if world is not None and local is not None:
        return world > local
    if world == 1:
        return False
    if target.found("name.not-ours"):
        return True
    addresses = [plain(endpoint.host) for endpoint in target.endpoints]
    if any(a and not a.is_loopback and not is_ours(a) for a in addresses):
        return True
    if world and any(a and not a.is_loopback for a in addresses):
        # Nobody writes down a LAN address for ranks that all start here.
        return True
    nodes = number(env.get("SLURM_STEP_NUM_NODES") or env.get("SLURM_NNODES"))
    if nodes is not None and target.plan:
        return nodes > 1
    return False if target.endpoints else None
