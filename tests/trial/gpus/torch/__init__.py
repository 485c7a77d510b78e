"""The real torch with GPUs that this host has not: what NCCL does there is a recording, over gloo.

Put before the real one on PYTHONPATH; GPUS names the recording, a JSON file.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.remove(str(Path(__file__).resolve().parents[1]))
del sys.modules["torch"]

import torch  # noqa: E402 - the real one
import torch.distributed  # noqa: E402

dist: Any = torch.distributed
cuda: Any = torch.cuda
real: Any = SimpleNamespace(
    init=dist.init_process_group, reduce=dist.all_reduce, full=torch.full
)
me = {"rank": 0}


def recording() -> dict[str, Any]:
    """Read anew, for a warm torch is used for one recording after the other."""
    found: dict[str, Any] = json.loads(Path(os.environ["GPUS"]).read_text())
    return found


def recorded(call: str) -> object:
    """What happened to this rank at this call, unless the launch has the cure."""
    cures = recording().get("cured_by", {})
    if cures and all(os.environ.get(name) == value for name, value in cures.items()):
        return None
    ranks = recording().get(call, {})
    return ranks.get(str(me["rank"]), ranks.get("all"))


def come_to(call: str) -> None:
    what = recorded(call)
    if what == "hangs":
        time.sleep(600)
    elif what == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what not in (None, "wrong"):
        raise RuntimeError(what)


def init_cuda() -> None:
    raise RuntimeError(recording()["no_cuda"])


def init_process_group(backend: str, device_id: object = None, **more: Any) -> None:
    me["rank"] = int(more.get("rank", os.environ.get("RANK", "0")))
    assert (backend, os.environ["NCCL_DEBUG"]) == ("nccl", "INFO")
    for line in recording().get("log", {}).get(str(me["rank"]), "").splitlines():
        print(line, flush=True)
    if recording().get("leaves"):
        Path("/dev/shm", recording()["leaves"]).write_bytes(bytes(4096))
    come_to("group")
    real.init("gloo", **more)


def all_reduce(tensor: Any) -> None:
    come_to("all_reduce")
    real.reduce(tensor)
    if recorded("all_reduce") == "wrong":
        tensor[3] = 0.0


cuda.is_available = lambda: "no_cuda" not in recording()
cuda.init = init_cuda
cuda.device_count = lambda: recording().get("gpus", 0)
cuda.get_device_properties = lambda index: SimpleNamespace(name=cuda.get_device_name(index))
cuda.get_device_name = lambda index: recording().get("gpu", "NVIDIA H100 80GB HBM3")
cuda.mem_get_info = lambda index: (recording().get("free_mib", 80000) << 20, 81559 << 20)
cuda.set_device = lambda index: None
cuda.set_per_process_memory_fraction = lambda fraction, index: None
cuda.synchronize = lambda: None
cuda.nccl = SimpleNamespace(version=lambda: tuple(recording().get("nccl", (2, 28, 9))))
dist.is_nccl_available = lambda: True
dist.init_process_group, dist.all_reduce = init_process_group, all_reduce
torch.full = lambda size, value, device: real.full(size, value)
