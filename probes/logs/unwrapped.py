"""A paste whose lines a terminal or a mail program broke, put together again."""

from __future__ import annotations

import re
from collections.abc import Sequence

LARGEST = 64 << 10
"""Only a paste is looked at in this way; the lines of a log file end where their writer meant."""
_NARROWEST, _WIDEST = 40, 250
# What begins a line of its own: a time, a label, a frame, a header.
_FRESH = re.compile(
    r"\s*(?:\[|\(\w+ pid=|[IWEF]\d{4} |\d{4}-\d\d-\d\d|Traceback|File \"|raise |During handling|"
    r"[\w.]+(?:Error|Exception|Warning):|[\w.-]+:\d+:\d+ \[|#|\$|>>>|={5}|-{5}|\*{5}|<)"
)


def unwrapped(lines: Sequence[tuple[int, str]], at_full: str = "") -> list[tuple[int, str]]:
    """The lines with those joined that were one; each has the number of its first part.

    `at_full` is what stood behind a line of full width: nothing, or the blank it was broken at.
    """
    width = max((len(text) for _, text in lines), default=0)
    if not _NARROWEST <= width <= _WIDEST:
        return list(lines)
    joined: list[tuple[int, str]] = []
    before = ""
    for number, text in lines:
        glue = _glue(before, text, width, at_full)
        if joined and glue is not None:
            joined[-1] = (joined[-1][0], joined[-1][1] + glue + text.strip("\r"))
        else:
            joined.append((number, text))
        before = text
    return joined


def _glue(before: str, text: str, width: int, at_full: str) -> str | None:
    """What stood between two parts of a line, or None where the second begins a line."""
    if not before.strip() or not text.strip() or _FRESH.match(text):
        return None
    if len(before) == width:
        return at_full
    word = text.split(maxsplit=1)[0]
    broken_at_a_blank = not text[0].isspace() and len(before) + 1 + len(word) > width
    return " " if broken_at_a_blank else None
