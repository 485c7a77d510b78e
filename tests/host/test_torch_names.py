"""A script's words for parts of torch, against the torch that is really here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddp_assist.probes.host.torch_build import TORCH
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

pytest.importorskip("torch", reason="needs torch")
RIGHT = """
import torch, torch.distributed as dist, torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data.distributed import DistributedSampler
import torch.distributed.checkpoint as dcp
from torch.distributed import fsdp
try:
    from torch.distributed import brand_new_thing
except ImportError:
    brand_new_thing = None
if hasattr(dist, "not_yet"):
    dist.not_yet()
torch.our_own = 1
def work(rank, mp):
    dist.init_process_group("gloo"); dist.all_reduce(torch.ones(1)); mp.whatever()
    torch.compile(DDP(torch.nn.Linear(1, 1)))
    print(torch.our_own, dist.ReduceOp.SUM, torch.float32)
"""


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[str], dict[str, Finding]]:
    def look(source: str) -> dict[str, Finding]:
        script = tmp_path / "train.py"
        script.write_text(source)
        launch = read_launch(["python3", str(script)], {}, tmp_path)
        target = Target(plan=launch.main, script=script, python=sys.executable, cwd=tmp_path)
        return {f.outcome: f for f in TORCH.look(target)}

    return look


def test_what_is_there_tried_or_asked_for_is_right(seen: Callable[..., dict[str, Finding]]) -> None:
    assert not seen(RIGHT).keys() & {"lacks", "misnamed"}


@pytest.mark.parametrize(
    ("line", "outcome", "meant"),
    [
        ("dist.frobnicate_the_ranks(x)", "lacks", ""),
        ("from torch.distributed import quantum_reduce", "lacks", ""),
        ("dist.allreduce(x)", "misnamed", "torch.distributed.all_reduce"),
        ("dist.DistributedSampler(x)", "misnamed", "torch.utils.data.DistributedSampler"),
        ("mp.TCPStore('h', 1)", "misnamed", "torch.distributed.TCPStore"),
    ],
)
def test_what_this_torch_has_not(
    seen: Callable[..., dict[str, Finding]], line: str, outcome: str, meant: str
) -> None:
    source = f"import torch.distributed as dist, torch.multiprocessing as mp\nx = 1\n{line}\n"
    found = seen(source)
    assert outcome in found and found[outcome].data["line"] == 3
    assert found[outcome].data["meant"].startswith(meant)
