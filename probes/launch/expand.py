"""What a shell word stands for, as far as that can be known without running anything."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Union

from ddp_assist.probes.launch.plan import Assignment, Span
from ddp_assist.probes.launch.shell import ELSEWHERE, NOTHING, Traced, skip, tokens
from ddp_assist.probes.launch.sums import reckoned

NAME = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")
PARAMETER = re.compile(
    r"([A-Za-z_]\w*|\d+|[@*])(?:\[([@*]|-?\d+|[^]]+)\])?(:?[-=+?]|%%?|##?)?", re.ASCII
)
PLAIN, QUOTED = re.compile(r"[^\\'\"`$~]+"), re.compile(r"[^\\`$]+")
BRACES = re.compile(r"\{(-?\d+)\.\.(-?\d+)\}")
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "a": "\a", "e": "\x1b"}
OUTSIDE = re.compile(
    r"(RANDOM|SRANDOM|HOSTNAME|UID|EUID|PPID|SECONDS|EPOCH\w+|LINENO|PWD|OLDPWD|USER|JOB_ID)\Z"
    r"|(SLURM|OMPI|PMI|PMIX|PBS|LSB|COBALT|KUBERNETES|POD|SM|AWS|BATCH)_"
)
"""Variables that the shell or a scheduler sets where the script runs: unset here is not empty."""
MOST = 1024
MARK = "\0"
"""Around what can't be known within a text: no word of a shell holds it."""
BLANK = "\1"
"""Stands for a blank in there, where nothing is split."""

Value = Union[Traced, tuple[Traced, ...], None]  # noqa: UP007 - nodes may have Python 3.9
"""A string, an array, or None: set to something that can't be known."""


@dataclass(frozen=True, slots=True)
class Variable:
    value: Value
    exported: bool = False
    assignment: Assignment | None = None
    partly: Traced | None = None
    """The text of a value that can't be known as a whole, with marks around what can't."""


@dataclass(slots=True)
class Scope:
    """The variables, the directory and the arguments in force at one place of a script."""

    user: Mapping[str, str]
    cwd: Path
    variables: dict[str, Variable] = field(default_factory=dict)
    unset: set[str] = field(default_factory=set)
    arguments: tuple[Traced, ...] = ()
    name: str = "bash"
    allexport: bool = False
    elsewhere: bool = False
    """The script runs on another host than this one: what this one is called says nothing."""
    pending: dict[str, Value] = field(default_factory=dict)
    """Values just read from a line of assignments, before they are stored."""

    def copy(self) -> Scope:
        return replace(
            self, variables=dict(self.variables), unset=set(self.unset), pending=dict(self.pending)
        )

    def value(self, name: str, at: Span) -> tuple[Value, bool]:
        """The value, and whether the variable is set at all."""
        if name in self.variables:
            value = self.variables[name].value
            if isinstance(value, Traced) and ELSEWHERE in value.starts:
                value = Traced.computed(value.text, at)
            return value, True
        if name == "PWD":
            return Traced.computed(str(self.cwd), at), True
        if name in self.unset or name not in self.user:
            return (None, True) if OUTSIDE.match(name) else (NOTHING, False)
        return Traced.computed(self.user[name], at), True


@dataclass(frozen=True, slots=True)
class Field:
    """One word after expansion. If it is not `known`, `value` holds it as it was written."""

    value: Traced
    known: bool
    span: Span
    """Where the word stands with its quotes, or the part of the variable it came from."""

    @property
    def text(self) -> str:
        return self.value.text

    @property
    def carried(self) -> Traced:
        """What a variable or an argument holds of it."""
        return self.value if self.known else unknown(self.text, self.span)


def unknown(text: str, span: Span) -> Traced:
    return Traced.computed(MARK + re.sub(r"\s", BLANK, text) + MARK, span)


def is_known(value: Traced) -> bool:
    return MARK not in value.text


def _as_written(value: Traced) -> Traced:
    """The same without the marks; for a part of it that can't be known, what stands for it."""
    kept = [i for i, char in enumerate(value.text) if char != MARK]
    text = "".join(value.text[i] for i in kept).replace(BLANK, " ")
    return Traced(text, [value.starts[i] for i in kept], [value.ends[i] for i in kept])


def expand(word: Traced, scope: Scope) -> list[Field]:
    """The words that one written word becomes."""
    whole = word.raw_span(0, len(word.text))
    fields: list[Field] = []
    for piece in _braces(word):
        reading = _Reading(scope)
        reading.read(piece, quoted=False)
        for value in reading.done():
            here = [whole[0] <= s and e <= whole[1] for s, e in value.places]
            where = whole if all(here) else value.span() or whole
            if is_known(value):
                fields.append(Field(value, True, where))
            elif any(here):
                fields.append(Field(word, False, whole))
            else:
                fields.append(Field(_as_written(value), False, where))
    return fields


def string(word: Traced, scope: Scope) -> Traced | None:
    """The value of a word where the shell does not split it, as behind `NAME=`."""
    value = partly(word, scope)
    return value if is_known(value) else None


def partly(word: Traced, scope: Scope) -> Traced:
    """The same, with marks around what can't be known."""
    reading = _Reading(scope)
    reading.read(word, quoted=False, split=False)
    parts = reading.done()
    return parts[0] if parts else NOTHING


def _braces(word: Traced) -> list[Traced]:
    match = BRACES.fullmatch(word.text)
    if match is None:
        return [word]
    first, last = int(match[1]), int(match[2])
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    if len(numbers) > MOST:
        return [word]
    return [Traced.computed(str(n), word.raw_span(0, len(word.text))) for n in numbers]


class _Reading:
    """Goes over one word and collects the fields that it becomes."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.parts: list[Traced] = []
        self.value = NOTHING
        self.started = False
        self.split = True

    def done(self) -> list[Traced]:
        self.end_field()
        return self.parts

    def end_field(self) -> None:
        if self.started:
            self.parts.append(self.value)
        self.value, self.started = NOTHING, False

    def add(self, value: Traced) -> None:
        self.value, self.started = self.value + value, True

    def put(self, value: Value, quoted: bool, written: Traced) -> None:
        """The result of an expansion: split at blanks unless it is quoted."""
        if value is None:
            self.add(unknown(written.text, written.raw_span(0, len(written.text))))
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                if number:
                    self.end_field()
                self.add(item)
        elif quoted or not self.split:
            self.add(value)
        else:
            last = 0
            for match in re.finditer(r"\s+", value.text):
                if match.start() > last:
                    self.add(value.cut(last, match.start()))
                self.end_field()
                last = match.end()
            if last < len(value.text):
                self.add(value.cut(last, len(value.text)))

    def read(self, word: Traced, quoted: bool, split: bool | None = None) -> None:
        if split is not None:
            self.split = split
        text, i = word.text, 0
        while i < len(text):
            char = text[i]
            if plain := (QUOTED if quoted else PLAIN).match(text, i):
                self.add(word.cut(i, plain.end()))
                i = plain.end()
                continue
            end = skip(text, i) if not quoted or char in "\\`$" else i + 1
            if char == "\\":
                if text[i + 1 : i + 2] != "\n":
                    keep = quoted and text[i + 1 : i + 2] not in ("\\", '"', "$", "`")
                    self.add(word.cut(i if keep else i + 1, end))
            elif char == "'" and not quoted:
                self.add(word.cut(i + 1, end - 1))
            elif text.startswith("$'", i) and not quoted:
                self.add(_ansi(word.cut(i + 2, end - 1)))
            elif (char == '"' or text.startswith('$"', i)) and not quoted:
                self.started = True
                start = text.index('"', i) + 1
                self.read(word.cut(start, end - 1), quoted=True)
            elif char == "`":
                inner = word.cut(i + 1, end - 1)
                output = substitution(inner, word.raw_span(i, end), self.scope)
                self.put(output, quoted, word.cut(i, end))
            elif char == "$":
                end = self.dollar(word, i, end, quoted)
            elif char == "~" and i == 0 and not quoted and text[1:2] in ("", "/"):
                home = self.scope.user.get("HOME")
                at_home = Traced.computed(home, word.raw_span(0, 1)) if home else None
                self.put(at_home, True, word.cut(0, 1))
            else:
                self.add(word.cut(i, end))
            i = end

    def dollar(self, word: Traced, i: int, end: int, quoted: bool) -> int:
        text = word.text
        if text.startswith("$((", i) and text[end - 2 : end] == "))":
            number = reckoned(text[i + 3 : end - 2], self.digits)
            span = word.raw_span(i, end)
            value: Value = None if number is None else Traced.computed(str(number), span)
        elif text.startswith("$(", i):
            value = substitution(word.cut(i + 2, end - 1), word.raw_span(i, end), self.scope)
        elif text.startswith("${", i):
            value = self.parameter(word.cut(i + 2, end - 1), word.raw_span(i, end), quoted)
        elif match := NAME.match(text, i + 1):
            end = match.end()
            value = self.special(match[0], word.raw_span(i, end), quoted)
            value = self.several(match[0]) if value is None else value
        else:
            self.add(word.cut(i, end))
            return end
        self.put(value, quoted, word.cut(i, end))
        return end

    def several(self, name: str) -> Value:
        """The words of a variable of which some can't be known."""
        variable = self.scope.variables.get(name)
        words = variable.partly if variable else None
        return words if words and re.search(r"\s", words.text) else None

    def digits(self, name: str) -> str | None:
        value, _ = self.scope.value(name, (0, 0))
        return value.text if isinstance(value, Traced) else None

    def special(self, name: str, span: Span, quoted: bool) -> Value:
        arguments = self.scope.arguments
        if name in ("0", "BASH_SOURCE"):
            return Traced.computed(self.scope.name, span)
        if name.isdigit():
            return arguments[int(name) - 1] if int(name) <= len(arguments) else NOTHING
        if name in "@*":
            return arguments if name == "@" or not quoted else None
        if name == "#":
            return Traced.computed(str(len(arguments)), span)
        return None if name in "?$!-" else self.scope.value(name, span)[0]

    def parameter(self, inner: Traced, span: Span, quoted: bool) -> Value:
        match = PARAMETER.match(inner.text)
        if match is None:
            return None
        name, index, action = match.groups()
        rest = inner.cut(match.end(), len(inner.text))
        if name == "BASH_SOURCE":
            name, index = "0", None
        if name.isdigit() or name in "@*":
            value: Value = self.special(name, span, quoted)
            is_set = value is not NOTHING
        else:
            value, is_set = self.scope.value(name, span)
        if isinstance(value, tuple) and index not in ("@", "*") and name not in ("@", "*"):
            at = reckoned(index or "0", self.digits)
            if at is None:
                return None
            value = value[at] if -len(value) <= at < len(value) else NOTHING
        elif index not in (None, "@", "*", "0") and not isinstance(value, tuple):
            return None
        if action is None:
            value = self.several(name) if value is None else value
            return value if not rest.text else None
        if isinstance(value, Traced) and not is_known(value):
            return None
        if action[-1] in "-=+?":
            empty = not is_set or (
                action[0] == ":" and isinstance(value, Traced) and not value.text
            )
            if value is None and is_set:
                return None
            if action[-1] == "+":
                return NOTHING if empty else self.other(rest)
            return (None if action[-1] == "?" else self.other(rest)) if empty else value
        return _stripped(value, action, rest.text) if isinstance(value, Traced) else None

    def other(self, rest: Traced) -> Value:
        return string(rest, self.scope)


def _ansi(value: Traced) -> Traced:
    result, i = NOTHING, 0
    while i < len(value.text):
        step = 2 if value.text[i] == "\\" and i + 1 < len(value.text) else 1
        char = ESCAPES.get(value.text[i + 1], value.text[i : i + 2]) if step == 2 else value.text[i]
        result = result + Traced.computed(char, value.raw_span(i, i + step))
        i += step
    return result


def _stripped(value: Traced, action: str, pattern: str) -> Value:
    """`${x%pat}` and its three sisters."""
    if "$" in pattern or "`" in pattern:
        return None
    pattern, size = pattern.strip("'\""), len(value.text)
    ends = range(size + 1) if action[0] == "#" else range(size, -1, -1)
    for end in reversed(ends) if len(action) == 2 else ends:
        rest = value.text[:end] if action[0] == "#" else value.text[end:]
        if fnmatch.fnmatchcase(rest, pattern):
            return value.cut(end, size) if action[0] == "#" else value.cut(0, end)
    return value


def substitution(inner: Traced, span: Span, scope: Scope) -> Value:
    """The output of a command, for the few that only turn words into words."""
    cut = [t for t in tokens(inner.text) if t.raw != "\n"]
    commands: list[list[str]] = [[]]
    for token in cut:
        if token.kind == "op":
            if token.raw not in ("&&", ";"):
                return None
            commands.append([])
        elif token.kind == "redirect" and token.raw not in (">", "2>"):
            return None
        elif token.kind == "word" and not token.raw.startswith("/dev/null"):
            fields = expand(inner.cut(token.start, token.end), scope)
            if not all(f.known for f in fields):
                return None
            commands[-1] += [f.text for f in fields]
    here = scope.cwd
    if len(commands) == 2 and commands[0][:1] == ["cd"]:
        here = here / [w for w in commands[0][1:] if w != "--"][-1]
        commands = commands[1:]
    if len(commands) != 1 or not commands[0]:
        return None
    if scope.elsewhere and commands[0][0] in ("hostname", "uname"):
        return None
    text = _output(commands[0], here)
    return None if text is None else Traced.computed(text, span)


def _output(words: list[str], here: Path) -> str | None:
    """What a harmless command would print, worked out and not run."""
    name, rest = words[0], [w for w in words[1:] if w != "--"]
    plain = [w for w in rest if not w.startswith("-")]
    if name == "pwd":
        return os.path.normpath(here)
    if name == "echo" and "-e" not in rest:
        return " ".join(w for w in rest if w != "-n")
    if name == "printf" and rest[:1] == ["%s"]:
        return "".join(rest[1:])
    if name in ("dirname", "basename") and len(plain) == 1:
        path = plain[0].rstrip("/") or "/"
        return (os.path.dirname(path) or ".") if name == "dirname" else os.path.basename(path)
    if name in ("readlink", "realpath") and len(plain) == 1 and (name == "realpath" or rest[:-1]):
        return os.path.realpath(here / plain[0])
    if name == "seq" and plain == rest and all(re.fullmatch(r"\d{1,6}", w) for w in rest):
        numbers = [int(w) for w in rest]
        first, last = (1, numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[-1])
        step = numbers[1] if len(numbers) == 3 and numbers[1] else 1
        return "\n".join(map(str, range(first, last + 1, step)[:MOST])) if rest else None
    if name in ("hostname", "uname") and rest == ([] if name == "hostname" else ["-n"]):
        return os.uname().nodename
    return None
