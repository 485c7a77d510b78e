"""Start of each verb, and `check` as a whole against torch's and accelerate's own reports.

    python benchmarks/check.py [--rounds 5]

A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring import OURS, Row, command, in_turn, keep, peak_mb, row

BIN = str(Path(sys.executable).parent)
CHECK = [*OURS, "check", "--json"]
PEERS = {
    "`torch.utils.collect_env`": [sys.executable, "-m", "torch.utils.collect_env"],
    "`accelerate env`": ["accelerate", "env"],
    "`ds_report`": ["ds_report"],
}
VERBS = {
    "--help": [*OURS, "--help"], "explain": [*OURS, "explain", "fd-limit"],
    "diagnose of a log": [*OURS, "diagnose", "--log", "-"],
    "redact": [*OURS, "redact", "/dev/null"],
}  # fmt: skip


def installed() -> dict[str, list[str]]:
    found = {}
    for name, words in PEERS.items():
        program = words[0] if words[0] == sys.executable else shutil.which(words[0], path=BIN)
        if program:
            found[name] = [program, *words[1:]]
    return found


def verbs(rounds: int) -> list[Row]:
    """Each beside a Python that does nothing: what is not ours to save."""
    empty = command(sys.executable, "-c", "pass")
    rows: list[Row] = []
    for name, words in VERBS.items():
        ours = command(*words, codes=(0, 1, 3, 5))
        took = in_turn({"ours": ours, "python": empty}, rounds)
        rows.append(row(f"start: {name}", "`python -c pass`", took["ours"], took["python"],
                        here_mb=peak_mb(words)))  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(argv).rounds
    peers = installed()
    ours = command(*CHECK, codes=(0, 1, 5))
    sides = {"ours": ours, **{name: command(*words) for name, words in peers.items()}}
    took = in_turn(sides, rounds)
    rows = [
        row("everything this host can tell (`check --json`)", peer, took["ours"], took[peer],
            name="check" if "collect_env" in peer else None,
            here_mb=peak_mb(CHECK), peer_mb=peak_mb(words))
        for peer, words in peers.items()
    ]  # fmt: skip
    keep("check", [*rows, *verbs(rounds)])


if __name__ == "__main__":
    main()
