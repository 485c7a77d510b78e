"""What was seen, as a table: printed after a run, and kept in the docs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live_proof import Row

HEAD = """# The proof

Every fault below was made in a throw-away box with real torch processes, the tool was asked as its
user asks it, and its corrected launch was started in the same box. `make proof` makes this table
again. The moments: *before* the start (`diagnose -- LAUNCH`), *run* (`ddp-assist run -- LAUNCH`),
*during* the hang (`diagnose --job PID`), *after* the failure (`--log` and the launch), *log* (the
log alone). A moment that is not listed can't know the cause. *ran* says what the corrected launch
did: it trained, or nothing where only the machine's owner can cure it.

"""
COLUMNS = ("fault", "moment", "how", "cause named", "certainty", "fix", "badge", "ran", "s")


def as_text(rows: Sequence[Row]) -> str:
    return "\n".join([*(row.line() for row in ordered(rows)), summary(rows)])


def ordered(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.family, row.fault, row.moment, row.variation))


def summary(rows: Sequence[Row]) -> str:
    faults = [row for row in rows if row.wanted]
    controls = [row for row in rows if not row.wanted]
    right = [row for row in faults if not row.wrong]
    tried = [row for row in faults if row.ran]
    proven = [row.seconds for row in faults if row.ran == "trained" and row.badge == "ran"]
    median = f"{statistics.median(proven):.1f} s" if proven else "-"
    return (
        f"{len(right)} of {len(faults)} pairs of fault and moment: right cause first;"
        f" {sum(row.ran == 'trained' for row in tried)} of {len(tried)} corrected launches trained;"
        f" {sum(row.cause is not None for row in controls)} causes in {len(controls)} looks where"
        f" nothing is wrong; command to proven fix, median {median}"
    )


def write(path: Path, rows: Sequence[Row]) -> None:
    cores, load = os.cpu_count(), os.getloadavg()[0]
    lines = [HEAD + f"{summary(rows)}.", ""]
    lines += [
        f"Measured on {cores} cores ({platform.machine()}, Python {platform.python_version()}),"
        f" load {load:.0f} at the end.",
        "",
    ]
    family = None
    for row in ordered(rows):
        if row.family != family:
            family = row.family
            lines += ["", f"## {family}", "", _row(COLUMNS), _row(["---"] * len(COLUMNS))]
        named = row.cause or "none"
        named = named if not row.wrong else f"**{named}**, wanted {row.wanted or 'none'}"
        lines.append(
            _row(
                (
                    row.fault, row.moment, row.variation, named, row.certainty,
                    row.fix.replace("|", "/"), row.badge, row.ran, f"{row.seconds:.1f}",
                )
            )
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
