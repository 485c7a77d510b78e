"""Lines taken apart: which rank, which host, when, and what was said; tracebacks put together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

_BIG = 1_000_000  # more ranks than any job has: a number above it is no rank

_LABELS = (
    re.compile(r"\[(?P<how>rank|default|Rank )?(?P<rank>\d{1,7})\]: ?"),
    re.compile(
        r"\[\d+,(?:mpirank:)?(?P<rank>\d{1,7})(?:,(?P<host>[\w.-]{1,64}))?\]<std(?:out|err)>: ?"
    ),
    re.compile(r"(?P<rank>\d{1,7}): "),
    re.compile(r"\([A-Za-z_]\w*(?: rank=(?P<rank>\d{1,7}))? pid=\d+(?:, ip=(?P<host>[\w.:]+))?\) "),
    re.compile(r"(?P<host>[A-Za-z][\w.-]*\d): (?=\S)"),
    re.compile(r"(?P<host>[A-Za-z][\w.-]{0,62}) {1,40}\| "),
)  # fmt: skip
# A time in front of the whole line, as collectors of logs and Python's logging write it.
_STAMP = re.compile(
    r"(?:> ?)?\[?\d{4}-\d\d-\d\d[T_ ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"(?:[ \t]std(?:out|err) [FP](?=[ \t]))?(?:[ \t]|,(?=\"))"
)
_QUOTED = re.compile(r"> ?(?![> ]?>)")
_C10D = re.compile(r"\[?[IWEF](?P<month>\d\d)(?P<day>\d\d) (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)")
_ISO = re.compile(
    r"\[?(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[T_ ](?P<time>\d\d:\d\d:\d\d(?:[.,]\d+)?)"
)
_NCCL = re.compile(r"(?P<host>[\w.-]+):(?P<pid>\d+):(?P<tid>\d+) \[(?P<dev>\d+)\] ")
_RANK_INSIDE = re.compile(r"\[(?:PG [^\]]*)?Rank (?P<rank>\d{1,7})\]|\[default_rank (\d{1,7})\]")
_SPAWNED = re.compile(r"-- Process (?P<rank>\d{1,7}) terminated with the following error:")

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s+File "(?P<path>[^"]*)", line (?P<line>\d{1,9})(?:, in (?P<where>.*))?')
# A bare word ends a traceback only if it is called like an exception; "INFO: ..." never does.
_EXCEPTION = re.compile(
    r"(?!(?:INFO|DEBUG|NOTE|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b)"
    r"(?:(?P<bare>(?:[\w]+\.)+\w+|\w*(?:Error|Exception|Exit|Interrupt|Iteration|Timeout))$|"
    r"(?P<name>[A-Za-z_][\w.]*): ?(?P<message>.*)$)"
)
_LINK = ("During handling of the above", "The above exception was the direct")
_MOST_LINES = 2_000
_A_MESSAGE = 8
"""So many lines after an exception may still be its message."""
_LAST_LINE = re.compile(
    r"(?P<bare>(?!))?(?P<name>(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)): (?P<message>.*)$"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log, labels and time taken off."""

    file: str
    number: int
    text: str
    rank: int | None = None
    host: str | None = None
    when: float | None = None
    """Seconds since New Year by the writer's clock; None where it names no possible time."""
    labelled: bool = False
    """Whether torch's own label of a rank stands before it."""


@dataclass(slots=True)
class Traceback:
    """An exception as one rank printed it; `cause` is the one it came from."""

    first: Line
    frames: list[tuple[str, int, str]] = field(default_factory=list)
    exception: str = ""
    message: str = ""
    last: Line | None = None
    cause: Traceback | None = None
    ignored: bool = False
    """Python itself says that it goes on without minding it."""

    @property
    def rank(self) -> int | None:
        return self.first.rank

    @property
    def root(self) -> Traceback:
        """Where the chain of exceptions began."""
        one = self
        while one.cause and one.cause.exception:
            one = one.cause
        return one

    @property
    def at(self) -> Line:
        return self.last or self.first


def taken_apart(file: str, number: int, text: str, rank: int | None = None) -> Line:
    """A line of a file; `rank` is what the file's name says; a label in the line knows better."""
    text = text.rstrip("\r")
    when = None
    if quoted := _QUOTED.match(text):
        text = text[quoted.end() :]
    if stamp := _STAMP.match(text):
        when, text = _when(stamp.group()), text[stamp.end() :]
    host: str | None = None
    labelled = False
    for _ in range(3):
        for pattern in _LABELS:
            if label := pattern.match(text):
                break
        else:
            break
        found = label.groupdict()
        if (told := _number(found.get("rank"))) is not None:
            rank = told
        host = found.get("host") or host
        labelled = labelled or found.get("how") == "rank"
        text = text[label.end() :]
    if rank is None and (inside := _RANK_INSIDE.search(text, 0, 400)):
        rank = _number(inside.group(1) or inside.group(2))
    if host is None and " [" in text and (nccl := _NCCL.search(text, 0, 200)):
        host = nccl["host"]
    when = _when(text) if when is None else when
    return Line(file, number, text, rank, host, when, labelled)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and int(text) < _BIG else None


def _when(text: str) -> float | None:
    match = _C10D.match(text) or _ISO.search(text, 0, 60)
    if match is None:
        return None
    month, day = int(match["month"]), int(match["day"])
    hour, minute, second = match["time"].replace(",", ".").split(":")
    if not (1 <= month <= 12 and 1 <= day <= 31 and int(hour) < 24 and int(minute) < 60):
        return None
    if float(second) >= 61:
        return None
    return ((month * 31 + day) * 24 + int(hour)) * 3600.0 + int(minute) * 60 + float(second)


_Who = tuple[str, int | None, str | None]
_SYNTAX = ("SyntaxError", "IndentationError", "TabError")


def tracebacks(lines: Iterable[Line]) -> list[Traceback]:
    """Tracebacks in the order in which they ended, ranks kept apart however they interleave."""
    reader = _Tracebacks()
    for line in lines:
        reader.feed(line)
    return reader.ended


class _Tracebacks:
    """What is open on each rank, and what has ended."""

    def __init__(self) -> None:
        self.ended: list[Traceback] = []
        self._open: dict[_Who, list[Traceback]] = {}
        self._last: dict[_Who, Traceback] = {}
        self._place: dict[_Who, tuple[str, int, str]] = {}
        self._linked: set[_Who] = set()
        self._spawned: int | None = None
        self._ignored: set[_Who] = set()

    def feed(self, line: Line) -> None:
        who = (line.file, line.rank, line.host)
        text = line.text
        stack = self._open.setdefault(who, [])
        if found := _SPAWNED.search(text):
            self._spawned = _number(found["rank"])
        elif text.rstrip().endswith(_TRACEBACK):
            stack.append(self._begun(line, who))
        elif text.startswith(_LINK):
            self._linked.add(who)
        elif text.startswith("Exception ignored in"):
            self._ignored.add(who)
        elif frame := _FRAME.match(text):
            self._place[who] = (frame["path"], int(frame["line"]), frame["where"] or "")
            if stack:
                stack[-1].frames.append(self._place[who])
        elif stack and not text.startswith((" ", "\t")) and (said := _EXCEPTION.match(text)):
            self._end(stack.pop(), line, said, who)
        elif stack and line.number - stack[-1].first.number > _MOST_LINES:
            stack.pop()
        elif text.startswith(_SYNTAX) and who in self._place and (said := _EXCEPTION.match(text)):
            # Python prints no header for a script that it can't even compile.
            self._end(Traceback(line, [self._place[who]]), line, said, who)
        elif text.strip() and not stack:
            last = self._last.get(who)
            near = last is not None and line.number - last.at.number < _A_MESSAGE
            if last is not None and near:
                last.message = last.message or text.strip()
            elif line.labelled and (said := _LAST_LINE.match(text)):
                # Of a rank's traceback often only the last line is pasted.
                self._end(Traceback(line), line, said, who)

    def _begun(self, line: Line, who: _Who) -> Traceback:
        first = line if self._spawned is None else replace(line, rank=self._spawned)
        self._spawned = None
        one = Traceback(first, ignored=who in self._ignored)
        self._ignored.discard(who)
        earlier = self._last.get(who)
        if earlier and who in self._linked:
            one.cause = earlier
            self._linked.discard(who)
        elif earlier and "Original " in line.text:
            # A DataLoader's parent prints its own error first, and the worker's below it.
            earlier.cause = one
        return one

    def _end(self, one: Traceback, line: Line, said: re.Match[str], who: _Who) -> None:
        one.exception = said["name"] or said["bare"]
        one.message = (said["message"] or "").strip()
        one.last = line
        self._last[who] = one
        self.ended.append(one)
