"""accelerate's configuration for each node: the user's own file, with what its launch corrects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ddp_assist.probes.launch.accelerate_config import (
    config_path,
    config_text,
    configured,
    with_settings,
)
from ddp_assist.probes.launch.launchers import whole
from ddp_assist.probes.launch.plan import Launch, LaunchPlan


def configs(launches: Mapping[str, Launch], hostfile: Path | None = None) -> dict[str, str]:
    """By file name. `launches` are in the order of the node ranks; none where no file is read.
    One for all where DeepSpeed logs in to the nodes, with the hostfile that it is to read then."""
    found: dict[str, str] = {}
    for rank, (name, launch) in enumerate(launches.items()):
        plan = launch.main
        if plan is None or plan.launcher != "accelerate":
            continue
        path = _path(launch, plan)
        text = config_text(path)
        if text:
            now = configured(path)
            told = dict(_told(plan, rank))
            if hostfile is not None and "deepspeed_hostfile" in now:
                told["deepspeed_hostfile"] = str(hostfile)
            wanted = {key: value for key, value in told.items() if now.get(key) != value}
            whose = "" if plan.starts_all else f"-{name}"
            found[f"accelerate{whose}{path.suffix}"] = with_settings(path, text, wanted)
    return found


def _path(launch: Launch, plan: LaunchPlan) -> Path:
    return config_path(plan.option("config-file"), plan.environment(launch.env), plan.cwd)


def is_same_network(launch: Launch, plan: LaunchPlan) -> bool:
    """Whether accelerate names the first machine by address and port, which c10d does not read."""
    told = configured(_path(launch, plan)).get("same_network", "")
    return plan.option("same-network") is not None or told.lower() == "true"


def _told(plan: LaunchPlan, rank: int) -> Iterator[tuple[str, str]]:
    """What the words and the file of this launch come to; what can't be known stays as it is."""
    if plan.nnodes and plan.nnodes[1] > 1:
        yield "num_machines", str(plan.nnodes[1])
        if not plan.starts_all:
            yield "machine_rank", str(rank)
    processes = plan.option("num-processes")
    if processes is not None and whole(processes.value) is not None:
        yield "num_processes", str(whole(processes.value))
    if plan.master_addr:
        yield "main_process_ip", plan.master_addr
    if plan.master_port:
        yield "main_process_port", plan.master_port
