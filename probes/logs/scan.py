"""One pass over a log of any size: a fast look for words that matter, then the signatures there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ddp_assist.probes.logs.engine import PatternSet, compiled
from ddp_assist.probes.logs.excerpt import TELLING, Excerpt
from ddp_assist.probes.logs.signatures import Signature, anchors, signatures

ENOUGH = 1_000
"""So many hits of one signature in one log are counted; more say nothing new."""
_TOO_COMMON = 5_000
_LONGEST_WORD = 80
WIDEST = 16_384
"""Of a longer line only this much around the match is looked at and shown."""
_LONGEST_CARRY = 1 << 20
_OVERLAP = 4_096

# A rank's or a node's label in front of a line, as torch, torchrun, srun, pdsh and mpirun write it.
_LABEL = re.compile(
    rb"(?:\[?(?:rank|default|Rank )?\d{1,6}\]?: ?|"
    rb"\[\d+,(?:mpirank:)?\d+(?:,[\w.-]{1,64})?\]<std(?:err|out)>: ?|"
    rb"[A-Za-z][\w.-]{0,62}\d: |[A-Za-z][\w.-]{0,62} {1,40}\| |"
    rb"\([\w.-]{1,64}(?: pid=\d+)?(?:, ip=[\w.:]+)?\) )"
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A signature seen on a line."""

    signature: Signature
    line: int
    text: bytes
    groups: dict[str, str] = field(default_factory=dict)


class Scanner:
    """The signatures made ready; one scanner serves any number of logs."""

    def __init__(self, known: Sequence[Signature], also: Sequence[str] = ()) -> None:
        """`also` are further words whose lines the caller wants to be told about."""
        self._known = tuple(known)
        self._single = [each for each in self._known if not each.span]
        self._spanning = [each for each in self._known if each.span]
        self._patterns = PatternSet([each.pattern for each in self._single])
        self._wide = PatternSet(["(?:" + each.pattern + ")" for each in self._spanning])
        self._reach = max((each.span for each in self._spanning), default=0)
        self._also = tuple(also)
        self._first_look = _any_of(*self._known, also=self._also)
        self._wide_look = _any_of(*self._spanning)

    def scan_bytes(self, data: bytes) -> Iterator[Hit]:
        return self.scan((data,))

    def scan(self, blocks: Iterable[bytes], excerpt: Excerpt | None = None) -> Iterator[Hit]:
        """Hits in the order of the lines. Blocks may be cut anywhere.

        Of a signature that matches all the time the first ENOUGH hits are given.
        """
        attention = _Attention(self._known, self._also, self._first_look)
        window = _Window()
        for block in blocks:
            window.add(block)
            if window.make_ready(self._reach):
                yield from self._look(window, attention, excerpt)
        window.make_ready(0, last=True)
        yield from self._look(window, attention, excerpt)

    def _look(
        self, window: _Window, attention: _Attention, excerpt: Excerpt | None
    ) -> Iterator[Hit]:
        data, at, end = window.data, window.start, window.end
        counted, line = window.start, window.line
        if excerpt:
            excerpt.block(data, at, end, line)
        while at < end:
            found = attention.pattern.search(data, at, end)
            if found is None:
                break
            # A whole pattern may reach over lines; the rest of them is met again below.
            newline = data.find(b"\n", found.start(), found.end())
            begin, stop = _segment(data, found.start(), newline if newline >= 0 else found.end())
            line += data.count(b"\n", counted, begin)
            counted = begin
            if excerpt:
                excerpt.near(data, begin, line)
            for hit in self._at(window, begin, stop, max(stop, found.end()), line):
                if attention.wants(hit.signature):
                    yield hit
            attention.saw(found.group())
            at = max(stop, at + 1)
        window.done(line + data.count(b"\n", counted, end), self._reach)

    def _at(self, window: _Window, begin: int, stop: int, seen: int, line: int) -> Iterator[Hit]:
        text = window.data[begin:stop]
        said = bare(text)
        among = set(self._patterns.among(text))
        # What stands first on its line is looked for behind the label of a rank, too.
        behind = set(self._patterns.among(said)) - among if said != text else set()
        for index in sorted(among | behind):
            match = self._patterns[index].search(said if index in behind else text)
            if match and self._single[index].holds(groups := _groups(match)):
                yield Hit(self._single[index], line, text, groups)
        if self._spanning and self._wide_look.search(window.data, begin, seen):
            yield from self._look_wide(window, begin, stop, line)

    def _look_wide(self, window: _Window, begin: int, stop: int, line: int) -> Iterator[Hit]:
        for across in (False, True):
            around = _around(window.data, begin, stop, self._reach, across)
            yield from self._look_around(window, around, across, line)

    def _look_around(
        self, window: _Window, around: list[tuple[int, bytes]], across: bool, line: int
    ) -> Iterator[Hit]:
        text = b"\n".join(each for _, each in around)
        for index in self._wide.among(text):
            each = self._spanning[index]
            if each.across is not across:
                continue
            match = self._wide[index].search(text)
            if match is None or text.count(b"\n", match.start(), match.end()) > each.span:
                continue
            first = line + around[text.count(b"\n", 0, match.start())][0]
            last = line + around[text.count(b"\n", 0, match.end())][0]
            # The same match is met again from each of its lines.
            if window.wide_seen.get(each.id, 0) < first:
                window.wide_seen[each.id] = last
                yield Hit(each, first, text[match.start() : match.end()][:WIDEST], _groups(match))


def _any_of(*known: Signature, also: Sequence[str] = (), strict: Container[bytes] = ()) -> Any:
    """Matches wherever one of the signatures may; of `strict` words the whole pattern must."""
    looked_for = set(also)
    for each in known:
        for anchor in anchors(each.pattern):
            loose = anchor.replace("\\", "").encode() not in strict
            looked_for.add(anchor if loose or each.span else f"(?m:{each.pattern})")
    # An empty alternation would match everywhere.
    return compiled("|".join(sorted(looked_for)) or r"\A\z\b", captures=False)


class _Attention:
    """What is still looked for in one log: what comes all the time is told, and let go."""

    def __init__(self, known: Sequence[Signature], also: Sequence[str], pattern: Any) -> None:
        self.pattern = pattern
        self._known = known
        self._also = also
        self._hits: Counter[str] = Counter()
        self._words: Counter[bytes] = Counter()

    def wants(self, signature: Signature) -> bool:
        self._hits[signature.id] += 1
        if self._hits[signature.id] == ENOUGH:
            self._narrow()
        return self._hits[signature.id] <= ENOUGH

    def saw(self, word: bytes) -> None:
        """A word that draws the eye all the time must stand in a whole pattern from now on."""
        if len(word) > _LONGEST_WORD:
            return
        self._words[word] += 1
        if self._words[word] == _TOO_COMMON:
            self._narrow()

    def _narrow(self) -> None:
        common = {word for word, n in self._words.items() if n >= _TOO_COMMON}
        self.pattern = _any_of(
            *(each for each in self._known if self._hits[each.id] < ENOUGH),
            also=[each for each in self._also if each.replace("\\", "").encode() not in common],
            strict=common,
        )


class _Window:
    """The part of a log that is in memory: seen lines, lines to look at, lines still incomplete."""

    def __init__(self) -> None:
        self.data = b""
        self.start = 0
        self.end = 0
        self.line = 1
        self.wide_seen: dict[str, int] = {}

    def add(self, block: bytes) -> None:
        self.data += block

    def make_ready(self, reach: int, *, last: bool = False) -> bool:
        """Choose what can be looked at now: whole lines whose followers are here too."""
        self.end = len(self.data)
        if last:
            return True
        for _ in range(reach + 1):
            self.end = self.data.rfind(b"\n", self.start, self.end)
            if self.end < 0:
                break
        if self.end >= 0:
            self.end += 1
            return True
        self.end = self.start
        if len(self.data) - self.start > _LONGEST_CARRY:
            self.end = len(self.data) - _OVERLAP
            return True
        return False

    def done(self, line: int, reach: int) -> None:
        keep = self.start = self.end
        for _ in range(reach + 1):
            newline = self.data.rfind(b"\n", 0, max(keep - 1, 0))
            if newline < 0 or self.end - newline > WIDEST:
                break
            keep = newline + 1
        self.data = self.data[keep:]
        self.start = self.end = self.start - keep
        self.line = line


def _segment(data: bytes, first: int, last: int) -> tuple[int, int]:
    """The bounds of the line around a place, at most WIDEST; a CR ends a line for the eye."""
    low, high = max(0, first - WIDEST // 2), min(len(data), last + WIDEST // 2)
    begin = max(data.rfind(b"\n", low, first), data.rfind(b"\r", low, first), low - 1) + 1
    stop = data.find(b"\n", last, high)
    stop = high if stop < 0 else stop
    cr = data.find(b"\r", last, stop)
    return begin, stop if cr < 0 else cr


def _around(
    data: bytes, begin: int, stop: int, reach: int, across: bool
) -> list[tuple[int, bytes]]:
    """The line at begin..stop and its neighbours, of the same rank or `across` all ranks."""
    around = [(0, data[begin:stop])]
    edge = begin
    for distance in range(1, reach + 1):
        if edge <= 0:
            break
        earlier, _ = _segment(data, edge - 1, edge - 1)
        around.insert(0, (-distance, data[earlier : edge - 1]))
        edge = earlier
    edge = stop
    for distance in range(1, reach + 1):
        if edge >= len(data):
            break
        _, later = _segment(data, edge + 1, edge + 1)
        around.append((distance, data[edge + 1 : later]))
        edge = later
    if across:
        return [(distance, bare(text).rstrip(b"\r")) for distance, text in around]
    around = [(distance, _unstamped(text)) for distance, text in around]
    label = label_of(_unstamped(data[begin:stop]))
    return [(distance, text[len(label) :].rstrip(b"\r"))
            for distance, text in around if label_of(text) == label]  # fmt: skip


def label_of(text: bytes) -> bytes:
    found = _LABEL.match(text)
    return found.group() if found else b""


_QUOTED = re.compile(rb"[>`\"' \t]{0,8}")
# The time that a collector of logs set before each line.
_STAMP = re.compile(
    rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
    rb"(?:[ \t]std(?:out|err) [FP](?=[ \t]))?(?:[ \t]|,(?=\"))"
)


def _unstamped(text: bytes) -> bytes:
    found = _STAMP.match(text)
    return text[found.end() :] if found else text


def bare(text: bytes) -> bytes:
    """A line without the labels before it and the quotation marks of a paste around it."""
    text = _unstamped(text)
    for _ in range(3):
        rest = text[len(label_of(text)) :]
        quoted = _QUOTED.match(rest)
        # Indentation belongs to the line; only what quotes it goes.
        if quoted and quoted.group().strip():
            rest = rest[quoted.end() :]
        if rest == text:
            break
        text = rest
    return text.rstrip(b"\r`")


def _groups(match: re.Match[bytes]) -> dict[str, str]:
    found: dict[Any, bytes | None] = match.groupdict()
    # One pattern may name the same thing in several places: port, port2, port3.
    return {
        (name.decode() if isinstance(name, bytes) else name).rstrip("0123456789"): value.decode(
            "utf-8", "backslashreplace"
        )
        for name, value in found.items()
        if value is not None
    }


@cache
def scanner() -> Scanner:
    return Scanner(signatures(), TELLING)
