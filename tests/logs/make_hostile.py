"""Logs and dumps that mean harm, made here: each with what a reader must say of it."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from dataclasses import dataclass

ERROR = b"RuntimeError: boom: EADDRINUSE, message: address already in use"


@dataclass(frozen=True)
class Sample:
    name: str
    data: bytes
    line: int | None = None
    """Where the planted error is, or None where nothing may be found."""
    refused: str = ""


def samples() -> list[Sample]:
    text = b"starting\n" + ERROR + b"\nbye\n"
    coloured = b"\x1b[31mwarm\x1b[0m\nRuntimeError: EADDR\x1b[1mINUSE, mes\x1b[0msage\n"
    return [
        Sample("colours", coloured, 2),
        Sample("clipboard", b"\x1b]52;c;cm0gLXJm\x07x\n" + ERROR + b"\n", 2),
        Sample("open-title", b"\x1b]0;never closed\n" + ERROR + b"\n", 2),
        Sample("c1", b"\xc2\x9b31m\x9d0;t\x9c\n" + ERROR + b"\n", 2),
        Sample("nul", b"\0" * 700 + b"\n" + ERROR.replace(b"EADDR", b"EA\0DDR") + b"\n", 2),
        Sample("bad-utf8", b"\xff\xfe\xc3( \xe2\x82\n".replace(b"\xff\xfe", b"\xfe") + ERROR, 2),
        Sample("crlf", text.replace(b"\n", b"\r\n"), 2),
        Sample("bar", b"\r".join(b"%d%%" % n for n in range(5000)) + b"\r" + ERROR + b"\n", 1),
        Sample("utf8-mark", b"\xef\xbb\xbf" + ERROR + b"\n", 1),
        Sample("utf16", text.decode().encode("utf-16"), 2),
        Sample("utf16-be-unmarked", text.decode().encode("utf-16-be"), 2),
        Sample("utf32", text.decode().encode("utf-32"), 2),
        Sample(
            "bidi", "‮drow\u200b\n".encode() + ERROR.replace(b"EADDR", "EA\u200bDDR".encode()), 2
        ),
        Sample("long-line", b"x" * 3_000_000 + ERROR + b"y" * 3_000_000 + b"\n", 1),
        Sample("no-line-end", ERROR, 1),
        Sample("gz", gzip.compress(text), 2),
        Sample("gz-cut", gzip.compress(b"a\n" + ERROR + b"\n" + bytes(range(256)) * 900)[:-90], 2),
        Sample("gz-bomb", gzip.compress(b"A" * (80 << 20), 9)),
        Sample("line-ends", b"\n" * 40_000),
        Sample("elf", b"\x7fELF\x02\x01\x01" + bytes(600), refused="ELF"),
        Sample("png", b"\x89PNG\r\n\x1a\n" + bytes(600), refused="PNG"),
        Sample("zip", _zip(), refused="zip"),
        Sample("noise", bytes(range(32)) * 64, refused="binary"),
        Sample("empty", b"", refused="empty"),
        Sample("bait", b"".join(b"a" * n + b"!\n" for n in range(0, 20_000, 400))),
        Sample("numbers", b"[rank-1]: x\nrank: " + b"9" * 5000 + b"\n[rank99999999999]: y\n"),
        Sample("clocks", b"[E1332 25:61:61.9 x.cpp:1] a\n9999-99-99 99:99:99 b\n" + ERROR, 3),
        Sample("markup", b"[@click=app.quit]x[/] [/] [[ {0} %s {{7*7}}\n"),
        Sample("error-file", b'{"message": {"message": null, "extraInfo": {"py_callstack": [1]}}}'),
    ]


def _zip() -> bytes:
    import zipfile

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("../../out/data.pkl", b"x")
    return held.getvalue()


class _Runs:
    """Would open a file if anybody unpickled it."""

    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("DDP_ASSIST_EXECUTED", "w"))


def pickles() -> dict[str, bytes]:
    endless: list[object] = []
    endless.append(endless)
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    shared: list[object] = [1]
    for _ in range(40):
        shared = [shared, shared]
    plain = pickle.dumps({"version": "2.10", "entries": []}, 2)
    return {
        "global-2": pickle.dumps(_Runs(), 2),
        "global-4": pickle.dumps(_Runs(), 4),
        "endless": pickle.dumps(endless, 2),
        "deep": pickle.dumps(deep, 2),
        "doubling": pickle.dumps(shared, 2),
        "cut": plain[:-9],
        "length": b"\x80\x02X\xff\xff\xff\x7fab.",
        "long": b"\x80\x02\x8b" + struct.pack("<i", -5) + b".",
        "big-number": pickle.dumps(1 << 4000, 2),
        "persistent": b"\x80\x02K\x01Q.",
        "extension": b"\x80\x02\x82\x01.",
        "no-stop": b"\x80\x02}",
        "stack": b"\x80\x02a.",
        "two": b"\x80\x02K\x01K\x02.",
    }
