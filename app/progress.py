"""How far the reading of large logs is, and what was found so far, on one line of the terminal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ddp_assist.probes.logs.reading import Log, read

_WORTH_A_LINE = 64 << 20
_PAUSE = 0.2
_SHOWN = 3


def read_in_sight(logs: Sequence[str], out: TextIO, worth: int = _WORTH_A_LINE) -> None:
    """Reads logs ahead of the probes, which then find them read; shows it to a person only."""
    total = sum(map(_size, logs))
    if total < worth or not out.isatty():
        return
    line = _ProgressLine(total, out)
    try:
        read(logs, line.step)
    finally:
        line.clear()


def _size(name: str) -> int:
    path = Path(name)
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


class _ProgressLine:
    def __init__(self, total: int, out: TextIO) -> None:
        self._total, self._out = total, out
        self._done = 0
        self._next = 0.0
        self._found: dict[str, None] = {}

    def step(self, size: int, log: Log) -> None:
        self._done += size
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        bad = [hit.signature for hit in log.hits.values() if hit.signature.weight == "bad"]
        self._found |= {each.says: None for each in bad if "{" not in each.says}
        # What is packed grows while it is read, so its size is no measure of the end.
        share = min(99, 100 * self._done // self._total)
        seen = "; ".join(list(self._found)[:_SHOWN]) or "nothing yet"
        text = f"reading the log: {share} %, seen: {seen}"
        width = max(20, shutil.get_terminal_size().columns - 1)
        self._out.write(f"\r{text[:width]:<{width}}")
        self._out.flush()

    def clear(self) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        self._out.write("\r" + " " * width + "\r")
        self._out.flush()
