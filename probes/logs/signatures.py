"""The lines that programs print, loaded from the assets, each held to its own promises."""

from __future__ import annotations

import re
import string
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from ddp_assist.probes.logs.engine import BadPattern, compiled, named
from ddp_assist.probes.logs.literals import ignores_case, required
from ddp_assist.probes.model import Weight

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

_KNOWN_FIELDS = {
    "id", "weight", "by", "says", "pattern", "examples", "near", "span", "across", "more",
    "alone",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """One kind of line: how to know it, who prints it, what it means."""

    id: str
    weight: Weight
    by: str
    says: str
    pattern: str
    examples: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    span: int = 0
    """How many lines of the same rank may follow the first and still belong to the match."""
    across: bool = False
    """Whether those lines may be of any rank: what two ranks say is held against each other."""
    more: tuple[str, ...] = ()
    """Two of the pattern's groups, numbers, of which the first must be the greater one."""
    alone: bool = False
    """Told only where nothing bad is known in the logs: what any failure may end with."""
    file: str = ""

    def holds(self, groups: Mapping[str, str]) -> bool:
        """Whether the numbers of a match stand to each other as they must."""
        if not self.more:
            return True
        first, second = (groups.get(name, "") for name in self.more)
        return first.isdecimal() and second.isdecimal() and int(first) > int(second)

    def sentence(self, data: Mapping[str, str]) -> str:
        """What the line says, with what it names; what it does not name is left out."""
        text = string.Formatter().vformat(self.says, (), _Named(data))
        return " ".join(re.sub(r"\(\s*\)", "", text).split())


@cache
def anchors(pattern: str) -> tuple[str, ...]:
    """Patterns for a fast first look; one of them matches inside every match. Asked for again and
    again in a chatty log, and taking a pattern apart is slow."""
    words = required(pattern)
    if words is None:
        return (f"(?m:{pattern})",)
    form = "(?i:{})" if ignores_case(pattern) else "{}"
    return tuple(form.format(re.escape(word)) for word in sorted(words))


class _Named(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


@cache
def signatures() -> tuple[Signature, ...]:
    """All of them, in the order of the files' names."""
    found: list[Signature] = []
    folder = files("ddp_assist.assets").joinpath("signatures")
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            found += read(entry.read_text(encoding="utf-8"), entry.name)
    return tuple(found)


def read(text: str, file: str = "") -> list[Signature]:
    """The signatures of one TOML text; raises ValueError that names the file and what is wrong."""
    try:
        tables = tomllib.loads(text).get("signature", [])
        return [_one(table, file) for table in tables]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: {type(error).__name__} {error}") from None


def _one(table: dict[str, Any], file: str) -> Signature:
    if strange := set(table) - _KNOWN_FIELDS:
        raise KeyError(f"{table.get('id')}: unknown field {', '.join(sorted(strange))}")
    return Signature(
        id=table["id"],
        weight=cast(Weight, table["weight"]),
        by=table.get("by", ""),
        says=table["says"],
        pattern=table["pattern"],
        examples=tuple(table.get("examples", ())),
        near=tuple(table.get("near", ())),
        span=table.get("span", 0),
        across=table.get("across", False),
        more=tuple(table.get("more", ())),
        alone=table.get("alone", False),
        file=file,
    )


def problems(all_of_them: tuple[Signature, ...] | None = None) -> list[str]:
    """What is wrong with the signatures themselves, one sentence each."""
    known = signatures() if all_of_them is None else all_of_them
    found = [
        f"{name}: {n} signatures with this id"
        for name, n in Counter(each.id for each in known).items()
        if n > 1
    ]
    for each in known:
        found += [f"{each.file}: {each.id}: {what}" for what in _wrong_with(each)]
    return found


def _wrong_with(one: Signature) -> list[str]:
    from ddp_assist.probes.logs.scan import Scanner

    found: list[str] = []
    if one.weight not in ("bad", "info", "noise"):
        found.append(f"weight {one.weight!r} is not bad, info or noise")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.id):
        found.append("the id is not kebab-case")
    if not one.examples:
        found.append("no example")
    try:
        groups = named(compiled(one.pattern))
    except BadPattern as error:
        return [*found, f"the pattern does not compile: {error}"]
    if len(one.more) not in (0, 2):
        found.append("more needs the names of two groups")
    said = {name for _, name, _, _ in string.Formatter().parse(one.says) if name}
    said |= set(one.more)
    if missing := said - groups:
        found.append(f"says or more names {', '.join(sorted(missing))}, which the pattern has not")
    alone = Scanner((one,))
    found += [
        f"does not match its example {text[:80]!r}"
        for text in one.examples
        if not any(alone.scan_bytes(text.encode()))
    ]
    found += [
        f"matches its near miss {text[:80]!r}"
        for text in one.near
        if any(alone.scan_bytes(text.encode()))
    ]
    return found
