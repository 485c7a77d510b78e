"""All logs of a target read once: what was recognised in each, and the lines its story needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from ddp_assist.probes.logs.excerpt import Excerpt
from ddp_assist.probes.logs.ranks import Line, taken_apart
from ddp_assist.probes.logs.scan import Hit, scanner
from ddp_assist.probes.logs.source import NotALog, Source, pasted, sources
from ddp_assist.probes.logs.unwrapped import LARGEST, unwrapped

_KEPT = 16 << 20

Watch = Callable[[int, "Log"], None]


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

    def lines(self) -> list[Line]:
        return [taken_apart(self.name, number, text, self.rank)
                for number, text in self.excerpt.lines()]  # fmt: skip


def read(logs: Sequence[str], watch: Watch | None = None) -> tuple[Log, ...]:
    """Every log that the items stand for. A second call for the same files costs nothing.

    `watch` is told of each block that was read, with what its log holds so far.
    """
    global _last
    asked = (tuple(logs), tuple(_fingerprint(item) for item in logs))
    with _reading:
        if _last is None or _last[0] != asked:
            _last = (asked, _read(asked[0], watch))
        return _last[1]


_reading = Lock()
_last: tuple[object, tuple[Log, ...]] | None = None


def scan_bytes(name: str, data: bytes) -> Log:
    """A paste, read as if it were a file."""
    return _one(pasted(name, data), _KEPT, None)


def _fingerprint(item: str) -> object:
    try:
        info = os.stat(item)
    except (OSError, ValueError):
        return None
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _read(logs: tuple[str, ...], watch: Watch | None) -> tuple[Log, ...]:
    found: list[Log] = []
    for item in logs:
        try:
            several = [one for one in sources(item) if one.kind == "log"]
        except NotALog as why:
            found.append(Log(item, unreadable=str(why)))
            continue
        share = max(128 << 10, _KEPT // max(1, len(several)))
        # In a folder of ranks an empty stdout is the rule, and a picture there is no failure.
        alone = len(several) == 1
        read_now = (_one(source, share, watch) for source in several)
        found += [log for log in read_now if alone or not log.unreadable]
    return tuple(found)


def _one(source: Source, share: int, watch: Watch | None) -> Log:
    log = Log(source.name, source.rank, excerpt=Excerpt(min(share, 2 << 20)), notes=source.notes)
    try:
        for hit in scanner().scan(_counted(source, log, watch), log.excerpt):
            log.hits.setdefault(hit.signature.id, hit)
            log.counts[hit.signature.id] = log.counts.get(hit.signature.id, 0) + 1
    except NotALog as why:
        log.unreadable = str(why)
    if not log.unreadable and log.size <= LARGEST:
        _add_broken_lines(log)
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


def _counted(source: Source, log: Log, watch: Watch | None) -> Iterator[bytes]:
    for block in source.blocks():
        yield block
        log.size += len(block)
        if watch:
            watch(len(block), log)
