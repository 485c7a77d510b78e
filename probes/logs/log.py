"""The probe `log`: which known lines the given logs hold, or the most suspicious ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ddp_assist.probes.logs.ranks import Line, taken_apart
from ddp_assist.probes.logs.reading import Log, read, under_way
from ddp_assist.probes.logs.scan import ENOUGH, WIDEST, Hit
from ddp_assist.probes.logs.signatures import signatures
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, Weight, unknown
from ddp_assist.probes.text import clean

_SUSPICIOUS = re.compile(
    r"(?i)\b(?:\w*error|\w*exception|fatal|failed|failure|abort\w*|killed|panic)\b"
)
_HARMLESS = re.compile(r"(?i)\b(?:0|no) (?:errors?|failures?)|errors?[=:] ?0\b")
_MOST_SUSPICIOUS = 16
_SHOWN = 600


def look(target: Target) -> Iterator[Finding]:
    logs = read(target.logs)
    for log in logs:
        yield from _troubles(log)
    readable = [log for log in logs if not log.unreadable and log.excerpt.any_text]
    found = _told(readable)
    yield from found
    weights = _outcomes()
    if readable and all(weights[f.outcome] == "info" for f in found):
        # What only steers says nothing of a failure; a line that looks like one is shown.
        suspicious = _nothing_known(readable)
        if not found or suspicious.data["suspicious"]:
            yield suspicious


def look_so_far(target: Target) -> Iterator[Finding]:
    """What was recognised up to where the reading had to stop."""
    now = under_way()
    if now is not None and now.logs == target.logs:
        yield from _told(list(now.found))
        sentence = f"the logs were read in part only, {now.share} % of them"
        yield Finding("log", "read-in-part", sentence, {"bytes": now.done, "of": now.total})


def _told(logs: list[Log]) -> list[Finding]:
    found = list(_recognised(logs))
    weights = _outcomes()
    if any(weights[f.outcome] == "bad" for f in found):
        found = [f for f in found if f.outcome not in _only_alone()]
    return found


def _troubles(log: Log) -> Iterator[Finding]:
    name = clean(log.name)
    if log.unreadable == "it is empty" or (not log.unreadable and not log.excerpt.any_text):
        yield Finding("log", "empty", f"{name} holds no text", {"file": name})
    elif log.unreadable:
        yield unknown("log", f"{name} is no log that can be read: {log.unreadable}",
                      file=name, unreadable=log.unreadable)  # fmt: skip


def _recognised(logs: list[Log]) -> Iterator[Finding]:
    seen: list[tuple[Log, Hit, Line]] = []
    for log in logs:
        for hit in list(log.hits.values()):  # it may grow while it is read
            text = hit.text.decode("utf-8", "backslashreplace")
            seen.append((log, hit, taken_apart(log.name, hit.line, text, log.rank)))
    # Clocks order the files only where every first line names one.
    timed = len(logs) > 1 and all(line.when is not None for _, _, line in seen)
    seen.sort(key=lambda one: one[2].when or 0.0 if timed else 0.0)
    first: dict[str, tuple[int, Log, Hit, Line]] = {}
    for order, (log, hit, line) in enumerate(seen):
        first.setdefault(hit.signature.id, (order, log, hit, line))
    for id, (order, log, hit, line) in first.items():
        count = sum(each.counts.get(id, 0) for each in logs)
        ranks = sorted({one[2].rank for one in seen
                        if one[1].signature.id == id and one[2].rank is not None})  # fmt: skip
        data: dict[str, Any] = {name: clean(value)[:_SHOWN] for name, value in hit.groups.items()}
        data |= {"line": hit.line, "order": order, "count": count, "file": clean(log.name)}
        if any(each.counts.get(id, 0) >= ENOUGH for each in logs):
            data["at_least"] = True
        if ranks and "rank" not in data:
            data["rank"] = line.rank if line.rank is not None else ranks[0]
        if len(ranks) > 1:
            data["ranks"] = ranks
        if log.notes:
            data["notes"] = list(log.notes)
        sentence = clean(hit.signature.sentence(hit.groups))
        yield Finding("log", id, sentence, data, (_evidence(log, hit),))


def _evidence(log: Log, hit: Hit) -> Evidence:
    text = hit.text.decode("utf-8", "backslashreplace")[:WIDEST]
    lines = tuple(clean(line) for line in text.split("\n"))
    return Evidence(clean(log.name), lines, ("sed", "-n", f"{hit.line}p", log.name))


def _nothing_known(logs: list[Log]) -> Finding:
    lines: dict[tuple[str, int | None], Line] = {}
    for log in logs:
        for line in log.lines():
            if _SUSPICIOUS.search(line.text) and not _HARMLESS.search(line.text):
                lines.setdefault((line.file, line.rank), line)
    chosen = sorted(lines.values(), key=lambda line: (line.file, line.number))[:_MOST_SUSPICIOUS]
    shown = [
        {"file": clean(line.file), "line": line.number, "rank": line.rank,
         "text": clean(line.text)[:_SHOWN]}
        for line in chosen
    ]  # fmt: skip
    what = f"; {len(shown)} lines look suspicious" if shown else ", and no line looks suspicious"
    evidence = tuple(
        Evidence(clean(line.file), (clean(line.text)[:_SHOWN],),
                 ("sed", "-n", f"{line.number}p", line.file))
        for line in chosen
    )  # fmt: skip
    data = {"suspicious": shown, "notes": [note for log in logs for note in log.notes]}
    return Finding("log", "nothing-known", f"no line that is known{what}", data, evidence)


def _only_alone() -> frozenset[str]:
    return frozenset(each.id for each in signatures() if each.alone)


def _outcomes() -> dict[str, Weight]:
    own: dict[str, Weight] = {"nothing-known": "info", "empty": "info", "read-in-part": "info"}
    return own | {each.id: each.weight for each in signatures()}


PROBES = (
    Probe(
        id="log",
        question="Which known lines do the logs hold?",
        outcomes=_outcomes(),
        look=look,
        look_so_far=look_so_far,
        applies=lambda target: bool(target.logs),
        deadline=900.0,
    ),
)
