"""What a trial costs, beside the same all_reduce under torchrun and `accelerate test`.

    python benchmarks/trials.py [--rounds 5] [--ranks 2,4,8,16] [--accelerate PATH] [--json FILE]

Everything is measured in one run, alternating, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from measuring import Row, command, in_turn, keep, row

from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

WARM = {"BENCH": "warm"}
LAUNCHED = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH": "launcher"}
SLOW = 2
"""Ranks up to which `accelerate test` is asked: it trains a model, several times."""
SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
tensor = torch.full((8,), dist.get_rank() + 1.0)
dist.all_reduce(tensor)
assert tensor[0].item() == dist.get_world_size() * (dist.get_world_size() + 1) / 2
dist.destroy_process_group()
"""


def memory_of(mark: str) -> int:
    """Bytes that processes with this text in their environment hold, shared pages shared out."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                rollup = (entry / "smaps_rollup").read_text()
                total += int(rollup.split("Pss:")[1].split()[0]) * 1024
        except (OSError, IndexError):
            continue
    return total


class Peak:
    """The most memory that was seen while something ran; only in rounds that are not timed."""

    def __init__(self, mark: str) -> None:
        self.mark, self.most, self.over = mark, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, memory_of(self.mark))

    def of(self, what: Callable[[], object]) -> int:
        self.thread.start()
        try:
            what()
        finally:
            self.over.set()
            self.thread.join()
        return self.most


def joined(result: object) -> None:
    assert getattr(result, "joined", False), result


def contenders(
    ranks: int, script: str, warm: WarmTorch, accelerate: str | None
) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        "warm trial": lambda: joined(warm.run_trial(TrialSpec(nproc=ranks, env=WARM))),
        "cold trial": lambda: joined(run_trial(TrialSpec(nproc=ranks, env={"BENCH": "cold"}))),
        "torchrun --standalone": command(
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={ranks}", script, env=LAUNCHED,
        ),
    }  # fmt: skip
    if accelerate and ranks <= SLOW:
        found["accelerate test --cpu"] = command(
            accelerate, "launch", "--cpu", f"--num_processes={ranks}", "-m",
            "accelerate.test_utils.scripts.test_script", env=LAUNCHED,
        )  # fmt: skip
    return found


def measure(rounds: int, sizes: list[int], accelerate: str | None) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as tmp, WarmTorch(env=WARM) as warm:
        script = os.path.join(tmp, "all_reduce.py")
        Path(script).write_text(SCRIPT)
        joined(warm.run_trial(TrialSpec(env=WARM, deadline=60)))  # torch is there from here on
        for ranks in sizes:
            chosen = contenders(ranks, script, warm, accelerate)
            took = in_turn(chosen, rounds)
            peak = {}
            for name, what in chosen.items():
                mark = name.split()[0] if "trial" in name else "launcher"
                peak[name] = Peak(f"BENCH={mark}").of(what) / 1e6
            for kind in ("warm", "cold"):
                for peer in (name for name in chosen if "trial" not in name):
                    ours = f"{kind} trial"
                    says = f"a trial rendezvous of {ranks} ranks, torch {kind}"
                    rows.append(row(
                        says, f"`{peer}`", took[ours], took[peer], ranks=ranks,
                        name=f"{ranks} ranks, {kind}" if "torchrun" in peer else None,
                        here_mb=round(peak[ours]), peer_mb=round(peak[peer]),
                    ))  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8, 16])
    beside = shutil.which("accelerate", path=os.path.dirname(sys.executable))
    parser.add_argument("--accelerate", default=beside, help="where there is one: it is no need")
    asked = parser.parse_args()
    keep("trials", measure(asked.rounds, asked.ranks, asked.accelerate))


if __name__ == "__main__":
    main()
