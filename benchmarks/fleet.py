"""`ddp-assist fleet` on namespace nodes against one trivial Python command through clush.

    sudo python benchmarks/fleet.py [4 16 64]

Then folding and comparing alone, on recorded answers of 1,000 and 10,000 nodes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "fleet"))

from fleet_nodes import Nodes, start  # type: ignore[import-not-found]  # noqa: E402

from ddp_assist.probes.fleet.compare import compare, kinds, merged  # noqa: E402
from ddp_assist.probes.fleet.engine import Node  # noqa: E402
from ddp_assist.probes.fleet.links import pairs  # noqa: E402


def seconds(nodes: Nodes, *words: str) -> float:
    begun = time.monotonic()
    done = nodes.inside("env", f"PYTHONPATH={ROOT}/tests/typing", *words)
    assert done.returncode in (0, 1, 5), done.stderr
    return time.monotonic() - begun


def live(count: int) -> None:
    names = [f"n{i}" for i in range(1, count + 1)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        nodes = start(Path(folder), names)
        try:
            which = f"n[1-{count}]"
            clush = str(Path(sys.executable).with_name("clush"))
            plain = seconds(nodes, clush, "-f", "64", "-w", which, "python3 -c 'print(1)'")
            fleet = (sys.executable, "-m", "ddp_assist", "fleet", "-w", which, "--no-trial")
            ours = seconds(nodes, *fleet)
        finally:
            nodes.close()
    print(f"{count:>6} nodes: clush {plain:.2f} s, fleet {ours:.2f} s ({ours / plain:.1f} x)")


def recorded(count: int) -> None:
    finding = {"probe": "torch", "outcome": "fine", "sentence": "torch", "data": {"version": "2"},
               "evidence": [], "seconds": 0.1}  # fmt: skip
    look = {"python": "3.11", "machine": "x86_64", "env": {"NCCL_DEBUG": "INFO"}, "plans": [],
            "names": {}, "links": [], "findings": [finding] * 30}  # fmt: skip
    nodes = [Node(f"n{i}", "ok", answers={"look": look}) for i in range(count)]
    begun = time.monotonic()
    found = [*compare(nodes), *merged(nodes)]
    kinds(nodes)
    chosen = pairs([node.name for node in nodes], "n0")
    took = time.monotonic() - begun
    print(f"{count:>6} recorded: {took:.2f} s, {len(found)} findings, {len(chosen)} pairs")


if __name__ == "__main__":
    for number in map(int, sys.argv[1:] or ("4", "16", "64")):
        live(number)
    for number in (1000, 10000):
        recorded(number)
