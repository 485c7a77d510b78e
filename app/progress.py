"""How far the reading of large logs is, and what was found so far, in a line."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ddp_assist.probes.logs.reading import Reading, under_way

_WORTH_A_LINE = 64 << 20
_PAUSE = 0.2
_SHOWN = 3


def reading_now(worth: int | None = None) -> str:
    """One line of it, or nothing where it is not worth waiting for."""
    now = under_way()
    least = _WORTH_A_LINE if worth is None else worth
    return _line(now) if now is not None and now.total >= least else ""


def _line(now: Reading) -> str:
    hits = [hit for log in list(now.found) for hit in list(log.hits.values())]
    bad = {hit.signature.says: None for hit in hits if hit.signature.weight == "bad"}
    seen = "; ".join([says for says in bad if "{" not in says][:_SHOWN]) or "nothing yet"
    return f"reading the log: {now.share} %, seen: {seen}"


@contextmanager
def reading_in_sight(out: TextIO, worth: int | None = None) -> Iterator[None]:
    """Shows it on one line of a terminal while something else reads; a pipe sees nothing."""
    if not out.isatty():
        yield
        return
    over = threading.Event()
    shower = threading.Thread(target=_show, args=(out, worth, over), daemon=True)
    shower.start()
    try:
        yield
    finally:
        over.set()
        shower.join()


def _show(out: TextIO, worth: int | None, over: threading.Event) -> None:
    shown = False
    while not over.wait(_PAUSE):
        text = reading_now(worth)
        if text or shown:
            width = max(20, shutil.get_terminal_size().columns - 1)
            out.write(f"\r{text[:width]:<{width}}" + ("" if text else "\r"))
            out.flush()
        shown = bool(text)
    if shown:
        out.write("\r" + " " * max(20, shutil.get_terminal_size().columns - 1) + "\r")
        out.flush()
