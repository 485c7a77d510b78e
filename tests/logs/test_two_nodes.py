"""Two agents of torchrun, real gloo ranks, one of which goes wrong: whom do the logs name?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ddp_assist.probes.logs import story
from ddp_assist.probes.model import Finding, Target

pytest.importorskip("torch", reason="needs torch for real ranks")

SCRIPT = """
import datetime, os, sys, time, torch, torch.distributed as dist
how, who = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=120))
dist.all_reduce(torch.ones(1))
if how == "hangs":
    dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=4))
if dist.get_rank() == who:
    if how == "raises":
        raise KeyError("shard-17")
    if how == "is killed":
        os.kill(os.getpid(), 9)
    if how == "leaves":
        os._exit(0)
    if how == "hangs":
        time.sleep(600)
dist.all_reduce(torch.ones(1))
dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def logs_of(how: str, who: int, folder: Path) -> list[str]:
    """A job of two nodes with two ranks each; the log of each node."""
    (folder / "fit.py").write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2",
        "--master-addr=127.0.0.1", f"--master-port={free_port()}",
    ]  # fmt: skip
    logs = [folder / f"node{n}.log" for n in range(2)]
    agents = []
    for n, log in enumerate(logs):
        words = [*command, f"--node-rank={n}", str(folder / "fit.py"), how, str(who)]
        with log.open("wb") as out:
            agents.append(
                subprocess.Popen(
                    words, stdout=out, stderr=out, env=os.environ | {"TMPDIR": str(folder)}
                )
            )
    try:
        for agent in agents:
            agent.wait(240)
    finally:
        for agent in agents:
            agent.kill()
    return [str(log) for log in logs]


def named(found: list[Finding]) -> set[int]:
    told = [f for f in found if f.outcome in ("first-failure", "silent-rank")]
    return {rank for f in told for rank in f.data.get("ranks", [f.data.get("rank")])}


@pytest.mark.parametrize(
    ("how", "who", "outcome"),
    [
        ("raises", 3, "first-failure"),
        ("is killed", 3, "first-failure"),
        ("leaves", 1, "silent-rank"),
        ("hangs", 0, "silent-rank"),
    ],
)
def test_the_right_rank_is_named(how: str, who: int, outcome: str, tmp_path: Path) -> None:
    logs = logs_of(how, who, tmp_path)
    text = "\n".join(Path(log).read_text(errors="replace") for log in logs)[-4000:]
    both = list(story.look(Target(logs=tuple(logs))))
    assert outcome in {f.outcome for f in both}, text
    # Who waits may be cut off by its launcher before it says so, and is then a suspect as well.
    assert who in named(both), text
    assert len(named(both)) == 1 or how == "hangs", text
    for log in logs:
        alone = list(story.look(Target(logs=(log,))))
        asks = any("needed" in f.sentence for f in alone)
        assert named(alone) == {who} or (asks and (not named(alone) or how == "hangs")), text
