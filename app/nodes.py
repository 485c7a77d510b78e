"""Which nodes a job has: given, from a hostfile, from the scheduler, or from the launch itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ddp_assist.app.files import ReadFailed, read_limited
from ddp_assist.probes.launch.hosts import host_on
from ddp_assist.probes.model import Target

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*\Z")
FILES = ("PBS_NODEFILE", "LSB_DJOB_HOSTFILE", "PE_HOSTFILE", "OAR_NODEFILE", "COBALT_NODEFILE")
"""Variables by which other schedulers name a file with one host a line."""
HERE = frozenset({"localhost", "127.0.0.1", "::1"})
COUNTS = (
    "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_STEP_NUM_NODES", "SLURM_NTASKS", "SLURM_NPROCS",
    "SLURM_STEP_NUM_TASKS",
)  # fmt: skip
NONE = (
    "no nodes are named: give -w NODES, --hostfile F, --slurm within an allocation, or a launch "
    "that names them"
)


class NodesUnclear(ValueError):
    """Nodes that can't be known from what was given; one sentence for the user."""

    def __init__(self, why: str, unreadable: bool = False) -> None:
        super().__init__(why)
        self.unreadable = unreadable


def nodes_of(
    given: str | None, hostfile: Path | None, slurm: str | None, target: Target
) -> list[str]:
    """The nodes in the order given; a name that is no host name never reaches a command line."""
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        if given is not None:
            names = list(NodeSet(given))
        elif hostfile is not None:
            names = _listed(hostfile)
        elif slurm is not None:
            names = list(NodeSet(_allocated(slurm)))
        else:
            names = planned(target) or _scheduled(os.environ)
    except NodeSetException as why:
        raise NodesUnclear(f"that is no node set: {why}") from why
    except ReadFailed as why:
        raise NodesUnclear(str(why), unreadable=True) from why
    names = list(dict.fromkeys(names))
    if not names:
        raise NodesUnclear(NONE)
    for name in names:
        if not NAME.match(name):
            raise NodesUnclear(f"{name!r} is no host name")
    return names


def planned(target: Target) -> list[str]:
    """The hosts that the launch itself starts something on, or names in a list."""
    hosts: dict[str, None] = {}
    for plan in target.plans:
        if plan.host:
            hosts[plan.host] = None
        hosts.update(dict.fromkeys(plan.hosts))
        for name in ("mpirun-hostfile", "mpirun-machinefile", "mpirun-host", "mpirun-H",
                     "srun-nodelist", "srun-w"):  # fmt: skip
            option = plan.option(name)
            if option is not None and option.value:
                hosts.update(dict.fromkeys(_named(name, option.value, plan.cwd)))
    return [host for host in hosts if host not in HERE]


def _named(option: str, value: str, cwd: Path) -> Iterable[str]:
    from ClusterShell.NodeSet import NodeSet

    if option.endswith("file"):
        path = cwd / value
        return _listed(path) if path.is_file() else ()
    if "nodelist" in option or option == "srun-w":
        return list(NodeSet(value))
    return [part.partition(":")[0] for part in value.split(",") if part]


def _listed(path: Path) -> list[str]:
    """One host a line, as mpirun, deepspeed and schedulers write it; what follows is theirs."""
    from ClusterShell.NodeSet import NodeSet

    text = read_limited(path).decode("utf-8", "replace")
    return [n for line in text.splitlines() if (host := host_on(line)) for n in NodeSet(host)]


def _scheduled(env: Mapping[str, str]) -> list[str]:
    from ClusterShell.NodeSet import NodeSet

    nodelist = env.get("SLURM_JOB_NODELIST") or env.get("SLURM_NODELIST")
    if nodelist:
        return list(NodeSet(nodelist))
    files = [env[name] for name in FILES if env.get(name)]
    return _listed(Path(files[0])) if files else []


def _allocated(job: str) -> str:
    """The nodes of the allocation that we are in, or of a running job of the user's."""
    if not job:
        nodelist = os.environ.get("SLURM_JOB_NODELIST") or os.environ.get("SLURM_NODELIST")
        if not nodelist:
            raise NodesUnclear("there is no allocation: SLURM_JOB_NODELIST is not set")
        return nodelist
    if not job.isdigit():
        raise NodesUnclear(f"{job!r} is no job's number")
    if shutil.which("squeue") is None:
        raise NodesUnclear("there is no squeue here that knows the job's nodes", unreadable=True)
    asked = ["squeue", "--noheader", "--jobs", job, "--states", "RUNNING", "--format", "%N"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    nodelist = done.stdout.strip()
    if not nodelist:
        raise NodesUnclear(f"job {job} does not run: {done.stderr.strip() or 'it has no nodes'}")
    return nodelist


def by_srun(names: Sequence[str]) -> str | None:
    """Empty where the nodes are of the allocation that we are in: its own steps need no ssh."""
    nodelist = os.environ.get("SLURM_JOB_NODELIST") or os.environ.get("SLURM_NODELIST")
    if not nodelist or shutil.which("srun") is None:
        return None
    from ClusterShell.NodeSet import NodeSet

    return "" if set(names) <= set(NodeSet(nodelist)) else None


def scheduler_env(names: list[str], slurm: str | None) -> dict[str, dict[str, str]]:
    """What a task of the whole allocation would see on each node; our own steps have one node."""
    if slurm is None:
        return {}
    count = str(len(names))
    return {
        name: {
            "SLURM_NODEID": str(place),
            "SLURM_PROCID": str(place),
            **dict.fromkeys(COUNTS, count),
        }
        for place, name in enumerate(names)
    }
