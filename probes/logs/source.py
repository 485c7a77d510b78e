"""Where a log comes from: a file, a folder of ranks, standard input or a paste, read in blocks."""

from __future__ import annotations

import codecs
import os
import re
import stat
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ddp_assist.probes.logs import error_file, plain_json, records
from ddp_assist.probes.logs.engine import compiled
from ddp_assist.probes.logs.parted import parted

Kind = Literal["log", "pickle"]

BLOCK = 1 << 20
AFFORDABLE = 32 << 30
"""A larger file is read at both ends only, and the report says how much was left out."""
_END = 1 << 30
_MOST_FILES = 4_096
_PIECE = 64 << 10
_BOMB_SIZE, _BOMB_RATIO = 32 << 20, 500

_MAGIC = (
    (b"\x7fELF", "a program (ELF)"),
    (b"\x89PNG", "an image (PNG)"),
    (b"\xff\xd8\xff", "an image (JPEG)"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or a torch checkpoint"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
)
# The zero bytes in the order of UTF-32 before UTF-16: the mark of one begins with the other's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)  # fmt: skip
_ESCAPES = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\n\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?"
)
_INVISIBLE = re.compile(rb"\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf")
_ANY_INVISIBLE = compiled(_INVISIBLE.pattern.decode(), captures=False)
# What a web page or a word processor makes of quotation marks, blanks and brackets.
_TYPESET = {
    b"\xe2\x80\x98": b"'", b"\xe2\x80\x99": b"'", b"\xe2\x80\x9c": b'"', b"\xe2\x80\x9d": b'"',
    b"\xc2\xa0": b" ", b"\xef\xbc\x9a": b": ",
    b"&#39;": b"'", b"&#x27;": b"'", b"&apos;": b"'", b"&quot;": b'"', b"&lt;": b"<",
    b"&gt;": b">", b"&amp;": b"&", b"&nbsp;": b" ",
}  # fmt: skip
_ANY_TYPESET = re.compile(b"|".join(map(re.escape, _TYPESET)))
_TO_SET = compiled(
    "&(?:#39|#x27|apos|quot|lt|gt|amp|nbsp);|"
    r"\xe2\x80[\x98\x99\x9c\x9d]|\xc2\xa0|\xef\xbc\x9a",
    captures=False,
)
_RANK_IN_NAME = re.compile(
    r"(?:^|/)(\d{1,6})/(?:stdout|stderr)(?:\.log)?$|rank[_-]?(\d{1,6})(?=\D|$)|"
    r"[_-](\d{1,4})\.(?:out|err|log|txt)$|(?:^|/)(\d{1,4})\.(?:out|err|log|txt)$",
    re.IGNORECASE,
)
# The number in these is a job's or a process's: Slurm's own name, and Ray's.
_NO_RANK_IN_NAME = re.compile(
    r"(?:slurm-\d+|(?:worker|raylet|gcs_server|python-core-\w+|job-driver)-[\w-]*\d)"
    r"\.(?:out|err|log)$"
)
# Ray's agents and core libraries keep books in the same folder, of which none is a rank's.
_RAY = "raylet.out"
_SAID_IN_RAY = re.compile(r"(?:worker-|job-driver-|raylet\.|gcs_server\.)")
_TORCHRUN_STREAM = re.compile(r"/\d+/(?:stdout|stderr)\.log$|/\d+/error\.json$")


class NotALog(Exception):
    """The source can't be read as a log; the message is a sentence for the user."""


@dataclass(slots=True)
class Source:
    """One log. `notes` fills while it is read: what was skipped, cut or broken."""

    name: str
    raw: Callable[[], Iterator[bytes]]
    rank: int | None = None
    size: int | None = None
    kind: Kind = "log"
    notes: list[str] = field(default_factory=list)

    def blocks(self) -> Iterator[bytes]:
        """The text as UTF-8 in blocks, without what only steers a terminal."""
        return (plain(block) for block in _whole_lines(self._text()))

    def _text(self) -> Iterator[bytes]:
        blocks = _unpacked(self, self.raw())
        first = next(blocks, b"")
        while len(first) < 512 and (more := next(blocks, b"")):
            first += more
        if not first:
            raise NotALog("it is empty")
        if what := _other_than_text(first):
            raise NotALog(f"it is {what}, not a log")
        if error_file.begins(first):
            text, trouble = error_file.as_log(_joined(first, blocks))
            self.notes += [trouble] if trouble else []
            yield text
            return
        if records.begins(first):
            self.notes.append("these are records: their messages were read, and lines are theirs")
            yield from records.texts(_chain(first, blocks))
            return
        encoding = _encoding(first)
        if encoding == "utf-8":
            second = next(blocks, b"")
            yield first if second else parted(first)
            yield second
            yield from blocks
            return
        decoder = codecs.getincrementaldecoder(encoding)("backslashreplace")
        for block in _chain(first, blocks):
            yield decoder.decode(block).encode("utf-8", "backslashreplace")


def _joined(first: bytes, rest: Iterable[bytes]) -> bytes:
    data = bytearray(first)
    for block in rest:
        data += block
        if len(data) > plain_json.MOST_BYTES:
            break
    return bytes(data)


def pasted(name: str, data: bytes) -> Source:
    return Source(name, lambda: iter((data,)), size=len(data), kind=_kind(data))


def sources(item: str) -> list[Source]:
    """The logs that a path, a folder of ranks or `-` stands for; raises NotALog."""
    if item == "-":
        return [Source("standard input", lambda: _read(0, None))]
    path = Path(item)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _of_folder(path)
    except (OSError, ValueError) as error:
        raise NotALog(_why(error)) from None
    return [_of_file(path)]


def _of_folder(folder: Path) -> list[Source]:
    found: list[Source] = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if _RAY in names:
            folders[:] = []
            names = [name for name in names if _SAID_IN_RAY.match(name)]
        for name in sorted(names):
            path = Path(base, name)
            if name.startswith(".") or len(found) >= _MOST_FILES or not path.is_file():
                continue
            source = _of_file(path)
            match = _RANK_IN_NAME.search(str(path.relative_to(folder)))
            if match and not _NO_RANK_IN_NAME.search(name):
                source.rank = int(next(g for g in match.groups() if g is not None))
            found.append(source)
    if not found:
        raise NotALog("the folder holds no file")
    return found


def _of_file(path: Path) -> Source:
    try:
        # Never wait for the writer of a FIFO, and never follow a name to a device.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise NotALog(_why(error)) from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise NotALog("it is no regular file")
        head = os.read(fd, 4096)
    except OSError as error:
        raise NotALog(_why(error)) from None
    finally:
        os.close(fd)
    found = _TORCHRUN_STREAM.search(str(path))
    rank = int(path.parent.name) if found else None
    source = Source(str(path), lambda: iter(()), rank, info.st_size, _kind(head))
    source.raw = lambda: _read_file(path, source)
    return source


def _read_file(path: Path, source: Source) -> Iterator[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise NotALog(_why(error)) from None
    try:
        size = os.fstat(fd).st_size
        if size <= AFFORDABLE:
            yield from _read(fd, None)
            return
        yield from _read(fd, _END)
        os.lseek(fd, size - _END, os.SEEK_SET)
        source.notes.append(f"{size - 2 * _END} bytes in the middle were skipped")
        yield b"\n"
        yield from _read(fd, _END)
    finally:
        os.close(fd)


def _read(fd: int, most: int | None) -> Iterator[bytes]:
    left = most
    while left is None or left > 0:
        try:
            block = os.read(fd, BLOCK if left is None else min(BLOCK, left))
        except OSError as error:
            raise NotALog(_why(error)) from None
        if not block:
            return
        left = None if left is None else left - len(block)
        yield block


def _unpacked(source: Source, blocks: Iterator[bytes]) -> Iterator[bytes]:
    first = next(blocks, b"")
    if first.startswith(b"\x1f\x8b"):
        yield from _gunzipped(source, _chain(first, blocks))
    elif first.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _unzstd(source)
    elif first:
        yield from _chain(first, blocks)


def _gunzipped(source: Source, blocks: Iterable[bytes]) -> Iterator[bytes]:
    taken = given = 0
    fed = False
    stream = zlib.decompressobj(wbits=31)
    for block in _pieces(blocks):
        taken += len(block)
        while block:
            try:
                text = stream.decompress(block, BLOCK)
            except zlib.error as error:
                source.notes.append(f"the gzip data is broken after {given} bytes ({error})")
                return
            given += len(text)
            fed = not stream.eof
            if text:
                yield text
            if given > _BOMB_SIZE and given > _BOMB_RATIO * taken:
                source.notes.append(f"stopped after {given} bytes: {taken} bytes grew too much")
                return
            block = stream.unconsumed_tail
            if stream.eof:
                block = stream.unused_data
                stream = zlib.decompressobj(wbits=31)
    if fed:
        source.notes.append("the gzip file is truncated")


def _pieces(blocks: Iterable[bytes]) -> Iterator[bytes]:
    # Small ones, so that the size of what grew is held against what was really taken.
    for block in blocks:
        yield from (block[at : at + _PIECE] for at in range(0, len(block), _PIECE))


def _unzstd(source: Source) -> Iterator[bytes]:
    program = next((p for p in ("/usr/bin/zstd", "/usr/local/bin/zstd", "/bin/zstd")
                    if os.access(p, os.X_OK)), None)  # fmt: skip
    if program is None:
        raise NotALog("it is packed with zstd, and no zstd program is here; unpack it first")
    if not os.path.isfile(source.name):
        raise NotALog("it is packed with zstd; give it as a file")
    command = [program, "-dcq", "--", os.path.abspath(source.name)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        try:
            given = 0
            while text := child.stdout.read(BLOCK):
                given += len(text)
                yield text
                if given > _BOMB_SIZE and given > _BOMB_RATIO * (source.size or 1):
                    source.notes.append(f"stopped after {given} bytes: the file grew too much")
                    return
        finally:
            child.kill()
    if child.returncode not in (0, -9):
        source.notes.append("the zstd file is truncated or broken")


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    # A sequence that steers the terminal must not be cut in two.
    rest = b""
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if cut == 0 and len(rest) < BLOCK:
            rest += block
            continue
        cut = cut or len(block)
        yield rest + block[:cut]
        rest = block[cut:]
    if rest:
        yield rest


def plain(block: bytes) -> bytes:
    if b"\x1b" in block:
        block = _ESCAPES.sub(b"", block)
    if b"\x00" in block:
        block = block.replace(b"\x00", b"")
    if not block.isascii() and _ANY_INVISIBLE.search(block):
        block = _INVISIBLE.sub(b"", block)
    if (b"&" in block or not block.isascii()) and _TO_SET.search(block):
        block = _ANY_TYPESET.sub(lambda found: _TYPESET[found.group()], block)
    return block


def _kind(head: bytes) -> Kind:
    return "pickle" if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5 else "log"


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    head = head[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half >= 8 and even > 0.4 * half and odd < 0.1 * half:
        return "utf-16-be"
    if half >= 8 and odd > 0.4 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-8"


def _other_than_text(head: bytes) -> str:
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    if _kind(head) == "pickle":
        return "a Python pickle"
    sample = head[:4096]
    strange = sum(byte < 32 and byte not in b"\0\b\t\n\v\f\r\x1b" for byte in sample)
    return "binary data" if strange > 0.1 * len(sample) else ""


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"it can't be read: {error.strerror}"
    return "it can't be read: the name is not a path"
