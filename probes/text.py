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
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[\n -~]*\Z")
_MARKS = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{3})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)


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
    if "\x1b" in text or any("\x80" <= c <= "\x9f" for c in set(text)):
        text = _SEQUENCE.sub("", text)
    text = _INVISIBLE.sub("", text)
    text = _MARKS.sub(r"\1", text)
    return _CONTROL.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code == 9:
        return "    "
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if code >= 0xD800:
        return f"\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else "\ufffd"
    return f"\\x{code:02x}"


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
