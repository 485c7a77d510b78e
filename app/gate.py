"""The last look at every line before the terminal gets it."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from ddp_assist.probes.text import clean


class Gate(LineFilter):
    """No control character of foreign text passes, nothing is a link; ASCII where that is asked."""

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        self.plain = plain

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment
            if segment.control
            else Segment(self._text(segment.text), _unlinked(segment.style))
            for segment in segments
        ]

    def _text(self, text: str) -> str:
        text = clean(text)
        if not self.plain or text.isascii():
            return text
        return "".join(c if c.isascii() else "?" * cell_len(c) for c in text)


def _unlinked(style: Style | None) -> Style | None:
    return style.update_link(None) if style is not None and style.link else style


def is_plain(env: Mapping[str, str]) -> bool:
    """Whether this terminal is only sure to have ASCII: no UTF-8 locale, or a bare console.

    Python itself sets LC_CTYPE to C.UTF-8 where the locale is C, so that this tells nothing.
    """
    if env.get("TERM") in ("linux", "vt100", "vt220"):
        return True
    ctype = env.get("LC_CTYPE", "")
    locale = env.get("LC_ALL") or (ctype if ctype != "C.UTF-8" else "") or env.get("LANG", "")
    return "utf" not in locale.lower()
