"""Rank 0 started here, where a launch sends all others away and nobody is where they meet."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ddp_assist.app.fixes.catalogue import builders
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

HERE = socket.gethostname()
NOBODY = Finding("aside", "nobody-there", "nobody answers", {"own": "10.0.0.1"})


def built(text: str, folder: Path, *said: Finding) -> Fix | None:
    (folder / "go.sh").write_text(text)
    launch = read_launch(["bash", "go.sh"], {}, folder)
    target = Target(plan=launch.main, launch=launch, env={}, cwd=folder)
    situation = Situation(target, said, "host-unreachable", said)
    return builders()["first-rank-here"](situation)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2\nRANK=1 on far python t.py --rank 1\n",
         "RANK=0 on {here} python t.py --rank 1 &"),
        ("RANK=1 WORLD_SIZE=2 MASTER_ADDR=10.0.0.9 on far python t.py\n",
         "RANK=0 WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 on {here} python t.py &"),
        ("export MASTER_ADDR=10.0.0.9 WORLD_SIZE=3\nRANK=1 on far python t.py &\n"
         "RANK=2 on more python t.py\n",
         "RANK=0 on {here} python t.py &"),
        ("on far torchrun --nnodes 2 --node-rank 1 --master-addr 10.0.0.9 t.py\n",
         "on {here} torchrun --nnodes 2 --node-rank 0 --master-addr 10.0.0.1 t.py &"),
        ("on far torchrun --nnodes=2 --node-rank=1 --master-addr=10.0.0.9 t.py\n",
         "on {here} torchrun --nnodes=2 --node-rank=0 --master-addr=10.0.0.1 t.py &"),
    ],
)  # fmt: skip
def test_the_first_line_is_for_this_host(text: str, first: str, tmp_path: Path) -> None:
    fix = built(text, tmp_path, NOBODY)
    assert fix is not None and fix.launch is not None
    assert first.format(here=HERE) in fix.launch.text.splitlines()
    assert "10.0.0.9" not in fix.launch.text
    plans = fix.launch.plans
    assert [p.host for p in plans][:2] == [HERE, "far"]
    assert [p.env.get("RANK") or str(p.node_rank) for p in plans] == list("012"[: len(plans)])
    assert {p.master_addr or p.env.get("MASTER_ADDR") for p in plans} == {"10.0.0.1"}


@pytest.mark.parametrize(
    "text",
    [
        "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2\nRANK=0 on far python t.py\n",
        "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=3\nRANK=1 on far python t.py\n",
        "export MASTER_ADDR=10.0.0.9\nRANK=1 on far python t.py\n",
        "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2\nRANK=1 python t.py\n",
        "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2\nif x; then\nRANK=1 on far python t.py\nfi\n",
        "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2 RANK=1\non far python t.py\n",
        "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2\ntrue; RANK=1 on far python t.py\n",
        "ssh far 'MASTER_ADDR=10.0.0.9 WORLD_SIZE=2 RANK=1 python t.py'\n",
        "on far torchrun --nnodes=2 --node-rank=1 --rdzv-backend=c10d --rdzv-endpoint=m:1 t.py\n",
        "on far torchrun --nnodes=3 --node-rank=1 --master-addr=10.0.0.9 t.py\n",
    ],
)
def test_no_guess_is_made(text: str, tmp_path: Path) -> None:
    assert built(text, tmp_path, NOBODY) is None


def test_only_where_nobody_is_there(tmp_path: Path) -> None:
    text = "export MASTER_ADDR=10.0.0.9 WORLD_SIZE=2\nRANK=1 on far python t.py\n"
    assert built(text, tmp_path) is None
    assert built(text, tmp_path, Finding("endpoint", "nobody-there", "", {"own": None})) is None
