"""Where this runs: on the bare host, in a container or pod, in a Slurm job, and what that gives."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ddp_assist.probes.host.processes import read
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.launch.judging import is_static
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network.scope import environment, is_submitted, number, runs_elsewhere

CGROUPS = re.compile(rb"(docker|kubepods|containerd|crio|libpod|lxc|machine\.slice|garden)")
OWN_STEPS = 0xFFFFFFF0
TORCHRUN = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})


def container() -> str | None:
    """Which marks of a container there are, or None."""
    if os.path.exists("/.dockerenv"):
        return "/.dockerenv"
    if os.path.exists("/run/.containerenv"):
        return "/run/.containerenv"
    for name in ("SINGULARITY_CONTAINER", "APPTAINER_CONTAINER", "ENROOT_ROOTFS", "CHARLIECLOUD"):
        if os.environ.get(name):
            return name
    if found := re.search(rb"(?:^|\0)container=([^\0]+)", read("/proc/1/environ") or b""):
        return f"container={brief(found[1], 40)}"
    if found := CGROUPS.search(read("/proc/self/cgroup") or b""):
        return f"control group {found[1].decode()}"
    return None


def _look(target: Target) -> Iterator[Finding]:
    env = target.env
    seen = False
    if mark := container():
        seen = True
        data = {"mark": mark, "own_pids": not _host_pids()}
        yield Finding("place", "container", f"this is a container ({mark})", data)
    if env.get("KUBERNETES_SERVICE_HOST"):
        seen = True
        name = read("/var/run/secrets/kubernetes.io/serviceaccount/namespace", 256) or b""
        data = {"namespace": brief(name.strip()), "pod": brief(env.get("HOSTNAME", ""))}
        yield Finding("place", "kubernetes", f"this is the pod {data['pod']}", data)
    if env.get("SLURM_JOB_ID"):
        seen = True
        data = _slurm_facts(env)
        step = f", step {data['step']}" if data["in_step"] else ", but in no step of srun"
        yield Finding("place", "slurm", f"this is Slurm job {data['job']}{step}", data)
    if elsewhere := runs_elsewhere(target):
        named = ", ".join(map(brief, elsewhere[:8]))
        yield unknown(
            "place",
            f"the ranks are started on {named}, and this host is none of them: what it has tells"
            " nothing about theirs, so run the same command there, on each in turn",
            hosts=list(elsewhere[:64]),
        )  # fmt: skip
    elif is_submitted(target):
        sentence = (
            "Slurm chooses the hosts of this job, and what this one has tells nothing about them:"
            " within an allocation (salloc) the same command looks at its nodes with --fleet"
        )
        yield unknown("place", sentence)
    if not seen:
        yield Finding("place", "bare", "this is no container, no pod and no Slurm job")


def _host_pids() -> bool:
    """Whether we see the host's own process numbers: kernel threads live only there."""
    return (read("/proc/2/comm", 32) or b"").strip() == b"kthreadd"


def _slurm_facts(env: Mapping[str, str]) -> dict[str, Any]:
    step = number(env.get("SLURM_STEP_ID"))
    per_node = re.match(
        r"\d+", env.get("SLURM_NTASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    )
    return {
        "job": brief(env.get("SLURM_JOB_ID", "")),
        "step": step,
        "in_step": step is not None and step < OWN_STEPS,
        "nodes": number(env.get("SLURM_STEP_NUM_NODES") or env.get("SLURM_NNODES")),
        "ntasks": number(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS")),
        "per_node": int(per_node[0]) if per_node and len(per_node[0]) < 10 else None,
        "gpus_on_node": number(env.get("SLURM_GPUS_ON_NODE")),
        "nodelist": brief(env.get("SLURM_JOB_NODELIST", "")),
    }


def _look_slurm(target: Target) -> Iterator[Finding]:
    """Does Slurm start as many tasks as this launcher expects?"""
    env = environment(target)
    facts = _slurm_facts(env)
    plan = target.plan
    see = (Evidence("environment", see=("scontrol", "show", "job", facts["job"])),)
    nodes, tasks, per_node = facts["nodes"], facts["ntasks"], facts["per_node"]
    data = facts | {"nnodes": plan.nnodes[1] if plan and plan.nnodes else None}
    if plan is None or nodes is None:
        yield Finding(
            "slurm", "no-plan", f"Slurm job {facts['job']} has no launch to compare", data
        )
        return
    said = None
    if plan.launcher in TORCHRUN:
        wanted = plan.nnodes[1] if plan.nnodes else 1
        if facts["in_step"] and per_node is not None and per_node > 1:
            said = f"srun starts {per_node} torchruns on each node, and one is wanted"
        elif facts["in_step"] and tasks is not None and tasks > nodes:
            said = f"srun starts {tasks} torchruns on {nodes} nodes; one for each node is wanted"
        elif wanted > nodes:
            said = f"the launch wants {wanted} nodes, but the job has {nodes}"
        elif facts["in_step"] and nodes > 1 and wanted not in (1, nodes):
            said = f"the launch says {wanted} nodes, but the step has {nodes}"
        elif facts["in_step"] and nodes > 1 and wanted == 1 and not plan.standalone:
            said = f"each of {nodes} nodes would train alone: the launch says one node"
        elif facts["in_step"] and nodes > 1 and is_static(plan) and not _varies(target):
            said = f"every node is told --node-rank={plan.node_rank}"
            data["node_rank"] = plan.node_rank
    elif plan.launcher == "python" and facts["in_step"]:
        world = number(env.get("WORLD_SIZE"))
        if world is not None and tasks is not None and world != tasks:
            said = f"WORLD_SIZE is {world}, but srun starts {tasks} tasks"
    if said:
        yield Finding("slurm", "mismatch", said, data, see)
    else:
        yield Finding("slurm", "fits", "the launch fits the Slurm job", data, see)


def _varies(target: Target) -> bool:
    """Whether the node rank comes from a variable that differs from node to node."""
    option = target.plan.option("node-rank") if target.plan else None
    if option is None or option.value is None or target.launch is None:
        return option is None or option.value is None
    span = option.value_span or option.span
    return span[0] < 0 or "$" in target.launch.text[slice(*span)]


PLACE = Probe(
    "place",
    "Is this a container, a pod, a Slurm job?",
    {"bare": "info", "container": "info", "kubernetes": "info", "slurm": "info"},
    _look,
)
SLURM = Probe(
    "slurm",
    "Does Slurm start what the launch expects?",
    {"fits": "ok", "mismatch": "bad", "no-plan": "info"},
    _look_slurm,
    applies=lambda target: bool(target.env.get("SLURM_JOB_ID")),
)
PROBES: tuple[Probe, ...] = (PLACE, SLURM)
