"""JSON from strangers: depth, size and doubled keys are looked at before it is believed."""

from __future__ import annotations

import json
import re
from typing import Any

MOST_BYTES = 64 << 20
_DEEPEST = 40
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')


class NotPlain(ValueError):
    """The text is not JSON that can be used; the message says why."""


def load(data: bytes) -> Any:
    if len(data) > MOST_BYTES:
        raise NotPlain(f"it has {len(data)} bytes, more than is read")
    # So few brackets can't nest deeply, as in most lines of a log.
    if data.count(b"{") + data.count(b"[") > _DEEPEST and _depth(data) > _DEEPEST:
        raise NotPlain("it is nested too deeply")
    try:
        return _DECODER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"it is no JSON: {error}"[:200]) from None


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for token in _BRACKETS.finditer(data):
        if token.group() in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > _DEEPEST:
                break
        elif token.group() in (b"]", b"}"):
            depth -= 1
    return deepest


def _constant(name: str) -> None:
    raise NotPlain(f"{name} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotPlain("a key stands there twice")
    return found


# Made once: a log of records has one for each of its lines.
_DECODER = json.JSONDecoder(parse_constant=_constant, object_pairs_hook=_object)
