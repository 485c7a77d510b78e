"""What a rank does with its GPU: takes it where enough is free, and keeps NCCL harmless.

Loaded by rank.py, by path. Standard library and torch 1.13 or newer, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any, Dict, Optional, Tuple  # noqa: UP035 - Python 3.8

Plan = Dict[str, Any]  # noqa: UP006 - Python 3.8
Memory = Tuple[int, int]  # noqa: UP006 - Python 3.8
MIB = 1 << 20
TENSORS = 64 * MIB
"""What torch may allocate; the rest of a trial's memory is a CUDA context and NCCL's buffers."""
CHANNELS = ("NCCL_MAX_NCHANNELS", "NCCL_MIN_NCHANNELS", "NCCL_MAX_CTAS", "NCCL_MIN_CTAS")
# They would lead NCCL's words past our log, or write files of the launch's a second time.
ELSEWHERE = (
    "NCCL_DEBUG_FILE", "NCCL_DEBUG_SUBSYS", "NCCL_TOPO_DUMP_FILE", "NCCL_GRAPH_DUMP_FILE",
)  # fmt: skip


def quieten(plan: Plan) -> None:
    """NCCL says what it chose, in our log only; it opens no port and leaves no file for others."""
    env = os.environ
    for name in ELSEWHERE:
        env.pop(name, None)
    env["NCCL_DEBUG"] = "INFO"
    env["NCCL_RAS_ENABLE"] = "0"  # it listens on port 28028, or joins another job's who does
    env["TORCH_NCCL_DUMP_ON_TIMEOUT"] = "0"
    env["CUDA_CACHE_PATH"] = os.path.join(plan["shelter"], "cuda")
    if not any(name in env for name in CHANNELS):
        env["NCCL_MAX_NCHANNELS"] = "4"  # each costs memory of the GPU, and a trial moves 32 bytes


def take(torch: Any, refused: Any, plan: Plan, rank: int, index: int) -> dict[str, Any]:
    """One rank, one GPU, and only when enough of its memory is free."""
    if not torch.cuda.is_available():
        raise refused("no-gpu", f"torch {torch.__version__} sees no GPU: {why_none(torch)}")
    count = torch.cuda.device_count()
    if index >= count:
        raise refused("few-gpus", f"rank {rank} needs GPU {index} for itself, and {count} can be "
                      "seen")
    free, total = memory(torch, index)
    if free // MIB < plan["gpu_mib"]:
        raise refused("gpu-full", f"GPU {index} has {free // MIB} of {total // MIB} MiB free and a "
                      f"trial takes up to {plan['gpu_mib']} MiB")
    torch.cuda.set_device(index)
    torch.cuda.set_per_process_memory_fraction(min(1.0, TENSORS / total), index)
    version = getattr(torch.cuda, "nccl", None)
    number = version.version() if version is not None else ()
    nccl = ".".join(map(str, number)) if isinstance(number, tuple) else str(number)
    return {"gpu": torch.cuda.get_device_name(index), "index": index, "free_mib": free // MIB,
            "nccl": nccl}


def why_none(torch: Any) -> str:
    """torch's own reason, and what this machine shows of GPUs."""
    said = "no reason is given"
    try:
        torch.cuda.init()
    except Exception as problem:  # noqa: BLE001 - whatever it is, its words are the reason
        said = (str(problem).splitlines() or [type(problem).__name__])[0]
    nodes = sorted(n for n in os.listdir("/dev") if n.startswith("nvidia") and n[6:].isdigit())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (f"{said}; CUDA of the build: {torch.version.cuda}; "
            f"/dev/nvidia0 and on: {len(nodes) or 'none'}"
            + ("" if visible is None else f"; CUDA_VISIBLE_DEVICES={visible!r}"))


def group_options(torch: Any, version: Any, index: int) -> dict[str, Any]:
    """From 2.8 on NCCL is set up with the group, so that its failure is told from the first
    all_reduce's; before that a device would also change how calls wait."""
    return {"device_id": torch.device("cuda", index)} if version >= (2, 8) else {}


def memory(torch: Any, index: int) -> Memory:
    """Free and total bytes of a GPU: by NVML, since asking CUDA takes 500 MB for a context."""
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    found = of_nvml(f"GPU-{uuid}") if uuid is not None else None
    if found is not None:
        return found
    free, total = torch.cuda.mem_get_info(index)
    return int(free), int(total)


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong),
                ("used", ctypes.c_ulonglong)]  # fmt: skip


def of_nvml(uuid: str) -> Optional[Memory]:  # noqa: UP045 - Python 3.8
    """None where there is no NVML, or it does not know this GPU (a slice of one, for instance)."""
    handle, answer = ctypes.c_void_p(), _Memory()
    with contextlib.suppress(OSError, AttributeError):
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if (nvml.nvmlInit_v2() == 0
                and nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) == 0
                and nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(answer)) == 0):
            return answer.free, answer.total
    return None
