"""All logs of a target read once: what was recognised in each, and the lines its story needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from ddp_assist.probes.logs.excerpt import Excerpt
from ddp_assist.probes.logs.ranks import Line, taken_apart
from ddp_assist.probes.logs.scan import Hit, scanner
from ddp_assist.probes.logs.source import NotALog, Source, pasted, sources
from ddp_assist.probes.logs.unwrapped import LARGEST, unwrapped

_KEPT = 16 << 20

@dataclass(slots=True)
class Log:
    """One file as it was read."""

    name: str
    rank: int | None = None
    hits: dict[str, Hit] = field(default_factory=dict)
    """The first hit of each signature, in the order of the lines."""
    counts: dict[str, int] = field(default_factory=dict)
    excerpt: Excerpt = field(default_factory=Excerpt)
    notes: list[str] = field(default_factory=list)
    unreadable: str = ""
    size: int = 0
    whole: bool = False
    """Whether it was read to its end: its lines stay as they are then."""
    _lines: list[Line] | None = None

    def lines(self) -> list[Line]:
        if self._lines is not None:
            return self._lines
        lines = [taken_apart(self.name, number, text, self.rank)
                 for number, text in self.excerpt.lines()]  # fmt: skip
        if self.whole:
            self._lines = lines
        return lines


@dataclass(slots=True)
class Reading:
    """A reading that is under way: of what, how far it is, and what it has found so far."""

    logs: tuple[str, ...]
    total: int = 0
    done: int = 0
    found: list[Log] = field(default_factory=list)

    @property
    def share(self) -> int:
        """In percent; what is packed grows while it is read, so it never says 100."""
        return min(99, 100 * self.done // self.total) if self.total else 0


class Overtaken(Exception):
    """Other logs are wanted meanwhile, and nobody waits for these any more."""


def read(logs: Sequence[str]) -> tuple[Log, ...]:
    """Every log that the items stand for. A second call for the same files costs nothing."""
    global _last, _now, _wanted
    asked = (tuple(logs), tuple(_fingerprint(item) for item in logs))
    _wanted = asked[0]
    with _reading:
        if _last is None or _last[0] != asked:
            _now = Reading(asked[0])
            try:
                _last = (asked, _read(_now))
            finally:
                _now = None
        return _last[1]


def under_way() -> Reading | None:
    """The reading that somebody waits for now."""
    return _now


def read_so_far(logs: Sequence[str]) -> tuple[Log, ...]:
    """What is known of these logs without waiting for their end."""
    now, last = _now, _last
    if now is not None and now.logs == tuple(logs):
        return tuple(now.found)
    return last[1] if last is not None and last[0][0] == tuple(logs) else ()


_reading = Lock()
_now: Reading | None = None
_wanted: tuple[str, ...] = ()
_last: tuple[tuple[tuple[str, ...], object], tuple[Log, ...]] | None = None


def scan_bytes(name: str, data: bytes) -> Log:
    """A paste, read as if it were a file."""
    return _one(pasted(name, data), _KEPT, None)


def _fingerprint(item: str) -> object:
    try:
        info = os.stat(item)
    except (OSError, ValueError):
        return None
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _read(now: Reading) -> tuple[Log, ...]:
    each: list[tuple[str, list[Source] | str]] = []
    for item in now.logs:
        try:
            several = [one for one in sources(item) if one.kind == "log"]
        except NotALog as why:
            each.append((item, str(why)))
            continue
        each.append((item, several))
        now.total += sum(source.size or 0 for source in several)
    found: list[Log] = []
    for item, inside in each:
        if isinstance(inside, str):
            found.append(Log(item, unreadable=inside))
            continue
        share = max(128 << 10, _KEPT // max(1, len(inside)))
        # In a folder of ranks an empty stdout is the rule, and a picture there is no failure.
        alone = len(inside) == 1
        read_now = (_one(source, share, now) for source in inside)
        found += [log for log in read_now if alone or not log.unreadable]
    return tuple(found)


def _one(source: Source, share: int, now: Reading | None) -> Log:
    log = Log(source.name, source.rank, excerpt=Excerpt(min(share, 2 << 20)), notes=source.notes)
    if now is not None:
        now.found.append(log)
    try:
        for hit in scanner().scan(_counted(source, log, now), log.excerpt):
            log.hits.setdefault(hit.signature.id, hit)
            log.counts[hit.signature.id] = log.counts.get(hit.signature.id, 0) + 1
    except NotALog as why:
        log.unreadable = str(why)
    if not log.unreadable and log.size <= LARGEST:
        _add_broken_lines(log)
    log.whole = True
    return log


def _add_broken_lines(log: Log) -> None:
    """What is only recognised once lines that a terminal broke are whole again."""
    lines = list(log.excerpt.lines())
    for at_full in ("", " "):
        whole = unwrapped(lines, at_full)
        if len(whole) == len(lines):
            return
        text = "\n".join(text for _, text in whole).encode()
        for hit in scanner().scan_bytes(text):
            if hit.signature.id not in log.hits:
                log.hits[hit.signature.id] = replace(hit, line=whole[hit.line - 1][0])
                log.counts[hit.signature.id] = 1
    log.hits = dict(sorted(log.hits.items(), key=lambda item: item[1].line))


def _counted(source: Source, log: Log, now: Reading | None) -> Iterator[bytes]:
    for block in source.blocks():
        yield block
        log.size += len(block)
        if now is not None:
            now.done += len(block)
            if now.logs != _wanted:
                raise Overtaken(log.name)
