"""Checks of the launch against what the training script asks for by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from ddp_assist.probes.launch.accelerate_config import config_path, configured
from ddp_assist.probes.launch.judging import PLAIN, rank, say
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target

LARGEST = 1 << 20
MEETING = ("MASTER_ADDR", "MASTER_PORT")
OF_RANKS = ("RANK", "WORLD_SIZE")
_STARTS_ALL = (
    "multi-gpu",
    "use-fsdp",
    "use-deepspeed",
    "use-megatron-lm",
    "use-parallelism-config",
    "tpu",
    "mpirun-hostfile",
    "config-file",
)
"""With one of these accelerate starts every process, or somebody else does."""
DASHED = (2, 0)
"""From this torch on `torch.distributed.launch` passes --local-rank, before it --local_rank."""


def missing(target: Target) -> Iterator[Finding]:
    """Ranks are numbered by hand, but nobody says where they meet."""
    for plan in target.plans:
        if plan.launcher not in PLAIN or plan.scheduler or rank(plan) is None:
            continue
        seen = set(plan.environment(target.env)) | plan.unclear | set(plan.unexported)
        names = [name for name in MEETING if name not in seen]
        text = source(plan) if names else ""
        asks = re.search(r"\binit_process_group\(\s*(['\"]\w+['\"])?\s*\)", text)
        if asks and not any(word in text for word in (*names, "import_module", "runpy")):
            sentence = f"RANK is set, but {' and '.join(names)} is not, and the script sets none"
            yield say(target, plan, "missing-env", sentence, missing=names)
    for plan in target.plans:
        text = source(plan) if _starts_one(plan, target) else ""
        asks = re.search(r"\binit_process_group\((?![^)]*\brank\s*=)", text)
        if asks and "Accelerator(" not in text:
            sentence = (
                "accelerate starts its processes only for GPUs, or told --multi_gpu: here it"
                " runs the script once, without RANK and WORLD_SIZE"
            )
            yield say(target, plan, "missing-env", sentence, missing=list(OF_RANKS), once=True)


def _starts_one(plan: LaunchPlan, target: Target) -> bool:
    """Whether accelerate, asked for several processes, runs the script once."""
    if plan.launcher != "accelerate" or any(plan.option(name) for name in _STARTS_ALL):
        return False
    if not isinstance(plan.nproc, int) or plan.nproc < 2:
        return False
    if plan.option("cpu"):
        return True
    config = config_path(None, plan.environment(target.env), plan.cwd)
    return not configured(config) and not os.path.exists("/proc/driver/nvidia")


def local_rank(target: Target) -> Iterator[Finding]:
    """`torch.distributed.launch` adds an argument that the script has to know."""
    for plan in target.plans:
        if plan.launcher != "torch.distributed.launch" or plan.option("use-env"):
            continue
        text = source(plan)
        if not re.search(r"\.parse_args\(\s*\)", text) or "add_argument" not in text:
            continue
        passed = "--local-rank" if _version(target) >= DASHED else "--local_rank"
        known = set(re.findall(r"[\"'](--local[-_]rank)[\"']", text))
        if passed not in known:
            has = f"it knows {known.pop()}" if known else "the script knows no such argument"
            sentence = f"torch.distributed.launch passes {passed}=N to the script, and {has}"
            yield say(target, plan, "local-rank-argument", sentence, argument=passed)


def source(plan: LaunchPlan) -> str:
    """The training script as text, empty where it can't be read."""
    path = plan.script_path
    try:
        if path is None or not path.is_file() or path.stat().st_size > LARGEST:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return ""


def _version(target: Target) -> tuple[int, int]:
    """The torch that is installed; a present one where nobody could tell."""
    for finding in target.found("torch.*"):
        match = re.match(r"(\d+)\.(\d+)", str(finding.data.get("version", "")))
        if match:
            return int(match[1]), int(match[2])
    return DASHED
