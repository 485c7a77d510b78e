"""`ddp-assist fleet` on namespace nodes against one trivial Python command through clush.

    sudo python benchmarks/fleet.py [--nodes 4 16 64] [--rounds 3]

Then 1,000 and 10,000 nodes with recorded answers behind a stub of the connections: everything that
this side does with them, until the last line is drawn.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

from measuring import Row, in_turn, keep, row

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "fleet"))

from fleet_nodes import ours, start  # type: ignore[import-not-found]  # noqa: E402
from recorded import hosts  # type: ignore[import-not-found]  # noqa: E402

from ddp_assist.app.verbs.fleet import text  # noqa: E402


def live(count: int, rounds: int) -> Row:
    nodes = start([f"n{i}" for i in range(1, count + 1)])
    which, clush = f"n[1-{count}]", str(Path(sys.executable).with_name("clush"))

    def said(*words: str) -> None:
        done = nodes.user(*words)
        assert done.returncode in (0, 1, 5), done.stderr

    try:
        took = in_turn(
            {
                "clush": lambda: said(clush, "-f", "64", "-w", which, "python3 -c 'print(1)'"),
                "ours": lambda: said(*ours("fleet", "-w", which, "--no-trial")),
            },
            rounds,
        )
    finally:
        nodes.close()
    says = f"every probe of {count} nodes, compared, and who reaches whom"
    return row(says, "`clush` with `python3 -c 'print(1)'`", took["ours"], took["clush"],
               name=f"{count} nodes")


def recorded(count: int) -> Row:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = hosts(count)
    begun = time.monotonic()
    many.ask()
    asked = time.monotonic() - begun
    lines = text(many.result)
    drawn = time.monotonic() - begun - asked
    each = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / count
    return {
        "what": f"{count:,} nodes with recorded answers", "compare_s": round(asked, 2),
        "draw_s": round(drawn, 2), "lines": len(lines), "kib_a_node": round(each),
    }  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--nodes", type=int, nargs="*", default=[4, 16, 64])
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    rows = [live(count, given.rounds) for count in given.nodes] if os.geteuid() == 0 else []
    keep("fleet", [*rows, *(recorded(count) for count in (100, 1_000, 10_000))])


if __name__ == "__main__":
    main()
