"""What a trial costs, beside the same all_reduce under torchrun and `accelerate test`.

    python benchmarks/trials.py [--rounds 5] [--ranks 2,4,8,16] [--accelerate PATH] [--json FILE]

Everything is measured in one run, alternating, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

WARM = {"BENCH": "warm"}
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


def timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def joined(result: object) -> None:
    assert getattr(result, "joined", False), result


def command(*argv: str) -> Callable[[], object]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH": "launcher"}
    return lambda: subprocess.run(argv, check=True, env=env, capture_output=True)


def contenders(
    ranks: int, script: str, warm: WarmTorch, accelerate: str | None
) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {
        "warm trial": lambda: joined(warm.run_trial(TrialSpec(nproc=ranks, env=WARM))),
        "cold trial": lambda: joined(run_trial(TrialSpec(nproc=ranks, env={"BENCH": "cold"}))),
        "torchrun --standalone": command(
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc-per-node={ranks}", script,
        ),
    }  # fmt: skip
    if accelerate and ranks <= SLOW:
        found["accelerate test, CPU"] = command(
            accelerate, "launch", "--cpu", f"--num_processes={ranks}", "-m",
            "accelerate.test_utils.scripts.test_script",
        )  # fmt: skip
    return found


def measure(rounds: int, sizes: list[int], accelerate: str | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as tmp, WarmTorch(env=WARM) as warm:
        script = os.path.join(tmp, "all_reduce.py")
        Path(script).write_text(SCRIPT)
        joined(warm.run_trial(TrialSpec(env=WARM, deadline=60)))  # torch is there from here on
        for ranks in sizes:
            chosen = contenders(ranks, script, warm, accelerate)
            times: dict[str, list[float]] = {name: [] for name in chosen}
            for _ in range(rounds):
                for name, what in chosen.items():
                    times[name].append(timed(what))
            base = statistics.median(times["torchrun --standalone"])
            for name, what in chosen.items():
                mark = "BENCH=" + name.split()[0] if "trial" in name else "BENCH=launcher"
                median = statistics.median(times[name])
                rows.append({
                    "ranks": ranks, "what": name, "median_s": round(median, 4),
                    "least_s": round(min(times[name]), 4), "times_faster": round(base / median, 1),
                    "peak_mb": Peak(mark).of(what) // 1_000_000,
                })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", default="2,4,8,16")
    beside = shutil.which("accelerate", path=os.path.dirname(sys.executable))
    parser.add_argument("--accelerate", default=beside, help="where there is one: it is no need")
    parser.add_argument("--json")
    asked = parser.parse_args()
    sizes = [int(n) for n in asked.ranks.split(",")]
    rows = measure(asked.rounds, sizes, asked.accelerate)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'ranks':>5}  {'what':<24}{'median s':>10}{'least s':>10}{'x torchrun':>12}{'MB':>7}")
    for row in rows:
        print("{ranks:>5}  {what:<24}{median_s:>10.3f}{least_s:>10.3f}{times_faster:>12.1f}"
              "{peak_mb:>7}".format(**row))  # fmt: skip
    if asked.json:
        Path(asked.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
