"""A paste whose line ends or indentation were lost: taken apart where programs begin a new line."""

from __future__ import annotations

import re
import textwrap

LARGEST = 64 << 10
_SHORTEST = 60
# What begins a line: tracebacks and their errors, labels, times, rows of tables, announcements.
_BEGINS = (
    rb"Traceback \(most recent call last\):|During handling of the above|"
    rb"The above exception was|Exception raised from \w|frame #\d+: |"
    rb"\[(?:rank|default)\d+\]:|\[\d+,[^\]\s]{1,80}\]<std|\[[EWIF] ?(?:\d{3,4} |\w+\.cpp)|"
    rb"[EWIF]\d{4} |[\w.-]+:\d+:\d+ \[-?\d+\] |srun: |slurmstepd: |"
    rb"-- Process \d+ terminated|Failures:|Root Cause|\|? {1,4}\d+ +N/A +N/A |"
    rb"(?i:initializing (?:ddp|distributed): )GLOBAL_RANK|LOCAL_RANK: \d+ - |[GT]PU available: |"
    rb"(?:time|host|rank|exitcode|error_file|traceback) {0,6}: |"
    rb"(?:(?:[A-Za-z_]\w*\.)*[A-Z]|nccl[A-Z])\w*(?:Error|Exception)(?:: |\s*$)"
)
_EDGE = re.compile(rb"(?<=\S)(?<![\]>]:)\s+(?=" + _BEGINS + rb")")
_FRAME = re.compile(rb'(?<=[^\s:>])\s+(?=File "[^"]{1,300}", line \d)')
_CODE = re.compile(rb'(File "[^"]{1,300}", line \d+(?:, in [\w<>.]+)?)[ \t]+(?=\S)')
_WINDOWS = re.compile(rb"[A-Za-z]:\\\w")
_HEADING = re.compile(r"\S{1,40}: ?[|>][-+]?\s*$|```\w*\s*$|\S*\s*$")


def parted(text: bytes) -> bytes:
    """The text with its lines; what has lines of its own, is short or is huge stays as it is."""
    bare = text.strip()
    if not _SHORTEST <= len(bare) <= LARGEST:
        return text
    if b"\n" in bare or b"\r" in bare:
        return _moved_left(text)
    if b"\\n" in bare and not _WINDOWS.search(bare):
        bare = bare.replace(b"\\n", b"\n").replace(b'\\"', b'"')
    bare = _EDGE.sub(b"\n", bare)
    return _CODE.sub(rb"\1\n    ", _FRAME.sub(b"\n  ", bare)) + b"\n"


def _moved_left(text: bytes) -> bytes:
    """All of it stood to the right: quoted in a document, or under a key of YAML."""
    first, newline, rest = text.decode("utf-8", "backslashreplace").partition("\n")
    if not rest.startswith("  ") or not (_HEADING.match(first) or first.startswith("  ")):
        return text
    head, body = (first + newline, rest) if _HEADING.match(first) else ("", first + newline + rest)
    return (head + textwrap.dedent(body)).encode("utf-8", "backslashreplace")
