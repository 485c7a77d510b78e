"""How foreign words appear in a sentence: cleaned, and never longer than a line can bear."""

from __future__ import annotations

from collections.abc import Iterable

from ddp_assist.probes.text import clean

MOST = 120


def brief(text: str | bytes, most: int = MOST) -> str:
    """One foreign word or line for a sentence or for data."""
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogateescape")
    shown = clean(text[: 4 * most]).replace("\n", " ")
    return shown if len(shown) <= most and len(text) <= 4 * most else shown[: most - 1] + "…"


def counted(number: int, thing: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def several(words: Iterable[str], most: int = 6) -> str:
    """`a, b and c`, or the first few and how many more there are."""
    shown = [brief(word) for word in words]
    if len(shown) > most:
        shown = [*shown[:most], f"{len(shown) - most} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
