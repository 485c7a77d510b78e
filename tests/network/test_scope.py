"""Whether a job spans hosts, as far as the launch says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Endpoint, Finding, Target
from ddp_assist.probes.network.scope import number, spans_hosts

PATH = {"PATH": os.environ["PATH"]}


def target(
    launch: str = "", *, host: str = "", seen: tuple[Finding, ...] = (), **env: str
) -> Target:
    variables = PATH | env
    read = read_launch(launch, variables, Path.cwd()) if launch else None
    at = (Endpoint(host, 29500, "a test"),) if host else ()
    return Target(launch=read, plan=read and read.main, env=variables, endpoints=at, seen=seen)


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        (target(), None),
        (target("torchrun --nnodes=2 t.py"), True),
        (target("torchrun --nnodes=1:4 t.py"), True),
        (target("torchrun --nproc-per-node=8 t.py"), False),
        (target("torchrun --standalone t.py"), False),
        (target("torchrun t.py", host="10.99.0.1"), False),
        (target("python t.py", host="127.0.0.1"), False),
        (target("python t.py", host="10.99.0.1"), True),
        (target("python t.py", host="node7", seen=(Finding("name", "not-ours", ""),)), True),
        (target("python t.py", WORLD_SIZE="8", LOCAL_WORLD_SIZE="8"), False),
        (target("python t.py", WORLD_SIZE="8", LOCAL_WORLD_SIZE="4"), True),
        (target("python t.py", WORLD_SIZE="1", host="127.0.0.1"), False),
        (target("python t.py", SLURM_NNODES="2", SLURM_JOB_ID="1"), True),
        (target("python t.py", SLURM_NNODES="1", SLURM_JOB_ID="1"), False),
        (
            target("torchrun t.py", seen=(Finding("env", "left-over-pet", ""),), PET_NNODES="2"),
            None,
        ),
    ],
)
def test_scope(asked: Target, spans: bool | None) -> None:
    assert spans_hosts(asked) is spans


def test_numbers() -> None:
    assert (number("12"), number(" 3 "), number("x"), number(""), number(None)) == (
        12,
        3,
        None,
        None,
        None,
    )
    assert number("9" * 5000) is None
