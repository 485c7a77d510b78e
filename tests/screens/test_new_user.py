"""Somebody who has never seen it, on a machine with a fault: enter, a command, and what it says.

Each walk starts `ddp-assist` with nothing, takes the first symptom ("it hangs"), types the launch
as he would in his shell, and then presses enter until a fix is shown. The faults are real and
stand in namespaces of their own.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from pty_terminal import Terminal  # type: ignore[import-not-found]

pytestmark = pytest.mark.needs("root", "namespaces", "ip")
BIN = Path(sys.executable).parent
MOST = 16
"""So many enters lead from the first step to the fix, or the walk is too long."""

ENV = """
import torch.distributed as dist
dist.init_process_group("gloo")
dist.destroy_process_group()
"""
SPAWN = """
import torch.distributed as dist
import torch.multiprocessing as mp

def work(rank):
    dist.init_process_group("gloo", "tcp://127.0.0.1:29500", rank=rank, world_size=2)

mp.spawn(work, nprocs=2)
"""
ARGUMENT = """
import argparse
import torch.distributed as dist
parser = argparse.ArgumentParser()
parser.add_argument("--local_rank", type=int, required=True)
args = parser.parse_args()
dist.init_process_group("gloo")
"""
NCCL = """
import torch.distributed as dist
dist.init_process_group("nccl")
"""


@dataclass(frozen=True)
class Fault:
    """How it is made, what is typed, and what the screen must say about cause and cure."""

    typed: str
    cause: str
    cure: str
    script: str = ENV
    made: str = ""


FAULTS = {
    "a web server has the port": Fault(
        "torchrun --nproc-per-node=2 --master-port=29500 train.py",
        "port-held-by-service", "meet on port",
        made=f"{sys.executable} -m http.server 29500 >/dev/null 2>&1 & until"
        " grep -q ':733C' /proc/net/tcp; do sleep 0.1; done",
    ),
    "started without a launcher": Fault("python train.py", "missing-env", "torchrun"),
    "variables of yesterday": Fault(
        "python train.py", "env-left-exported", "RANK",
        made="export RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500",
    ),
    "an interface that is not there": Fault(
        "torchrun --nproc-per-node=2 train.py", "interface-invalid", "GLOO_SOCKET_IFNAME",
        made="export GLOO_SOCKET_IFNAME=ens5f0",
    ),
    "a port beyond the last one": Fault(
        "torchrun --nproc-per-node=2 --master-port=76610 train.py", "port-out-of-range", "port",
    ),
    "a name that nobody knows": Fault(
        "torchrun --nnodes=2 --node-rank=0 --master-addr=gpu-node-01 --master-port=29500 train.py",
        "master-addr-unresolvable", "does not resolve here",
    ),
    "processes started while imported": Fault(
        "python train.py", "missing-main-guard", "__main__", script=SPAWN,
    ),
    "an argument that torchrun does not pass": Fault(
        "torchrun --nproc-per-node=2 train.py", "local-rank-argument", "local", script=ARGUMENT,
    ),
    "NCCL where torch has none": Fault(
        "torchrun --nproc-per-node=2 train.py", "nccl-not-in-build", "gloo", script=NCCL,
    ),
    "a port of the system": Fault(
        "torchrun --nproc-per-node=2 --master-port=443 train.py", "port-privileged", "port",
        made="DROP=--bounding-set=-net_bind_service",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_enter_leads_to_the_fix(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    (tmp_path / "train.py").write_text(fault.script)
    inside = (
        f"ip link set lo up; cd {shlex.quote(str(tmp_path))}; {fault.made or ':'};"
        f" exec setpriv ${{DROP:---inh-caps=-all}} {sys.executable} -m ddp_assist"
    )
    box = ("unshare", "-n", "-m", "-p", "-i", "--fork", "--kill-child", "--mount-proc")
    here = Terminal(
        tmp_path / "state", command=(*box, "sh", "-c", inside),
        PATH=f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
    )  # fmt: skip
    try:
        walk(here, fault)
    finally:
        here.close()


def walk(here: Terminal, fault: Fault) -> None:
    here.shows("What did you see?")
    here.type(b"\r")
    here.shows("What is there to look at?")
    here.type(b"\r")
    here.shows("The launch command")
    here.type(fault.typed.encode())
    here.shows(fault.typed[:20])
    here.type(b"\r")
    here.shows("Step 1.")
    here.read(lambda: "Still looking" not in here.text)
    for _ in range(MOST):
        before = here.text
        if "> Fix for" in before:
            break
        here.type(b"\r")
        here.read(
            lambda before=before: here.text not in ("", before) and "till looking" not in here.text
        )
    assert f"Fix for {fault.cause}" in here.text, here.text
    here.shows(fault.cure)
    here.type(b"q")
    assert here.ended() == 0
