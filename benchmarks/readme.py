"""Writes the README's table from what was measured: python benchmarks/readme.py

The rows stand here by part and name, at most ten, the ones a user waits for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from measuring import RESULTS, ROOT

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
ROWS = (
    ("start", "first screen"), ("check", "check"), ("sockets", "owner"), ("processes", "pass"),
    ("trials", "2 ranks, warm"), ("trials", "2 ranks, cold"), ("logs", "log of 64"),
    ("jobs", "jobs"), ("fleet", "16 nodes"), ("proof", "the port is held"),
)  # fmt: skip


def load(part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((RESULTS / f"{part}.json").read_text())
    return found


def line(row: Mapping[str, Any]) -> str:
    memory = f", {row['here_mb']:.0f} MB" if row.get("here_mb") else ""
    theirs = f", {row['peer_mb']:.0f} MB" if row.get("peer_mb") else ""
    times = f"{row['times']:.1f} ({row['times_from']:.1f} to {row['times_to']:.1f})"
    return (f"| {row.get('says', row['what'])} | {spoken(row['here_s'])}{memory} | "
            f"{row['peer']} {spoken(row['peer_s'])}{theirs} | {times} |")  # fmt: skip


def spoken(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def table() -> str:
    parts = {part: load(part) for part, _ in ROWS}
    rows = []
    for part, name in ROWS:
        found = next(row for row in parts[part]["rows"] if row.get("name") == name)
        rows.append(line(found))
    host = parts["check"]["machine"]
    where = f"{host['cores']} cores ({host['cpu'] or host['machine']}), {host['system']}"
    said = (f"On {where}, Python {host['python']}, torch {host['torch']}; medians, both sides in "
            "turn in one run, and between which ratios the rounds lay.")  # fmt: skip
    head = ["| what you wait for | here | what people use today | times |", "|---|---|---|---|"]
    return "\n".join([said, "", *head, *rows])


def main() -> None:
    path = ROOT / "README.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
