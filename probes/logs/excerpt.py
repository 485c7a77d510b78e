"""What is kept of a log for its story: all of a small one, the telling lines of a big one."""

from __future__ import annotations

from collections.abc import Iterator

_ENTIRE = 2 << 20
_AROUND = 12_288
_TAIL = 128 << 10

TELLING = (
    r"Traceback \(most recent call last\):",
    r"ChildFailedError",
    r"Failures:",
    r"Root Cause",
    r"failed \(exitcode:",
    r"terminated with (?:signal|exit code)",
    r"terminated with the following error",
    r"Segmentation fault",
    r"Bus error",
    r"oom[-_]kill",
    r"Out of memory: Kill",
    r"closing signal",
    r"death signal",
    r"DUE TO ",
    r"Killed",
)


class Excerpt:
    """Pieces of a log with the number of their first line, within a budget of bytes."""

    def __init__(self, budget: int = _ENTIRE) -> None:
        self._budget = budget
        self._pieces: list[tuple[int, bytes]] = []
        self._until = 0
        self._tail: tuple[int, bytes] = (0, b"")
        self._entire = True

    def block(self, data: bytes, start: int, end: int, line: int) -> None:
        """Lines that were just looked at, in order."""
        if self._entire and end - start <= self._budget:
            self._take(data[start:end], line)
            return
        self._entire = False
        cut = data.find(b"\n", max(start, end - _TAIL), end) + 1
        self._tail = (line + data.count(b"\n", start, cut), data[cut:end]) if cut else self._tail

    def near(self, data: bytes, begin: int, line: int) -> None:
        """A telling line, with what follows it."""
        if self._entire or line < self._until or self._budget <= 0:
            return
        self._take(data[begin : begin + _AROUND], line)

    def _take(self, piece: bytes, line: int) -> None:
        self._pieces.append((line, piece))
        self._budget -= len(piece)
        self._until = line + piece.count(b"\n")

    @property
    def any_text(self) -> bool:
        return any(piece.strip() for _, piece in [*self._pieces, self._tail])

    def mentions(self, *words: bytes) -> bool:
        return any(word in piece for _, piece in [*self._pieces, self._tail] for word in words)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Numbered lines; of a line that a CR rewrote, what it showed last."""
        shown = 0
        for first, piece in [*self._pieces, self._tail]:
            for offset, line in enumerate(piece.split(b"\n")):
                if first + offset > shown and line.strip():
                    shown = first + offset
                    last = line.rstrip(b"\r").rpartition(b"\r")[2][:16_384]
                    yield shown, last.decode("utf-8", "backslashreplace")
