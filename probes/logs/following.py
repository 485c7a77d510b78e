"""A log that still grows: what is new in it since the last look."""

from __future__ import annotations

import os
from dataclasses import replace

from ddp_assist.probes.logs.scan import Hit, scanner
from ddp_assist.probes.logs.source import NotALog, plain

_AT_ONCE = 4 << 20
_HEAD = 256
_KEPT = 32 << 10
"""So much of what was looked at is looked at again, for what reaches over several lines."""


class Followed:
    """One file, looked at again and again. It may be cut, replaced or not be there yet.

    What stands before `start` is known already; lines are counted from there.
    """

    def __init__(self, path: str, start: int = 0) -> None:
        self._path = path
        self._place: tuple[int, int] | None = None
        self._start_again()
        self._offset = start

    def _start_again(self) -> None:
        self._offset = 0
        self._head = b""
        self._kept = b""
        self._line = 1
        self._open_line = b""
        self._told: set[tuple[str, int]] = set()

    def look(self, *, ended: bool = False) -> list[Hit]:
        """The lines that became known since the last look, with their numbers.

        A line without its end waits for it, until `ended` says that nobody will write it.
        """
        new = self._new_bytes()
        if not new and not ended:
            return []
        text = self._open_line + new
        whole = len(text) if ended else text.rfind(b"\n") + 1
        self._open_line = text[whole:]
        return self._known_in(plain(text[:whole]))

    def _new_bytes(self) -> bytes:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise NotALog(f"it can't be read: {error.strerror}") from None
        try:
            info = os.fstat(fd)
            place = (info.st_dev, info.st_ino)
            head = os.pread(fd, _HEAD, 0)
            # A file that was emptied and has grown again begins otherwise than it did.
            same = self._place in (None, place) and head.startswith(self._head)
            if not same or info.st_size < self._offset:
                self._start_again()
            self._place, self._head = place, head
            os.lseek(fd, self._offset, os.SEEK_SET)
            data = b""
            while block := os.read(fd, _AT_ONCE):
                data += block
                self._offset += len(block)
                if len(data) >= _AT_ONCE:
                    break
            return data
        except OSError as error:
            raise NotALog(f"it can't be read: {error.strerror}") from None
        finally:
            os.close(fd)

    def _known_in(self, text: bytes) -> list[Hit]:
        both = self._kept + text
        first = self._line
        found = []
        for hit in scanner().scan_bytes(both):
            at = replace(hit, line=first + hit.line - 1)
            if (at.signature.id, at.line) not in self._told:
                self._told.add((at.signature.id, at.line))
                found.append(at)
        cut = both.rfind(b"\n", 0, max(0, len(both) - _KEPT)) + 1
        self._line += both.count(b"\n", 0, cut)
        self._kept = both[cut:]
        self._told = {(id, line) for id, line in self._told if line >= self._line}
        return found
