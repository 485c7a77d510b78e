"""The regular expressions of the log reader: RE2 over bytes, Python's own where it is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

try:
    import re2
except ImportError:  # a platform without a wheel: the same answers, many times slower
    re2 = None

LINEAR = re2 is not None
"""Whether matching is linear in time; the report says so where it is not."""

_MEMORY = 48 << 20


class BadPattern(ValueError):
    """The pattern is none that the engine takes."""


def compiled(pattern: str, *, captures: bool = True) -> Any:
    """A pattern over the bytes of a log; any byte may stand for a character."""
    source = pattern.encode()
    if re2 is None:
        try:
            return re.compile(source)
        except re.error as error:
            raise BadPattern(str(error)) from None
    try:
        return re2.compile(source, _options(captures))
    except re2.error as error:
        raise BadPattern(str(error)) from None


def _options(captures: bool = True) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _MEMORY
    options.never_capture = not captures
    options.log_errors = False
    return options


class PatternSet:
    """Many patterns at once: which of them match a text."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._sources = tuple(patterns)
        self._each: dict[int, Any] = {}
        self._set: Any = None
        if re2 is not None and patterns:
            self._set = re2.Set.SearchSet(_options())
            for pattern in patterns:
                self._set.Add(pattern.encode())
            self._set.Compile()

    def __getitem__(self, index: int) -> Any:
        """Few of many are ever wanted by themselves, so each is made ready when it is."""
        if index not in self._each:
            self._each[index] = compiled(self._sources[index])
        return self._each[index]

    def among(self, text: bytes) -> Iterator[int]:
        if self._set is not None:
            yield from sorted(self._set.Match(text) or ())
        else:
            yield from (i for i in range(len(self._sources)) if self[i].search(text))


def named(pattern: Any) -> set[str]:
    """The names of its groups; RE2 gives them in the type of the pattern."""
    return {name.decode() if isinstance(name, bytes) else name for name in pattern.groupindex}
