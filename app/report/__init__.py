"""A diagnosis as Markdown, HTML, JSON or text; redacted, and looked at again before it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any, Literal

from ddp_assist.app.files import WriteFailed, write_private
from ddp_assist.app.report.html import html
from ddp_assist.app.report.markdown import markdown
from ddp_assist.app.report.plain import plain
from ddp_assist.app.report.redact import Redactor, standard_redactor

Format = Literal["md", "html", "json", "txt"]

__all__ = ["Format", "Redactor", "ReportBlocked", "render", "standard_redactor", "write_report"]


class ReportBlocked(WriteFailed):
    """The finished report still held something that looks like a secret; nothing was written."""


def render(diagnosis: Mapping[str, Any], form: Format, redactor: Redactor) -> str:
    """The same diagnosis and the same redactor give the same bytes."""
    shown = redactor.json(_shown(diagnosis))
    if form == "json":
        return json.dumps(shown, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    footer = _footer(redactor)
    if form == "html":
        return html(shown, footer)
    return markdown(shown, footer) if form == "md" else plain(shown, footer)


def write_report(
    diagnosis: Mapping[str, Any], form: Format, path: Path, redactor: Redactor | None = None
) -> None:
    redactor = redactor or standard_redactor()
    text = render(diagnosis, form, redactor)
    left = redactor.scan(unescape(text) if form == "html" else text)
    if left:
        raise ReportBlocked(f"{path} was not written: it still holds a secret ({left[0]})")
    write_private(path, text)


def _footer(redactor: Redactor) -> str:
    hidden = ", ".join(f"{kind} {n}" for kind, n in sorted(redactor.counts.items())) or "nothing"
    return f"Hidden: {hidden}. This is no guarantee: read before posting."


_ALLOWED = frozenset(
    [
        "MASTER_ADDR",
        "MASTER_PORT",
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "ROLE_RANK",
        "NODE_RANK",
        "OMP_NUM_THREADS",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "NVIDIA_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "PYTORCH_ALLOC_CONF",
        "PYTORCH_CUDA_ALLOC_CONF",
        "PYTORCH_HIP_ALLOC_CONF",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "SLURM_JOB_ID",
        "SLURM_NNODES",
        "SLURM_NTASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_NODEID",
        "SLURM_JOB_NODELIST",
        "SLURM_STEP_ID",
    ]
)
_FAMILIES = (
    "NCCL_", "GLOO_", "TORCH_NCCL_", "TORCH_DISTRIBUTED_", "TORCH_FR_", "TORCHELASTIC_", "TP_", "UCX_",
    "FI_", "OMPI_COMM_WORLD_", "PMI_", "SLURM_GPUS",
)  # fmt: skip


def _shown(diagnosis: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of an environment only what speaks of the launch; the others are a number."""
    environment = diagnosis.get("environment")
    if not isinstance(environment, Mapping):
        return diagnosis
    shown = {k: v for k, v in environment.items() if k in _ALLOWED or k.startswith(_FAMILIES)}
    hidden = len(environment) - len(shown)
    if hidden:
        shown["more variables, not shown"] = str(hidden)
    return {**diagnosis, "environment": shown}
