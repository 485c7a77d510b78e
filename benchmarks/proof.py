"""From a command to a proven fix: one `diagnose` against what the documentation tells to do.

By hand means the commands that answer the question and the corrected launch run once to see that
ranks meet: nobody's thinking is timed, so a person takes longer than the figure for "by hand".

    python benchmarks/proof.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import OURS, Row, command, in_turn, keep, row

BIN = Path(sys.executable).parent
TRAIN = """
import os
import torch
import torch.distributed as dist

def main():
    {init}
    total = torch.ones(1)
    dist.all_reduce(total)
    print("TRAINED", total.item())
    dist.destroy_process_group()

if __name__ == "__main__":
    main()
"""
PLAIN = 'dist.init_process_group("gloo")'
NCCL = 'dist.init_process_group("nccl")'
TORCHRUN = str(BIN / "torchrun")


@contextmanager
def held_port() -> Iterator[int]:
    """A server that is no store; its backlog takes whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def by_hand(*steps: Callable[[], object]) -> Callable[[], object]:
    def work() -> None:
        for step in steps:
            step()

    return work


def faults(folder: Path, port: int) -> dict[str, tuple[list[str], Callable[[], object]]]:
    """By name: the broken launch, and what a person runs to find and cure it."""
    script, nccl = folder / "train.py", folder / "nccl.py"
    script.write_text(TRAIN.format(init=PLAIN))
    nccl.write_text(TRAIN.format(init=NCCL))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    works = command(TORCHRUN, "--standalone", "--nproc-per-node=2", str(script), env=env)
    fails = (1, 2)

    def broken(*words: str) -> Callable[[], object]:
        return command(*words, codes=fails, env=env)

    ask_torch = command(
        sys.executable, "-c", "import torch.distributed as d; print(d.is_nccl_available())"
    )
    taken = [TORCHRUN, "--nproc-per-node=2", f"--master-port={port}", str(script)]
    too_high = [TORCHRUN, "--nproc-per-node=2", "--master-port=76610", str(script)]
    alone = [sys.executable, str(script)]
    no_nccl = [TORCHRUN, "--nproc-per-node=2", str(nccl)]
    look = command("ss", "-tlnp")
    return {
        "the port is held": (taken, by_hand(broken(*taken), look, works)),
        "the port is no port": (too_high, by_hand(broken(*too_high), works)),
        "started without a launcher": (alone, by_hand(broken(*alone), works)),
        "no NCCL in this torch": (no_nccl, by_hand(broken(*no_nccl), ask_torch, works)),
    }  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=5)
    rounds = asked.parse_args().rounds
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as tmp, held_port() as port:
        for name, (launch, hands) in faults(Path(tmp), port).items():
            ours = command(*OURS, "diagnose", "--json", "--", *launch, codes=(1,), cwd=tmp)
            took = in_turn({"ours": ours, "hands": hands}, rounds)
            rows.append(row(name, "the documented commands, by hand", took["ours"], took["hands"],
                            name=name, says=f"from a command to a proven fix: {name}"))  # fmt: skip
    every = [float(each["here_s"]) for each in rows]
    keep("proof", [*rows, {"what": "median of all", "here_s": statistics.median(every)}])


if __name__ == "__main__":
    main()
