"""The hosts that a launcher starts its nodes on by itself, from one command."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddp_assist.probes.launch.accelerate_config import config_text
from ddp_assist.probes.launch.plan import LaunchPlan

EVERYWHERE = frozenset({
    "pdsh", "clush", "dsh", "pssh", "parallel-ssh", "ansible", "horovodrun", "ray", "jsrun",
    "aprun", "flux", "ibrun", "lrun",
})  # fmt: skip
"""Tools that start what stands behind them on several nodes, with the same words on each."""
DEFAULT = "/job/hostfile"
"""DeepSpeed reads it where no other is named."""
HOSTFILES = ("hostfile", "deepspeed-hostfile", "mpirun-hostfile")
Say = Callable[[str], "str | None"]
"""What a launch says of an option, by its name."""


def is_everywhere(plan: LaunchPlan) -> bool:
    """Whether a tool in front of the launcher starts it on several nodes."""
    return any(os.path.basename(word) in EVERYWHERE for word in plan.prefix)


def hosts_option(plan: LaunchPlan) -> str | None:
    """The hostfile among the words of a launch."""
    options = map(plan.option, HOSTFILES)
    return next((one.value for one in options if one is not None and one.value), None)


def host_on(line: str) -> str | None:
    """The host, or the set of them, that a line of a hostfile is about."""
    words = line.partition("#")[0].split()
    return re.sub(r":\d+\Z", "", words[0]) if words else None


def listed(text: str) -> list[str]:
    """One host a line; what follows on the line is the launcher's."""
    return list(dict.fromkeys(host for line in text.splitlines() if (host := host_on(line))))


def text_of(hostfile: Path) -> str:
    return config_text(hostfile, 1 << 20)


def started(launcher: str, say: Say, cwd: Path) -> dict[str, Any]:
    """What a plan holds of this, for DeepSpeed, Colossal-AI, and accelerate with DeepSpeed."""
    if launcher == "accelerate":
        by_hand = say("deepspeed-multinode-launcher") in ("standard", "nossh")
        file, begins = say("deepspeed-hostfile"), "deepspeed-%susion-filter"
        kept, left_out = say(begins % "incl"), say(begins % "excl")
    else:
        by_hand = launcher == "deepspeed" and say("no-ssh") is not None
        file, kept, left_out = say("hostfile"), say("include"), say("exclude")
        if file is None and launcher == "deepspeed" and os.path.isfile(DEFAULT):
            file = DEFAULT
    every = listed(text_of(cwd / file)) if file else (say("host") or "").split(",")
    mark = "," if launcher == "colossalai" else "@"
    names = _filtered([name for name in every if name], kept, left_out, mark)
    first = say("num-nodes")
    if launcher != "accelerate" and first is not None and first.isdigit() and int(first):
        names = names[: int(first)]
    return {"hostfile": file, "hosts": tuple(names), "starts_all": not by_hand}


def _filtered(
    names: Sequence[str], kept: str | None, left_out: str | None, mark: str
) -> Sequence[str]:
    """`a@b:0,2` keeps two hosts; to leave out some slots of a host leaves it in."""
    if kept:
        wanted = [word.partition(":")[0] for word in kept.split(mark)]
        return [name for name in names if name in wanted]
    unwanted = [word for word in (left_out or "").split(mark) if ":" not in word]
    return [name for name in names if name not in unwanted]
