"""The script's own command line: what argparse will make of the words the launch gives it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ddp_assist.probes.script.value import UNKNOWN, Call, Value

_PLAIN = {"int": int, "str": str, "float": float}
_UNCLEAR = re.compile(r"[$`*?{}]")


def names_of(call: Call) -> tuple[str, ...]:
    return tuple(a.const for a in call.args if isinstance(a.const, str))


def dest_of(call: Call) -> str:
    """The attribute under which an option is found."""
    given = call.get("dest")
    if given is not None and isinstance(given.const, str):
        return given.const
    names = names_of(call)
    long = next((n for n in names if n.startswith("--")), names[0] if names else "")
    return long.lstrip("-").replace("-", "_")


def arguments(
    calls: Iterable[Call], lines: Sequence[Sequence[str]], given: Sequence[Value]
) -> dict[str, Value]:
    """Each option with its value, where all commands of the launch agree on it."""
    if not lines or given:
        return {}
    options = [c for c in calls if c.name.endswith(".add_argument") and names_of(c)]
    if any(c.name.endswith(".set_defaults") for c in calls):
        return {}
    return {dest_of(c): Value(const=_agreed(c, lines)) for c in options}


def word(place: object, lines: Sequence[Sequence[str]]) -> Any:
    """A word of `sys.argv`, where all commands say the same; a number may be who somebody is."""
    if not isinstance(place, int) or not all(0 < place <= len(words) for words in lines):
        return UNKNOWN
    found = {words[place - 1] for words in lines}
    text = found.pop() if len(found) == 1 else ""
    return text if text and not text.isdigit() and not _UNCLEAR.search(text) else UNKNOWN


def _agreed(call: Call, lines: Sequence[Sequence[str]]) -> Any:
    first, *others = [_value(call, words) for words in lines]
    return first if all(o is first or o == first for o in others) else UNKNOWN


def _value(call: Call, words: Sequence[str]) -> Any:
    names, action = names_of(call), call.get("action")
    if not names[0].startswith("-") or call.get("nargs") is not None or call.partial:
        return UNKNOWN
    found = _said(names, words)
    kind = action.const if action is not None else "store"
    if kind in ("store_true", "store_false"):
        return (found is not None) == (kind == "store_true")
    if kind != "store":
        return UNKNOWN
    if found is None:
        default = call.get("default")
        return None if default is None else default.const
    return _converted(call, found)


def _said(names: Sequence[str], words: Sequence[str]) -> str | None:
    """What stands behind the option on the line; the last one counts."""
    found = None
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else words[index + 1] if index + 1 < len(words) else ""
        elif word[:2] in names and len(word) > 2 and not word.startswith("--"):
            found = word[2:]
    return found


def _converted(call: Call, text: str) -> Any:
    if _UNCLEAR.search(text):
        return UNKNOWN
    by = call.get("type")
    if by is None:
        return text
    convert = _PLAIN.get(by.kind)
    try:
        return convert(text) if convert else UNKNOWN
    except ValueError:
        return UNKNOWN
