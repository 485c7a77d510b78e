"""Writes the README's table from what was measured: python benchmarks/readme.py

The rows stand here by part and name, at most ten, the ones a user waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from measuring import ROOT, between, kept, spoken

ROWS = (
    ("start", "first screen"), ("check", "check"), ("sockets", "owner"), ("processes", "pass"),
    ("trials", "2 ranks, warm"), ("trials", "2 ranks, cold"), ("logs", "500 MB log of 64"),
    ("jobs", "jobs"), ("fleet", "16 nodes"), ("proof", "the port is held"),
)  # fmt: skip


def line(row: Mapping[str, Any]) -> str:
    memory = f", {row['here_mb']:.0f} MB" if row.get("here_mb") else ""
    theirs = f", {row['peer_mb']:.0f} MB" if row.get("peer_mb") else ""
    times = f"{row['times']:.1f} ({row['times_from']:.1f} to {row['times_to']:.1f})"
    return (f"| {row.get('says', row['what'])} | {spoken(row['here_s'])}{memory} | "
            f"{row['peer']} {spoken(row['peer_s'])}{theirs} | {times} |")  # fmt: skip


def table() -> str:
    parts = {part: kept(part) for part, _ in ROWS}
    rows = []
    for part, name in ROWS:
        found = next(row for row in parts[part]["rows"] if row.get("name") == name)
        rows.append(line(found))
    host = parts["check"]["machine"]
    where = f"{host['cores']} cores ({host['cpu'] or host['machine']}), {host['system']}"
    sat = sorted({part["sittings"] for part in parts.values()})
    sittings = f"{sat[0]} to {sat[-1]} sittings" if len(sat) > 1 else f"{sat[0]} sittings"
    said = (f"On {where}, Python {host['python']}, torch {host['torch']}; medians, both sides in "
            f"turn, in {sittings}, and between which ratios all rounds lay.")  # fmt: skip
    head = ["| what you wait for | here | what people use today | times |", "|---|---|---|---|"]
    return "\n".join([said, "", *head, *rows])


def main() -> None:
    between(ROOT / "README.md", "measured", table())


if __name__ == "__main__":
    main()
