"""Logs that are records: JSON lines, arrays, exported tables, of which the messages are the log."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ddp_assist.probes.logs import plain_json
from ddp_assist.probes.logs.parted import parted

# Docker's and containerd's files, CloudWatch, Google's and Datadog's exports, journald, Loki.
_MESSAGE = ("message", "msg", "log", "textPayload", "text", "@message", "MESSAGE", "line", "body")
_RANK = ("rank", "global_rank")
_BEGINS = re.compile(rb"\s*(?:\[\s*)?\{")
_SAYS = re.compile(rb'"(?:' + "|".join(_MESSAGE).encode() + rb')"\s*:\s*"')
_HEADER = re.compile(
    rb'(?i)(?:"?[\w@. -]{1,40}"?,){0,30}"?@?(?:message|textpayload|content)"?(?:,|\r?\n)'
)
_LONGEST = 1 << 20


def begins(head: bytes) -> bool:
    in_json = bool(_BEGINS.match(head) and _SAYS.search(head))
    return in_json or (b"," in head.partition(b"\n")[0] and bool(_HEADER.match(head)))


def texts(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The messages, a line each where they have one; what is no record stays as it is."""
    each = iter(blocks)
    first = next(each, b"")
    told = _in_json if _BEGINS.match(first) else _in_table
    yield from told(_again(first, each))


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _in_json(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    whole = True
    for block in blocks:
        rest += block
        # Printed for people, over many lines, it can only be read as a whole.
        if whole and not _one_a_line(rest) and len(rest) <= plain_json.MOST_BYTES:
            continue
        whole = False
        cut = rest.rfind(b"\n") + 1
        if cut or len(rest) > _LONGEST:
            cut = cut or len(rest)
            yield b"".join(map(_said, rest[:cut].splitlines(keepends=True)))
            rest = rest[cut:]
    if rest:
        yield parted(_said(rest)) if whole else _said(rest)


def _one_a_line(text: bytes) -> bool:
    first, newline, _ = text.lstrip().partition(b"\n")
    return bool(newline) and first.rstrip().endswith(b"}") and first.startswith(b"{")


def _said(record: bytes) -> bytes:
    bare = record.strip()
    if not bare.startswith((b"{", b"[")):
        return record
    try:
        found = list(_messages(plain_json.load(bare)))
    except plain_json.NotPlain:
        return record
    return "".join(f"{text}\n" for text in found).encode("utf-8", "backslashreplace") or record


def _messages(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _messages(each)
    if not isinstance(value, dict):
        return
    rank = next((value[key] for key in _RANK if type(value.get(key)) is int), None)
    for key, inside in value.items():
        if key in _MESSAGE and isinstance(inside, str):
            text = inside.rstrip("\n")
            label = "" if rank is None or text.startswith("[rank") else f"[rank{rank}]: "
            yield "\n".join(label + line for line in text.split("\n"))
        else:
            yield from _messages(inside)


def _in_table(blocks: Iterator[bytes]) -> Iterator[bytes]:
    rows = csv.reader(_lines(blocks))
    try:
        header = [name.strip().lstrip("@").lower() for name in next(rows, [])]
        column = next(
            n for n, name in enumerate(header) if name in ("message", "textpayload", "content")
        )
        for row in rows:
            cell = row[min(column, len(row) - 1)] if row else ""
            yield (cell.rstrip("\n") + "\n").encode("utf-8", "backslashreplace")
    except csv.Error as error:
        yield f"(the table can't be read further: {error})\n".encode()


def _lines(blocks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for block in blocks:
        rest += block
        cut = rest.rfind(b"\n") + 1
        yield from rest[:cut].decode("utf-8", "backslashreplace").splitlines(keepends=True)
        rest = rest[cut:]
    if rest:
        yield rest.decode("utf-8", "backslashreplace")
