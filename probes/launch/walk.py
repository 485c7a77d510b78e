"""A shell script followed from top to bottom without running it: each command and its scope."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ddp_assist.probes.launch.expand import Field, Scope, Value, Variable, expand, is_known, partly
from ddp_assist.probes.launch.mistakes import DECLARING, mistakes
from ddp_assist.probes.launch.plan import Assignment, LaunchError, Note, Span
from ddp_assist.probes.launch.shell import (
    ASSIGNED,
    DEEPEST,
    ELSEWHERE,
    NOTHING,
    Token,
    Traced,
    tokens,
)

LARGEST = 1 << 20
GROUPS = {"(": ")", "{": "}"}
PASSED_OVER = frozenset({"then", "do", "else", "elif", "!", "{", "}", "time", "done", "fi",
                         "esac"})  # fmt: skip
LOOP = re.compile(
    r"\(\(\s*(\w+)\s*=\s*(\d+)\s*;\s*\1\s*(<=?)\s*\$?\{?(\w+)\}?\s*;\s*(?:\1\+\+|\+\+\1)"
)
MOST_TURNS, MOST_COMMANDS = 256, 20_000


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command with its words expanded, and what is in force where it stands."""

    words: tuple[Field, ...]
    scope: Scope
    line: tuple[Assignment, ...]
    span: Span
    background: bool = False
    repeated: bool = False
    conditional: bool = False
    depth: int = 0
    host: str | None = None


class Walk:
    """Goes over one script. What it calls for each command may walk into a nested one."""

    def __init__(
        self, text: Traced, scope: Scope, notes: list[Note], meet: Callable[[Command], None],
        outer: Command | None = None,
    ) -> None:  # fmt: skip
        if len(text.text) > LARGEST:
            raise LaunchError("the launch script is larger than 1 MB, so it was not read")
        self.text, self.scope, self.notes, self.meet = text, scope, notes, meet
        self.outer = outer
        self.depth = outer.depth + 1 if outer else 0
        if self.depth > DEEPEST:
            raise LaunchError("the launch is nested too deeply to be read")
        self.tokens = tokens(text.text)
        self.maybe = 0
        self.turning = 0
        self.behind = 0
        self.met = 0
        self.calls = 0
        self.functions: dict[str, tuple[int, int]] = {}
        self.called: set[str] = set()

    def whole(self) -> None:
        self.run(0, len(self.tokens))
        for name, (start, end) in list(self.functions.items()):
            if name not in self.called:
                self.maybe += 1
                self.run(start, end)
                self.maybe -= 1

    def run(self, i: int, end: int) -> None:
        scopes: list[Scope] = []
        groups: list[bool] = []
        tested = fallback = False
        while i < end:
            token = self.tokens[i]
            if token.raw in GROUPS:
                groups.append(self.is_behind(i, end))
                self.behind += groups[-1]
            elif token.raw in GROUPS.values() and groups:
                self.behind -= groups.pop()
            if token.kind == "op":
                if token.raw == "(":
                    scopes.append(self.scope)
                    self.scope = self.scope.copy()
                elif token.raw == ")" and scopes:
                    self.scope = scopes.pop()
                fallback = token.raw == "||" or (token.raw == "&&" and (tested or fallback))
                i += 1
            elif token.raw in ("for", "select"):
                i = self.loop(i, end)
            elif token.raw == "case":
                i = self.case(i, end)
            elif token.raw in ("while", "until"):
                self.turning += 1
                i += 1
            elif token.raw in PASSED_OVER or token.raw in ("if", "function"):
                self.maybe += (token.raw == "if") - (token.raw in ("fi", "esac"))
                self.turning -= token.raw == "done"
                i += 1
            elif self.raw(i + 1) == "(" and self.raw(i + 2) == ")":
                i = self.define(token.raw, i + 3, end)
            elif self.raw(i - 1) == "function" and self.raw(i + 1) == "{":
                i = self.define(token.raw, i + 1, end)
            else:
                tested = token.raw.startswith(("[", "test"))
                self.maybe += fallback
                i = self.command(i, end)
                self.maybe -= fallback
                if self.raw(i) == ";;":
                    i = self.skip_to(i + 1, end, ")", "esac")
                    i += self.raw(i) == ")"

    def is_behind(self, i: int, end: int) -> bool:
        """Whether the group that opens at `i` runs in the background."""
        level, opening = 0, self.raw(i)
        for at in range(i, end):
            level += (self.raw(at) == opening) - (self.raw(at) == GROUPS[opening])
            if level == 0:
                return self.raw(at + 1) == "&"
        return False

    def raw(self, i: int) -> str:
        return self.tokens[i].raw if 0 <= i < len(self.tokens) else ""

    def skip_to(self, i: int, end: int, *raws: str) -> int:
        while i < end and self.tokens[i].raw not in raws:
            i += 1
        return i

    def case(self, i: int, end: int) -> int:
        """Into the branch that is surely taken; else into the first of them, which all may be."""
        first = self.skip_to(i, end, "in") + 1
        close = self.matching(i, end, ("case",), "esac")
        taken = self.branch(i + 1, first, close)
        if taken is None:
            self.maybe += 1
            return self.skip_to(first, end, ")") + 1
        self.run(*taken)
        return close + 1

    def branch(self, word: int, first: int, close: int) -> tuple[int, int] | None:
        """The commands of the first branch whose pattern fits, where word and patterns are known.
        Where none fits, the word may be another when it runs, e.g. the name of a node."""
        asked = self.known(word)
        while asked is not None and first < close:
            start = self.skip_to(first, close, ")") + 1
            stop, level = start, 0
            while stop < close and (level or self.raw(stop) not in (";;", ";&", ";;&")):
                level += (self.raw(stop) == "case") - (self.raw(stop) == "esac")
                stop += 1
            for at in range(first, start):
                if self.tokens[at].kind != "word":
                    continue
                pattern = self.known(at)
                if pattern is None:
                    return None
                if fnmatch.fnmatchcase(asked, pattern):
                    return (start, stop) if self.raw(stop) in (";;", "esac") else None
            first = stop + 1
        return None

    def known(self, i: int) -> str | None:
        fields = expand(self.piece(self.tokens[i]), self.scope) if i < len(self.tokens) else []
        return fields[0].text if len(fields) == 1 and fields[0].known else None

    def matching(self, i: int, end: int, opening: tuple[str, ...], closing: str) -> int:
        """The index of the word that closes the block opened at `i`, both at a command's place."""
        level = 0
        for at in range(i, end):
            token = self.tokens[at]
            first = token.kind == "word" and (
                at == 0 or self.tokens[at - 1].kind == "op" or self.raw(at - 1) in PASSED_OVER
            )
            if first and token.raw in opening:
                level += 1
            elif first and token.raw == closing:
                level -= 1
                if level == 0:
                    return at
        return end

    def define(self, name: str, i: int, end: int) -> int:
        while i < end and self.raw(i) == "\n":
            i += 1
        close = self.matching(i, end, ("{",), "}") if self.raw(i) == "{" else end
        self.functions[name] = (i + 1, close)
        return close + 1

    def loop(self, i: int, end: int) -> int:
        start = self.skip_to(i, end, "do")
        close = self.matching(start, end, ("do",), "done")
        head = [t for t in self.tokens[i + 1 : start] if t.kind == "word"]
        name, items = self.turns(head)
        if name and items is not None and len(items) <= MOST_TURNS:
            for item in items:
                self.scope.variables[name] = Variable(item)
                self.run(start + 1, close)
        else:
            if name:
                self.scope.variables[name] = Variable(None)
            self.turning += 1
            self.run(start + 1, close)
            self.turning -= 1
        return close + 1

    def turns(self, head: list[Token]) -> tuple[str, list[Traced] | None]:
        if head and (counted := LOOP.match(head[0].raw)):
            bound: Value = Traced.written(counted[4])
            if not counted[4].isdigit():
                bound = self.scope.value(counted[4], (0, 0))[0]
            if not isinstance(bound, Traced) or not re.fullmatch(r"\d{1,6}", bound.text):
                return counted[1], None
            last = int(bound.text) + (counted[3] == "<=")
            span = self.text.raw_span(head[0].start, head[0].end)
            numbers = range(int(counted[2]), min(last, MOST_TURNS + 1))
            return counted[1], [Traced.computed(str(n), span) for n in numbers]
        if len(head) < 2 or head[1].raw != "in":
            return (head[0].raw if head and head[0].raw.isidentifier() else ""), None
        fields = [f for t in head[2:] for f in expand(self.piece(t), self.scope)]
        known = all(f.known and "*" not in f.text for f in fields)
        return head[0].raw, [f.value for f in fields] if known else None

    def piece(self, token: Token) -> Traced:
        return self.text.cut(token.start, token.end)

    def command(self, i: int, end: int) -> int:
        """Reads the simple command at `i`, does what it does to the scope, shows it if it runs."""
        self.met += 1
        if self.met > MOST_COMMANDS:
            raise LaunchError("the launch script runs too many commands to be followed")
        first, written = i, []
        while i < end and self.tokens[i].kind != "op":
            if self.tokens[i].kind == "redirect":
                i += 2
                continue
            written.append(self.tokens[i])
            i += 1
        i = min(i, end)
        last = self.tokens[max(first, i - 1)].end
        line: list[Assignment] = []
        while written and (match := ASSIGNED.match(written[0].raw)):
            line.append(self.assignment(self.piece(written.pop(0)), match))
        if not written:
            for one in line:
                self.store(one, exported=None)
            return i
        span = self.text.raw_span(self.tokens[first].start, last)
        self.notes += mistakes(line, written, span)
        if written[0].raw in DECLARING:
            self.declare(written)
            return i
        fields = tuple(f for t in written for f in expand(self.piece(t), self.scope))
        if fields and not self.builtin(fields, tuple(line), self.raw(i) == "&"):
            self.show(fields, tuple(line), span, i)
        self.scope.pending.clear()
        return i

    def show(
        self, words: tuple[Field, ...], line: tuple[Assignment, ...], span: Span, i: int
    ) -> None:
        over = self.outer
        while self.raw(i) in ("&&", "||", "|", "|&"):
            i += 1
            while i < len(self.tokens) and self.tokens[i].kind != "op":
                i += 1
        self.meet(
            Command(
                words,
                self.scope.copy(),
                line,
                over.span if over and span[0] == ELSEWHERE else span,
                self.raw(i) == "&" or self.behind > 0 or bool(over and over.background),
                self.turning > 0 or bool(over and over.repeated),
                self.maybe > 0 or bool(over and over.conditional),
                self.depth,
                over.host if over else None,
            )
        )

    def assignment(self, word: Traced, match: re.Match[str]) -> Assignment:
        value = word.cut(match.end(), len(word.text))
        span = word.raw_span(match.start(), len(word.text))
        inside = value.raw_span(0, len(value.text)) if value.text else (span[1], span[1])
        if match[2] or value.text.startswith("("):
            self.array(match, value)
            return Assignment(match[1], None, span, inside, exported=False)
        read: Traced | None = partly(value, self.scope)
        if match[3] == "+=" and read is not None:
            before = self.before(match[1], span)
            read = before + read if before is not None else None
        self.scope.pending[match[1]] = read
        known = read if read is not None and is_known(read) else None
        text = None if known is None else known.text
        return Assignment(match[1], text, span, (known and known.span()) or inside)

    def before(self, name: str, span: Span) -> Traced | None:
        """The text that `+=` adds to, with marks around what can't be known."""
        value = self.scope.value(name, span)[0]
        if value is None and name in self.scope.variables:
            return self.scope.variables[name].partly
        return value if isinstance(value, Traced) else None

    def array(self, match: re.Match[str], value: Traced) -> None:
        if match[2]:
            self.scope.pending[match[1]] = None
            return
        inner = value.cut(1, len(value.text) - 1)
        words = [t for t in tokens(inner.text) if t.kind == "word"]
        items: list[Traced] = []
        for token in words:
            fields = expand(inner.cut(token.start, token.end), self.scope)
            items += [one.carried for one in fields]
        before = self.scope.value(match[1], (0, 0))[0] if match[3] == "+=" else ()
        if isinstance(before, Traced):
            before = (before,) if before.text else ()
        self.scope.pending[match[1]] = None if before is None else (*before, *items)

    def store(self, one: Assignment, exported: bool | None) -> None:
        """Sets a variable of the script. What a branch that may not be taken sets is unclear."""
        value = self.scope.pending.pop(one.name, None)
        text = value if isinstance(value, Traced) else None
        if text is not None and not is_known(text):
            value = None
        before = self.scope.variables.get(one.name)
        if self.maybe and isinstance(value, Traced):
            old = self.scope.value(one.name, one.span)
            if old[1] and not (isinstance(old[0], Traced) and old[0].text == value.text):
                value, text, one = None, None, replace(one, value=None)
        out = exported if exported is not None else (
            self.scope.allexport or one.name in self.scope.user
            or (before is not None and before.exported)
        )  # fmt: skip
        self.scope.variables[one.name] = Variable(value, out, replace(one, exported=out), text)

    def declare(self, written: list[Token]) -> None:
        verb, rest = written[0].raw, written[1:]
        flags = "".join(t.raw[1:] for t in rest if t.raw.startswith("-"))
        exported = True if verb == "export" or "x" in flags else None
        for token in rest:
            match = ASSIGNED.match(token.raw)
            if match:
                self.store(self.assignment(self.piece(token), match), exported)
            elif token.raw.isidentifier() and exported:
                before = self.scope.variables.get(token.raw)
                if before is not None and "n" not in flags:
                    one = before.assignment and replace(before.assignment, exported=True)
                    self.scope.variables[token.raw] = replace(
                        before, exported=True, assignment=one
                    )

    def builtin(
        self, words: tuple[Field, ...], line: tuple[Assignment, ...], behind: bool
    ) -> bool:
        """What the shell itself does with its scope. True if that is all the command does."""
        name, rest = words[0].text, words[1:]
        plain = [w for w in rest if not w.text.startswith("-")]
        if name in ("cd", "pushd"):
            if len(plain) == 1 and plain[0].known:
                self.scope.cwd = Path(os.path.normpath(self.scope.cwd / plain[0].text))
        elif name == "unset":
            for word in plain:
                self.scope.variables.pop(word.text, None)
                self.scope.unset.add(word.text)
        elif name == "set":
            if rest and rest[0].text in ("-a", "+a"):
                self.scope.allexport = rest[0].text == "-a"
            elif rest and rest[0].text == "--":
                self.scope.arguments = tuple(w.carried for w in rest[1:])
        elif name == "shift":
            self.scope.arguments = self.scope.arguments[1:]
        elif name in ("read", "mapfile", "readarray"):
            for word in plain:
                self.scope.variables[word.text] = Variable(None)
        elif name in ("source", "."):
            self.source(plain)
        elif name == "eval" and all(w.known for w in rest):
            self.inner([w.value for w in rest])
        elif name in self.functions and self.calls < DEEPEST:
            self.called.add(name)
            arguments, self.scope.arguments = self.scope.arguments, tuple(w.carried for w in rest)
            self.calls += 1
            for one in line:
                self.store(one, exported=True)
            self.behind += behind
            self.run(*self.functions[name])
            self.behind -= behind
            self.calls -= 1
            self.scope.arguments = arguments
        else:
            return False
        return True

    def inner(self, parts: list[Traced]) -> None:
        text = NOTHING
        for number, part in enumerate(parts):
            text = text + Traced.computed(" ", (ELSEWHERE, ELSEWHERE)) if number else text
            text = text + part
        Walk(text, self.scope, self.notes, self.meet, self.state()).whole()

    def state(self) -> Command:
        over = self.outer
        return Command(
            (), self.scope, (), over.span if over else (0, 0), False, self.turning > 0,
            self.maybe > 0, self.depth, over.host if over else None,
        )  # fmt: skip

    def source(self, plain: list[Field]) -> None:
        if not plain or not plain[0].known:
            return
        path = self.scope.cwd / plain[0].text
        text = elsewhere(path)
        if text is not None and self.depth < DEEPEST and path.name != "activate":
            Walk(text, self.scope, [], self.meet, self.state()).whole()


def elsewhere(path: Path) -> Traced | None:
    """The text of another script, of which no character can be edited through this launch."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return None
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return None
    return Traced.computed(text, (ELSEWHERE, ELSEWHERE))
