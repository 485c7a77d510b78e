"""The text that any match of a pattern must hold: what a fast first look needs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any

_parser: Any = import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_Words = frozenset[str]
_SHORTEST = 5


def required(pattern: str) -> _Words | None:
    """Words of which at least one is in every match, or None where the pattern names none."""
    try:
        tree = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError):
        return None
    words = _of_sequence(tree)
    return words if words and min(map(len, words)) >= _SHORTEST else None


def ignores_case(pattern: str) -> bool:
    return "(?i" in pattern


def _of_sequence(parts: Iterable[Any]) -> _Words | None:
    found: list[_Words] = []
    run = ""
    for name, value in parts:
        if str(name) == "LITERAL":
            run += chr(value)
            continue
        found += [frozenset({run})] if run else []
        run = ""
        words = _of_part(str(name), value)
        found += [words] if words else []
    found += [frozenset({run})] if run else []
    return max(found, key=lambda words: (min(map(len, words)), -len(words)), default=None)


def _of_part(name: str, value: Any) -> _Words | None:
    if name == "SUBPATTERN":
        return _of_sequence(value[3])
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        least, _, inner = value
        return _of_sequence(inner) if least else None
    if name == "BRANCH":
        branches = [_of_sequence(branch) for branch in value[1]]
        known = [branch for branch in branches if branch]
        return frozenset().union(*known) if len(known) == len(branches) else None
    return None
