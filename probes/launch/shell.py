"""Shell text cut into words and operators, each character still knowing where it was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ddp_assist.probes.launch.plan import LaunchError, Span, in_one_piece

ELSEWHERE = -1
"""The place of a character that is not in the text: it came from the user's environment."""

DEEPEST = 40
OPERATORS = ("&&", "||", ";;&", ";;", ";&", "|&", ";", "&", "|", "(", ")", "\n")
REDIRECT = re.compile(r"\d*(?:<<<|<<-?|<>|<&|<|>>|>\||>&|>)|&>>?")
ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\[[^]]*\])?(\+?=)")
BLANK = " \t\r"
PLAIN = re.compile(r"[^\s;&|()<>{}'\"\\$`]+")
"""Characters that mean nothing to a shell, passed over in one go."""


@dataclass(frozen=True, slots=True)
class Traced:
    """Text of which every character knows the span it stems from."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def written(cls, text: str) -> Traced:
        return cls(text, range(len(text)), range(1, len(text) + 1))

    @classmethod
    def computed(cls, text: str, span: Span) -> Traced:
        """All of the text stems from one expression, and can only be replaced as a whole."""
        return cls(text, [span[0]] * len(text), [span[1]] * len(text))

    def cut(self, start: int, end: int) -> Traced:
        return Traced(self.text[start:end], self.starts[start:end], self.ends[start:end])

    def __add__(self, other: Traced) -> Traced:
        starts, ends = [*self.starts, *other.starts], [*self.ends, *other.ends]
        return Traced(self.text + other.text, starts, ends)

    def raw_span(self, start: int, end: int) -> Span:
        """Where a slice was written, quotes in between included."""
        if start >= end:
            where = self.starts[start] if start < len(self.starts) else (self.ends or [0])[-1]
            return where, where
        return self.starts[start], self.ends[end - 1]

    def span(self) -> Span | None:
        """Where this stands in one piece, so that it can be replaced; None if it does not."""
        return in_one_piece(self.places)

    @property
    def places(self) -> tuple[Span, ...]:
        return tuple(zip(self.starts, self.ends, strict=True))


NOTHING = Traced("", (), ())


@dataclass(frozen=True, slots=True)
class Token:
    kind: Literal["word", "op", "redirect"]
    raw: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    """Words, operators and redirections. Comments and the bodies of here-documents are skipped."""
    found: list[Token] = []
    waiting: list[tuple[str, bool]] = []
    i = 0
    while i < len(text):
        char = text[i]
        if char in BLANK or text.startswith("\\\n", i):
            i += 1 if char in BLANK else 2
        elif char == "#":
            end = text.find("\n", i)
            i = len(text) if end < 0 else end
        elif redirect := REDIRECT.match(text, i):
            i = redirect.end()
            if redirect.group() in ("<", ">") and text.startswith("(", i):
                i = word_end(text, redirect.start())
                found.append(Token("word", text[redirect.start() : i], redirect.start(), i))
                continue
            found.append(Token("redirect", redirect.group(), redirect.start(), i))
            if "<<" in redirect.group() and "<<<" not in redirect.group():
                start = i + len(text[i:]) - len(text[i:].lstrip(BLANK))
                delimiter = re.sub(r"[\\'\"]", "", text[start : word_end(text, start)])
                waiting.append((delimiter, redirect.group().endswith("-")))
        elif op := next((o for o in OPERATORS if text.startswith(o, i)), None):
            if op == "(" and text.startswith("((", i) and (end := text.find("))", i)) > 0:
                found.append(Token("word", text[i : end + 2], i, end + 2))
                i = end + 2
                continue
            found.append(Token("op", op, i, i + len(op)))
            i += len(op)
            if op == "\n":
                for delimiter, tabs in waiting:
                    i = _after_document(text, i, delimiter, tabs)
                waiting = []
        else:
            end = word_end(text, i)
            if text[i:end] == "[[":
                close = re.compile(r"\s\]\](?=[\s;&|)]|$)").search(text, end)
                end = close.end() if close else end
            found.append(Token("word", text[i:end], i, end))
            i = end
    return found


def word_end(text: str, i: int) -> int:
    """The index behind the word that starts at `i`."""
    start = i
    while i < len(text):
        if plain := PLAIN.match(text, i):
            i = plain.end()
            continue
        char = text[i]
        if char == "(" and ASSIGNED.fullmatch(text, start, i):
            i = _balanced(text, i, "(", ")", 0)
        elif char in "<>" and i == start and text.startswith("(", i + 1):
            i = _balanced(text, i + 1, "(", ")", 0)
        elif char in BLANK or char in "\n;&|()<>":
            return i
        else:
            i = skip(text, i)
    return i


def skip(text: str, i: int, depth: int = 0) -> int:
    """The index behind the character, quotation or substitution at `i`."""
    if depth > DEEPEST:
        raise LaunchError("the launch is nested too deeply to be read")
    if text[i] == "\\":
        return min(i + 2, len(text))
    if text[i] == "'":
        return _closing(text, i, text.find("'", i + 1))
    if text.startswith("$'", i):
        end = i + 2
        while end < len(text) and text[end] != "'":
            end += 2 if text[end] == "\\" else 1
        return _closing(text, i, end if end < len(text) else -1)
    if text[i] == '"' or text.startswith('$"', i):
        end = text.index('"', i) + 1
        while end < len(text) and text[end] != '"':
            if plain := PLAIN.match(text, end):
                end = plain.end()
                continue
            end = end + 1 if text[end] == "'" else _inside(text, end, depth + 1)
        return _closing(text, i, end if end < len(text) else -1)
    return _inside(text, i, depth)


def _inside(text: str, i: int, depth: int) -> int:
    """As `skip`, for what is alive between double quotes too."""
    if text[i] == "\\":
        return min(i + 2, len(text))
    if text[i] == "`":
        end = i + 1
        while end < len(text) and text[end] != "`":
            end += 2 if text[end] == "\\" else 1
        return _closing(text, i, end if end < len(text) else -1)
    if text.startswith("$(", i):
        return _balanced(text, i + 1, "(", ")", depth + 1)
    if text.startswith("${", i):
        return _balanced(text, i + 1, "{", "}", depth + 1)
    return i + 1


def _balanced(text: str, i: int, opening: str, closing: str, depth: int) -> int:
    start, level = i, 0
    while i < len(text):
        if plain := PLAIN.match(text, i):
            i = plain.end()
        elif text[i] == opening:
            level, i = level + 1, i + 1
        elif text[i] == closing:
            level, i = level - 1, i + 1
            if level == 0:
                return i
        else:
            i = skip(text, i, depth + 1)
    return _closing(text, start, -1)


def _closing(text: str, start: int, end: int) -> int:
    if end < 0:
        line = text.count("\n", 0, start) + 1
        raise LaunchError(f"the {text[start]} opened on line {line} of the launch is never closed")
    return end + 1


def _after_document(text: str, i: int, delimiter: str, tabs: bool) -> int:
    while i < len(text):
        end = text.find("\n", i)
        line = text[i : end if end >= 0 else len(text)]
        i = len(text) if end < 0 else end + 1
        if (line.lstrip("\t") if tabs else line) == delimiter:
            break
    return i
