"""The gate: foreign text becomes text that no terminal obeys and no reader is fooled by."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# ESC [ ... final, or the 8-bit CSI; parameters and intermediates may be missing.
_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
# OSC, DCS, SOS, PM and APC strings end at BEL, ST, or where the line ends.
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n\r]*(?:\x07|\x1b\\|\x9c)?"
_ESCAPE = r"\x1b[ -/]*[0-~]?"
_SEQUENCE = re.compile(f"{_CSI}|{_STRING}|{_ESCAPE}")

# Bidirectional controls, zero-width and other format characters, tags, variation selectors.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_INTRODUCERS = "\x1b\x90\x98\x9b\x9d\x9e\x9f"
_PICTURES = {
    **{chr(code): chr(0x2400 + code) for code in range(0x20) if code not in (9, 10)},
    **{chr(code): f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    "\t": "    ",
    "\x7f": "\u2421",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[\n -~]*\Z")
_MARK = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
_MARKS = re.compile(f"({_MARK}{{3}}){_MARK}+")


@dataclass(frozen=True, slots=True)
class Suspicious:
    """A character that would not be seen, and where it stands."""

    place: int
    name: str


def clean(text: str | bytes) -> str:
    """What may be shown: sequences gone, other controls as their pictures, invisible ones dropped.

    Linear in the length, idempotent, and only `\\n` is left of the control characters.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if _PLAIN.match(text):
        return text
    text = text.replace("\r\n", "\n")
    if any(introducer in text for introducer in _INTRODUCERS):
        text = _SEQUENCE.sub("", text)
    if not text.isascii():
        text = _MARKS.sub(r"\1", _INVISIBLE.sub("", text))
        text = _SURROGATE.sub(_byte, text)
    if _CONTROL.search(text):
        for control, picture in _PICTURES.items():
            text = text.replace(control, picture)
    return text


def _byte(match: re.Match[str]) -> str:
    """A byte that Python smuggled through as a lone surrogate."""
    code = ord(match.group())
    return f"\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"


def suspicious(text: str) -> list[Suspicious]:
    """Characters a reader would not see: worth a finding in a variable or a path."""
    return [
        Suspicious(place, unicodedata.name(character, f"U+{ord(character):04X}"))
        for place, character in enumerate(text)
        if _INVISIBLE.match(character) or (_CONTROL.match(character) and character != "\t")
    ]


def printable(text: str) -> bool:
    """Whether a word holds nothing but what is seen."""
    return not _CONTROL.search(text) and not _INVISIBLE.search(text) and "\n" not in text
