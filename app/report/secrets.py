"""What is a secret: by its shape, by what stands before it, by the name it has."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import re2

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

MARK = "[REDACTED:"


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret in a text of bytes: where it stands, and the rule that says so."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Rule:
    kind: str
    pattern: Any
    least: int = 0
    mixed: bool = False
    needs: tuple[bytes, ...] = ()

    def hits(self, text: bytes, lower: bytes) -> Iterator[Hit]:
        if self.needs and not any(word in lower for word in self.needs):
            return
        place = groups(self.pattern)["secret"]
        for match in self.pattern.finditer(text):
            start, end = match.span(place)
            value = text[start:end]
            if end - start < self.least or _nothing(value):
                continue
            if self.mixed and not _mixed(value):
                continue
            yield Hit(start, end, self.kind)


def groups(pattern: Any) -> dict[str, int]:
    """The groups of an RE2 pattern over bytes by name: it knows them by number only."""
    return {name.decode(): number for name, number in pattern.groupindex.items()}


@lru_cache(maxsize=4)
def data(name: str) -> dict[str, Any]:
    """One table of what is known about secrets."""
    text = (files("ddp_assist.assets") / "redaction" / name).read_text("utf-8")
    found: dict[str, Any] = tomllib.loads(text)
    return found


@lru_cache(maxsize=1)
def rules() -> tuple[Rule, ...]:
    """Keys in blocks, shapes, then contexts, in the order they are applied."""
    kept = data("rules.toml")
    found = [Rule("private-key", re2.compile(_PEM), needs=(b"private key",))]
    for entry in (*kept["shape"], *kept["context"]):
        pattern = re2.compile(entry["pattern"].encode())
        needs = tuple(word.encode() for word in entry.get("needs", ()))
        least, mixed = entry.get("least", 0), entry.get("mixed", False)
        found.append(Rule(entry["kind"], pattern, least, mixed, needs))
    return tuple(found)


_PEM = (
    rb"(?P<secret>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
    rb"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z))"
)
PEM_BEGIN = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
PEM_END = re.compile(rb"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")

# -- names -----------------------------------------------------------------------------------

_SEGMENT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@lru_cache(maxsize=1)
def _names() -> dict[str, frozenset[str]]:
    return {key: frozenset(words) for key, words in data("names.toml").items()}


@lru_cache(maxsize=4096)
def secret_name(name: str) -> str:
    """The word that makes a name a secret's name, or nothing."""
    names = _names()
    if name.lower() in names["never"]:
        return ""
    segments = [s.lower() for s in _SEGMENT.findall(name)]
    while segments and segments[-1].isdigit():
        segments.pop()
    for length in (3, 2, 1):
        for start in range(len(segments) - length + 1):
            word = "_".join(segments[start : start + length])
            ends = start + length == len(segments)
            if not (word in names["words"] or (length == 1 and _ends(word, names["within"]))):
                continue
            if not ends and segments[-1] in names["suffixes"]:
                continue
            before = segments[start - 1] if start else ""
            if word in ("token", "tokens") and (
                before in names["kinds_of_token"] or (not ends and segments[start + 1] == "type")
            ):
                continue
            if word == "pass" and before in names["kinds_of_pass"]:
                continue
            if word in ("auth", "sig", "pat", "pass", "cred", "sas", "cookie", "pwd") and not ends:
                continue
            return word
    return ""


def _ends(segment: str, words: frozenset[str]) -> bool:
    return any(segment.endswith(word) for word in words) and segment != "detoken"


# A name with something of a secret in it, what joins it to its value, and the value.
_VALUE = (
    rb'(?:\\*"(?P<double>(?:[^"\\\n]|\\[^"\n])*)\\*"|\\*\'(?P<single>[^\'\n]*)\''
    rb"|(?P<bare>[^\s,;&\"'<>][^\s,;&\"'<>]*))"
)
_WORDS = (
    rb"pass|pwd|secret|token|key|cred|bearer|jwt|cookie|session|webhook|sas|sig|dsn|auth|conn|pat"
)
_NAME = rb"(?P<name>[A-Za-z0-9_.\-]*(?:" + _WORDS + rb")[A-Za-z0-9_.\-]*)"

class _Beside:
    """A pattern whose place in a text RE2 finds in linear time, and whose groups there `re` reads:
    RE2's own groups cost more than the search."""

    def __init__(self, pattern: bytes) -> None:
        self._find = re2.compile(pattern)
        self._read = re.compile(pattern)

    def search(self, text: bytes, place: int) -> re.Match[bytes] | None:
        found = self._find.search(text, place)
        return None if found is None else self._read.match(text, *found.span())


_NAMED = _Beside(
    rb"(?i)" + _NAME + rb"(?P<join>\\*[\"']?\]?[ \t]*(?:=>|:=|=|:)[ \t]*[bru]?|%3[aAdD])" + _VALUE
)
_LISTED = _Beside(
    rb"(?i)(?P<quote>[\"'])" + _NAME + rb"(?P<join>\\*[\"'],[ \t]*[bru]?)" + _VALUE
)
_FLAG = _Beside(
    rb"(?im)(?:^|[ \t\"'`(\[])(?P<flag>--?)" + _NAME + rb"(?P<join>[ \t]+)" + _VALUE
)
_SET = _Beside(
    rb"(?i)\b(?:ENV|ARG|setenv|configure set|config set|set)[ \t]+"
    + _NAME
    + rb"(?P<join>[ \t]+)"
    + _VALUE
)
_PAIR = _Beside(
    rb"(?i)\b(?:name|key)\\*[\"']?[ \t]*[:=][ \t]*\\*[\"']?"
    + _NAME
    + rb"(?P<join>\\*[\"']?[ \t]*,?\s*(?:-[ \t]*)?\\*[\"']?value\\*[\"']?[ \t]*[:=][ \t]*)"
    + _VALUE
)
_PLACEHOLDER = re.compile(
    rb"""(?ix) (?: none | null | nil | true | false | undefined | unset | missing | empty | not
    | yes | no | required | optional | str | string | int | bytes | bool | any
    | invalid | expired | denied | rejected | redacted | hidden | masked | change-?me
    | x{3,}\S* | \*+ | \.{2,}.* | -+ | \?+ | your[-_]\S+ | %\w+% | %[sdr]
    | \$\{\w+[^}]*\}.* | (?-i:\$[A-Z_][A-Z0-9_]*) | \$\(.* | <.* | \{.* | \[.* | \(.*
    | os\.(?:environ|getenv).* | getenv\b.*
    | (?:self|args|cfg|config|opt|opts|kwargs|options)\.[\w.]+\W*
    | [a-z_]\w*(?:\.\w+)*[(\[].* ) \Z"""
)
_NUMBER = re.compile(rb"[-+]?[\d.,_]+(?:e[-+]?\d+)?(?:[kmgb%]|[mun]?s|it/s)?[)\]}.,]*\Z", re.I)
_IDENTIFIER = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]*[)\]},:]*\Z")


def named(text: bytes) -> Iterator[Hit]:
    """Values that stand beside a secret's name: assignments, keys, flags, argv, pairs."""
    for pattern in (_NAMED, _LISTED, _FLAG, _SET, _PAIR):
        place = 0
        while (match := pattern.search(text, place)) is not None:
            place = max(match.end("join"), match.start() + 1)
            name = match["name"].decode("ascii")
            word = secret_name(name.strip("-."))
            if not word:
                continue
            group = next(g for g in ("double", "single", "bare") if match[g] is not None)
            value = match[group]
            start, end = match.span(group)
            if group == "bare":
                value, end = _trimmed(value, start)
            if _is_secret(word, name, value, match["join"], group):
                yield Hit(start, end, "named")
                place = end


def _trimmed(value: bytes, start: int) -> tuple[bytes, int]:
    """Without the brackets and the stop that close what surrounds the value."""
    shorter = value.rstrip(b")]}\\")
    if shorter.count(b"(") or shorter.count(b"["):
        shorter = value
    return shorter, start + len(shorter)


@lru_cache(maxsize=4096)
def _is_secret(word: str, name: str, value: bytes, join: bytes, group: str) -> bool:
    if _nothing(value):
        return False
    quoted = group != "bare"
    assigned = b"=" in join or b"%" in join or quoted or b"," in join or name.isupper()
    if _speaks_of_a_name(name, value):
        return False
    if word in ("token", "tokens", "pass", "auth", "sig", "signature", "pat") and _NUMBER.match(
        value
    ):
        return False
    if word in ("credentials", "credential", "creds") and value.startswith(b"/"):
        return False
    if value.startswith((b"http://", b"https://")) and b"@" not in value and word != "webhook":
        return False
    if word in ("tokens", "signature", "sig", "pass", "auth", "sas", "pat", "cred", "cookie"):
        return assigned and len(value) >= 4
    if not assigned and word in _PROSE:
        plain = value.strip(b"`.:")
        return not re.fullmatch(rb"[A-Za-z]?[a-z]{0,12}", plain) or "_" in name
    return True


_PROSE = {"token", "secret", "secrets", "password", "credentials", "webhook", "bearer", "jwt"}


def _speaks_of_a_name(name: str, value: bytes) -> bool:
    """token=token, token=self.token, or a list of variables' names: code, and no secret in it."""
    said = value.decode("utf-8", "replace").rstrip(")]},:")
    if not _IDENTIFIER.match(value) or re.search(r"\d", said) or not secret_name(said):
        return False
    return (
        said.lower() == name.lower() or "." in said or bool(re.fullmatch(r"[A-Z]+(_[A-Z]+)+", said))
    )


def _nothing(value: bytes) -> bool:
    return not value.strip() or bool(_PLACEHOLDER.match(value))


def _mixed(value: bytes) -> bool:
    """Digits and letters and no plain hexadecimal number, which is a commit or a pointer."""
    hexadecimal = re.fullmatch(rb"(?:0x)?[0-9a-fA-F\-]+", value)
    return bool(re.search(rb"\d", value) and re.search(rb"[A-Za-z]", value)) and not hexadecimal
