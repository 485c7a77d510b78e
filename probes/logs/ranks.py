"""Lines taken apart: which rank, which host, when, and what was said; tracebacks put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

_BIG = 1_000_000  # more ranks than any job has: a number above it is no rank

_LABELS = (
    re.compile(r"\[(?P<how>rank|default|Rank )?(?P<rank>\d{1,7})\]: ?"),
    re.compile(r"\[\d+,(?P<rank>\d{1,7})\]<std(?:out|err)>: ?"),
    re.compile(r"(?P<rank>\d{1,7}): "),
    re.compile(r"\([A-Za-z_]\w*(?: rank=(?P<rank>\d{1,7}))? pid=\d+(?:, ip=(?P<host>[\w.:]+))?\) "),
    re.compile(r"(?P<host>[A-Za-z][\w.-]*\d): (?=\S)"),
)  # fmt: skip
_C10D = re.compile(r"\[?[IWEF](?P<month>\d\d)(?P<day>\d\d) (?P<time>\d\d:\d\d:\d\d(?:\.\d+)?)")
_ISO = re.compile(
    r"\[?(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[T_ ](?P<time>\d\d:\d\d:\d\d(?:[.,]\d+)?)"
)
_NCCL = re.compile(r"(?P<host>[\w.-]+):(?P<pid>\d+):(?P<tid>\d+) \[(?P<dev>\d+)\] ")
_RANK_INSIDE = re.compile(r"\[(?:PG [^\]]*)?Rank (?P<rank>\d{1,7})\]|\[default_rank (\d{1,7})\]")
_SPAWNED = re.compile(r"-- Process (?P<rank>\d{1,7}) terminated with the following error:")

_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s+File "(?P<path>[^"]*)", line (?P<line>\d{1,9})(?:, in (?P<where>.*))?')
_EXCEPTION = re.compile(r"(?P<name>[A-Za-z_][\w.]*)(?:: ?(?P<message>.*))?$")
_LINK = ("During handling of the above", "The above exception was the direct")
_MOST_LINES = 2_000


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


@dataclass(slots=True)
class Traceback:
    """An exception as one rank printed it; `cause` is the one it came from."""

    first: Line
    frames: list[tuple[str, int, str]] = field(default_factory=list)
    exception: str = ""
    message: str = ""
    last: Line | None = None
    cause: Traceback | None = None

    @property
    def rank(self) -> int | None:
        return self.first.rank

    @property
    def root(self) -> Traceback:
        """Where the chain of exceptions began."""
        return self.cause.root if self.cause else self

    @property
    def at(self) -> Line:
        return self.last or self.first


def taken_apart(file: str, number: int, text: str, rank: int | None = None) -> Line:
    """A line of a file; `rank` is what the file's name says; a label in the line knows better."""
    line = Line(file, number, text.rstrip("\r"), rank)
    for _ in range(3):
        label = next(filter(None, (pattern.match(line.text) for pattern in _LABELS)), None)
        if label is None:
            break
        line = _relabelled(line, label)
    inside = _RANK_INSIDE.search(line.text, 0, 400)
    if inside and line.rank is None:
        line = replace(line, rank=_number(inside.group(1) or inside.group(2)))
    if nccl := _NCCL.search(line.text, 0, 200):
        line = replace(line, host=line.host or nccl["host"])
    return replace(line, when=_when(line.text))


def _relabelled(line: Line, label: re.Match[str]) -> Line:
    found = label.groupdict()
    rank = _number(found.get("rank"))
    return replace(
        line,
        text=line.text[label.end() :],
        rank=rank if rank is not None else line.rank,
        host=found.get("host") or line.host,
    )


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


def tracebacks(lines: Iterable[Line]) -> Iterator[Traceback]:
    """Tracebacks in the order in which they ended, ranks kept apart however they interleave."""
    open_: dict[tuple[str, int | None, str | None], list[Traceback]] = {}
    ended: dict[tuple[str, int | None, str | None], Traceback] = {}
    linked: set[tuple[str, int | None, str | None]] = set()
    spawned: int | None = None
    for line in lines:
        who = (line.file, line.rank, line.host)
        text = line.text
        stack = open_.setdefault(who, [])
        if found := _SPAWNED.search(text):
            spawned = _number(found["rank"])
        elif text.rstrip().endswith(_TRACEBACK) or text.startswith(_TRACEBACK):
            first = line if spawned is None else replace(line, rank=spawned)
            spawned = None
            one = Traceback(first)
            if who in linked and who in ended:
                one.cause = ended[who]
                linked.discard(who)
            stack.append(one)
        elif text.startswith(_LINK):
            linked.add(who)
        elif stack:
            top = stack[-1]
            if frame := _FRAME.match(text):
                top.frames.append((frame["path"], int(frame["line"]), frame["where"] or ""))
            elif not text.startswith((" ", "\t")) and (said := _EXCEPTION.match(text)):
                top.exception, top.message = said["name"], (said["message"] or "").strip()
                top.last = line
                ended[who] = stack.pop()
                yield top
            elif line.number - top.first.number > _MOST_LINES:
                stack.pop()
