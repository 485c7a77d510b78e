"""What one node was told of its part of the job: by the launch, by its variables, by what runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddp_assist.probes.launch.judging import ONE_A_NODE, option
from ddp_assist.probes.launch.launchers import whole
from ddp_assist.probes.launch.plan import LaunchError, LaunchPlan
from ddp_assist.probes.launch.read import from_process, read_launch
from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.network.endpoints import endpoints

STEERING = ("GLOO_", "NCCL_", "TORCH_NCCL_", "TORCH_GLOO_", "TORCH_DISTRIBUTED_", "USE_LIBUV")
Asked = Mapping[str, Any]
PYTHONPATH = os.environ.get("PYTHONPATH")
"""As the node has it: we add to ours."""


def environment(asked: Asked) -> dict[str, str]:
    """This node's variables. A step of our own counts its nodes for itself, so what a step of the
    whole allocation would see is told to us."""
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    own = {"PYTHONPATH": PYTHONPATH} if PYTHONPATH is not None else {}
    return env | own | dict(asked.get("env") or {})


def target(asked: Asked, env: dict[str, str]) -> tuple[Target, str]:
    """The launch read with this node's own variables and its own copy of a launch script."""
    cwd = Path(asked["cwd"]) if os.path.isdir(asked["cwd"]) else Path.home()
    # The same path as over there, or what this node's own search finds.
    named = next((p for p in asked.get("pythons", ()) if os.access(p, os.X_OK)), None)
    found, trouble = Target(python=named, env=env, cwd=cwd), ""
    if asked["launch"]:
        try:
            launch = read_launch(asked["launch"], env, cwd)
            mine = next((p for p in launch.plans if is_mine(p.host, asked)), launch.main)
            found = replace(found, launch=launch, plan=mine)
        except LaunchError as why:
            trouble = str(why)
    where = endpoints(found)
    if not where and env.get("MASTER_ADDR"):
        where = (Endpoint(env["MASTER_ADDR"], whole(env.get("MASTER_PORT")), "env"),)
    return replace(found, endpoints=where), trouble


def is_mine(host: str | None, asked: Asked) -> bool:
    """Whether a command that a launch starts on `host` is started on this node."""
    own = os.uname().nodename
    return host is not None and alike(host, asked.get("name", own), own)


def alike(host: str, *names: str) -> bool:
    """Whether one of the names is this host's: short and full names stand for each other."""
    short = host.partition(".")[0]
    return any(
        host == name or (short == name.partition(".")[0] and not host.replace(".", "").isdigit())
        for name in names
    )


def plans(target: Target, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """The commands of the launch, then those that live here."""
    template = _is_template(target)
    written = [_told(p, env, template) for p in target.plans if not p.conditional]
    return written + [_told(p, env) for p in _live()]


def _is_template(target: Target) -> bool:
    """One line for all nodes whose rank is a plain number: it was written for one of them."""
    launch = target.launch
    return launch is not None and launch.path is None and "$" not in launch.text


def _live() -> Iterator[LaunchPlan]:
    """Launchers of ours that run on this node now."""
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit() or os.stat(f"/proc/{name}").st_uid != os.getuid():
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = os.fsdecode(file.read(1 << 16)).split("\0")[:-1]
            if not any(w.endswith(("/torchrun", "torch.distributed.run")) for w in words[:6]):
                continue
            plan = from_process(words, {}, Path("/"))
        except (OSError, LaunchError):
            continue
        if plan.nnodes is not None:
            yield plan


NODE_RANKS = ("PET_NODE_RANK", "NODE_RANK", "GROUP_RANK")


def _is_written(plan: LaunchPlan) -> bool:
    """Whether the rank stands in the words; a node's own file or shell means this node."""
    names = ("RANK", *NODE_RANKS)
    return option(plan, "node-rank") is not None or any(map(plan.assignment, names))


def _told(plan: LaunchPlan, env: Mapping[str, str], template: bool = False) -> dict[str, Any]:
    seen = plan.environment(env)
    rank, count = plan.node_rank, list(plan.nnodes) if plan.nnodes else None
    plain = plan.launcher in ("python", "srun", "mpirun")
    if plain and not plan.scheduler and (world := whole(seen.get("WORLD_SIZE"))):
        rank, count = whole(seen.get("RANK")), [world, world]
    for name in () if rank is not None or plain else NODE_RANKS:
        if seen.get(name, "").isdigit():
            rank = int(seen[name])
            break
    address = plan.master_addr or (seen.get("MASTER_ADDR") if plain else None)
    port = plan.master_port or (seen.get("MASTER_PORT") if plain else None)
    return {
        "host": plan.host,
        "ranks": plain,
        # What starts all nodes tells each its part when it does.
        "nnodes": None if plan.starts_all else count,
        "node_rank": rank,
        "rank_of_another": template and rank is not None and _is_written(plan),
        "rank_by_task": rank is None and bool(plan.scheduler and option(plan, "node-rank")),
        "backend": plan.rdzv_backend if plan.launcher in ONE_A_NODE else None,
        "rdzv_id": plan.rdzv_id,
        "endpoint": plan.rdzv_endpoint or f"{address or ''}:{port or ''}",
    }
