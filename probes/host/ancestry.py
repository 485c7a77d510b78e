"""Who started this: the launchers above a process, and where a variable came in."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ddp_assist.probes.host.processes import Process, Processes

LAUNCHERS = {
    "torchrun": "torchrun", "torch.distributed.run": "torchrun", "pt_elastic": "torchrun",
    "torch.distributed.launch": "torchrun", "torch.distributed.elastic": "torchrun",
    "srun": "srun", "slurmstepd": "srun",
    "mpirun": "mpirun", "mpiexec": "mpirun", "orterun": "mpirun", "prterun": "mpirun",
    "prte": "mpirun", "prted": "mpirun", "orted": "mpirun", "hydra_pmi_proxy": "mpirun",
    "mpiexec.hydra": "mpirun", "hydra_bstrap_proxy": "mpirun",
    "accelerate": "accelerate", "accelerate-launch": "accelerate",
    "accelerate.commands.launch": "accelerate",
    "deepspeed": "deepspeed", "deepspeed.launcher.launch": "deepspeed",
    "deepspeed.launcher.runner": "deepspeed",
    "horovodrun": "horovodrun", "ray": "ray", "raylet": "ray",
}  # fmt: skip


def launcher(process: Process) -> str | None:
    """The launcher that this process is, by its name, its program or its `python -m MODULE`."""
    if process.comm in LAUNCHERS and process.comm != "ray":
        return LAUNCHERS[process.comm]
    argv = process.argv or ()
    words = [os.path.basename(word) for word in argv[:2]]
    if "-m" in argv[1:6]:
        words += argv[argv.index("-m") + 1 :][:1]
    elif len(argv) > 2 and argv[1].startswith("-"):
        words += [os.path.basename(word) for word in argv[2:4]]
    return next((LAUNCHERS[word] for word in words if word in LAUNCHERS), None)


def launcher_above(processes: Processes, pid: int) -> tuple[str, Process] | None:
    """The nearest launcher among the ancestors of `pid`."""
    for ancestor in processes.ancestors(pid):
        if name := launcher(ancestor):
            return name, ancestor
    return None


@dataclass(frozen=True, slots=True)
class Origin:
    """The oldest ancestor that already had the variable with this value."""

    pid: int
    program: str


def origin(processes: Processes, pid: int, name: str, value: str) -> Origin | None:
    """Where a variable of process `pid` came in; None where the ancestors can't be read.

    A shell's environ shows what it was started with, so a variable that only its child has was
    set in the shell.
    """
    for process in processes.ancestors(pid):
        env = process.environ
        if env is None:
            return None
        if env.get(name) != value:
            return Origin(process.pid, process.comm)
    return None
