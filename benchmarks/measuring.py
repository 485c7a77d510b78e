"""What all benchmarks share: both sides in turn, medians with their spread, the machine, a file.

A part makes rows and gives them to `keep`, which prints them and writes `results/PART.json`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
OURS = [sys.executable, "-m", "ddp_assist"]
Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """Where a figure was made; a ratio of two sides of one run means more than either."""
    cpu = Path("/proc/cpuinfo").read_text(errors="replace")
    model = next((line.partition(": ")[2] for line in cpu.splitlines() if "model name" in line), "")
    return {
        "cores": os.cpu_count(), "cpu": model, "machine": platform.machine(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(), "torch": _version("torch"),
        "textual": _version("textual"), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def seconds(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def in_turn(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Each side once a round, so that a busy moment is busy for all of them."""
    took: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, what in sides.items():
            took[name].append(seconds(what))
    return took


def command(*argv: str, codes: Sequence[int] = (0,), **more: Any) -> Callable[[], object]:
    """A program run to its end without a word."""

    def run() -> None:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            check=False, **more,
        )  # fmt: skip
        assert done.returncode in codes, f"{argv}: {done.returncode}: {done.stderr[-400:]!r}"

    return run


def peak_mb(argv: Sequence[str], **more: Any) -> float:
    """The most memory of one process that is run for it alone."""
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return round(usage.ru_maxrss / 1024, 1)


def row(what: str, peer: str, here: Sequence[float], there: Sequence[float], **more: Any) -> Row:
    """Medians of both sides, and how many times the peer's the peer takes, round by round."""
    times = sorted(b / a for a, b in zip(here, there, strict=True))
    return {
        "what": what, "peer": peer, "here_s": statistics.median(here),
        "peer_s": statistics.median(there), "times": round(statistics.median(times), 2),
        "times_from": round(times[0], 2), "times_to": round(times[-1], 2),
        "here": [float(f"{a:.5g}") for a in here], "there": [float(f"{b:.5g}") for b in there],
        **more,
    }  # fmt: skip


def keep(part: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Prints the rows, and writes them with the machine they were measured on.

    One sitting's spread says little of the next one's. A SITTING after the first adds its rounds
    to those that are kept, so that the spread is that of all of them.
    """
    RESULTS.mkdir(exist_ok=True)
    sitting = int(os.environ.get("SITTING", "1"))
    if sitting > 1:
        rows = [_with(each, kept(part)) for each in rows]
    result = {"benchmark": part, "machine": machine(), "sittings": sitting,
              "rows": [dict(row) for row in rows]}  # fmt: skip
    (RESULTS / f"{part}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"{part}: {result['machine']}")
    for each in rows:
        unsaid = ("what", "peer", "here", "there")
        shown = {key: value for key, value in each.items() if key not in unsaid}
        print(f"  {each.get('what', '')} | {each.get('peer', '')}")
        print("    " + ", ".join(f"{key} {brief(value)}" for key, value in shown.items()))
    return rows


def kept(part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((RESULTS / f"{part}.json").read_text())
    return found


def _with(new: Row, earlier: Mapping[str, Any]) -> Row:
    """A row with the rounds of its earlier sittings as well."""
    if "here" not in new:
        return new
    alike = (r for r in earlier["rows"] if all(r.get(k) == new[k] for k in ("what", "peer")))
    if (old := next(alike, None)) is None:
        return new
    here, there = [*old["here"], *new["here"]], [*old["there"], *new["there"]]
    measured = row(new["what"], new["peer"], here, there)
    return {**new, **measured}


def spoken(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def between(page: Path, name: str, text: str) -> None:
    """Writes a text between the marks that stand for it in a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = page.read_text().partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
