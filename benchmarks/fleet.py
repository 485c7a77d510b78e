"""`ddp-assist fleet` on namespace nodes against one trivial Python command through clush.

    sudo python benchmarks/fleet.py [4 16 64]

Then 1,000 and 10,000 nodes with recorded answers behind a stub of the connections: everything that
this side does with them, until the last line is drawn.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "fleet"))

from fleet_nodes import Nodes, ours, start  # type: ignore[import-not-found]  # noqa: E402
from recorded import hosts  # type: ignore[import-not-found]  # noqa: E402

from ddp_assist.app.verbs.fleet import text  # noqa: E402


def seconds(nodes: Nodes, *words: str) -> float:
    begun = time.monotonic()
    done = nodes.user(*words)
    assert done.returncode in (0, 1, 5), done.stderr
    return time.monotonic() - begun


def live(count: int) -> None:
    nodes = start([f"n{i}" for i in range(1, count + 1)])
    try:
        which = f"n[1-{count}]"
        clush = str(Path(sys.executable).with_name("clush"))
        pairs = []
        for _ in range(3):
            plain = seconds(nodes, clush, "-f", "64", "-w", which, "python3 -c 'print(1)'")
            pairs.append((plain, seconds(nodes, *ours("fleet", "-w", which, "--no-trial"))))
    finally:
        nodes.close()
    plain, whole = (sorted(column)[1] for column in zip(*pairs, strict=True))
    print(f"{count:>6} nodes: clush {plain:.2f} s, fleet {whole:.2f} s ({whole / plain:.1f} x)")


def recorded(count: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = hosts(count)
    begun = time.monotonic()
    many.ask()
    asked = time.monotonic() - begun
    lines = text(many.result)
    drawn = time.monotonic() - begun - asked
    each = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / count
    print(
        f"{count:>6} recorded: {asked:.2f} s to compare, {drawn:.2f} s to draw"
        f" {len(lines)} lines, {each:.0f} KiB a node"
    )


if __name__ == "__main__":
    for number in map(int, sys.argv[1:] or ("4", "16", "64")):
        live(number)
    for number in (100, 1000, 10000):
        recorded(number)
