"""A script's text while it is corrected: spans replaced, lines put in, all else as it was."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddp_assist.app.fixes.model import FileEdit
from ddp_assist.probes.script.read import Source, parse, read_source

Place = Sequence[int]
"""line, column, end line, end column; lines from 1, columns from 0 in characters."""


@dataclass(slots=True)
class Text:
    """One file and the edits that are to be made to it."""

    source: Source
    _edits: list[tuple[int, int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Text:
        return cls(read_source(path))

    @property
    def newline(self) -> str:
        return "\r\n" if "\r\n" in self.source.text else "\n"

    def offset(self, line: int, col: int) -> int:
        """Where a line and column lie in the text."""
        starts = [0, *(m.end() for m in re.finditer(r"\r\n|\r|\n", self.source.text))]
        return starts[line - 1] + col if line <= len(starts) else len(self.source.text)

    def replace(self, place: Place, text: str) -> None:
        start, end = self.offset(place[0], place[1]), self.offset(place[2], place[3])
        self._edits.append((start, end, text))

    def get(self, place: Place) -> str:
        return self.source.text[self.offset(place[0], place[1]) : self.offset(place[2], place[3])]

    def insert(self, line: int, *lines: str) -> None:
        """New lines in front of that line."""
        at = self.offset(line, 0)
        text = "".join(one + self.newline for one in lines)
        before = self.source.text[:at]
        if before and not before.endswith(("\n", "\r")):
            text = self.newline + text
        self._edits.append((at, at, text))

    def insert_first(self, line: int, *lines: str) -> None:
        """New lines in front of that line, and in front of what was put there before."""
        self.insert(line, *lines)
        self._edits.insert(0, self._edits.pop())

    def delete_lines(self, first: int, last: int) -> None:
        self._edits.append((self.offset(first, 0), self.offset(last + 1, 0), ""))

    def dedent(self, first: int, last: int, col: int) -> None:
        """Lines moved to the left, so that the first of them begins at that column."""
        cut = len(self.indentation(first)) - col
        inside = inside_strings(self.source)
        for line in range(first, last + 1):
            if line not in inside and self.source.line(line)[:cut].isspace():
                self.replace([line, 0, line, cut], "")

    def indent(self, first: int, last: int, by: str = "    ") -> None:
        """Indent whole statements; what lies inside a text of several lines stays as it is."""
        inside = inside_strings(self.source)
        for number in range(first, last + 1):
            if self.source.line(number).strip() and number not in inside:
                at = self.offset(number, 0)
                self._edits.append((at, at, by))

    def indentation(self, line: int) -> str:
        return re.match(r"[ \t]*", self.source.line(line))[0]  # type: ignore[index]

    def add_import(self, statement: str, anyway: bool = False) -> None:
        """An import, with its kind among the others."""
        there = re.search(rf"(?m)^\s*{re.escape(statement)}\s*(#.*)?$", self.source.text)
        if there and not anyway:
            return
        if any(statement in text for _, _, text in self._edits):
            return
        tree = self.source.tree
        body = tree.body if tree is not None else []
        imports = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
        future = [n for n in imports if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
        plain = [n for n in imports if n not in future]
        if plain:
            foreign = statement.split()[1].partition(".")[0] not in sys.stdlib_module_names
            self.insert(
                plain[-1].end_lineno + 1 if foreign and plain[-1].end_lineno else plain[0].lineno,
                statement,
            )
            return
        start = (future[-1].end_lineno or 0) + 1 if future else 1
        first = body[0] if body else None
        if not future and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            start = (first.end_lineno or 0) + 1
        while self.source.line(start).startswith("#"):
            start += 1
        self.insert(start, statement)

    @property
    def after(self) -> str:
        """The corrected text. Of edits at one place the earlier asked for comes first."""
        text = self.source.text
        order = sorted(enumerate(self._edits), key=lambda e: (e[1][0], e[1][1] > e[1][0], e[0]))
        out: list[str] = []
        done = 0
        for _, (start, end, new) in order:
            if start < done:
                raise ValueError("two edits overlap")
            out += [text[done:start], new]
            done = end
        return "".join([*out, text[done:]])

    @property
    def changed(self) -> bool:
        return bool(self._edits)

    def corrected(self) -> FileEdit | None:
        """The edit, if there is one and Python can parse what comes out."""
        if not self._edits or self.source.notebook:
            return None
        after = self.after
        if after == self.source.text or parse(self.source.path, after).problem is not None:
            return None
        return FileEdit(self.source.path, self.source.text, after)

    def node_at(
        self, place: Place, kind: type[ast.AST] | tuple[type[ast.AST], ...]
    ) -> ast.AST | None:
        """The node of that kind with exactly this place."""
        for node in ast.walk(self.source.tree) if self.source.tree is not None else ():
            if isinstance(node, kind) and self.place(node) == list(place):
                return node
        return None

    def place(self, node: ast.AST) -> list[int]:
        at = self.source.span(node)
        return [at.line, at.col, at.end_line, at.end_col]

    def statement_at(self, line: int) -> ast.stmt | None:
        """The innermost statement that holds a line."""
        found: ast.stmt | None = None
        for node in ast.walk(self.source.tree) if self.source.tree is not None else ():
            holds = isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
            if isinstance(node, ast.stmt) and holds:
                found = node if found is None or node.lineno >= found.lineno else found
        return found


def inside_strings(source: Source) -> set[int]:
    """Lines that begin inside a text of several lines."""
    lines: set[int] = set()
    for node in ast.walk(source.tree) if source.tree is not None else ():
        text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        if isinstance(node, ast.Constant | ast.JoinedStr) and (
            text or not isinstance(node, ast.Constant)
        ):
            lines |= set(range(node.lineno + 1, (node.end_lineno or 0) + 1))
    return lines


def argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """What a call is given for a parameter."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None


def append_argument(text: Text, call: ast.Call, argument_text: str) -> None:
    """One more argument at the end of a call."""
    line, col = text.place(call)[2], text.place(call)[3] - 1
    parts = [*call.args, *(k.value for k in call.keywords)]
    before = text.source.text[: text.offset(line, col)].rstrip()
    comma = "" if not parts or before.endswith(",") else ", "
    text.replace([line, col, line, col], comma + argument_text)


def prefix(text: Text, call: ast.Call) -> str:
    """`dist.` of `dist.init_process_group`, with an import where the function stands alone."""
    if isinstance(call.func, ast.Attribute):
        return text.source.code(call.func.value) + "."
    text.add_import("import torch.distributed as dist")
    return "dist."


def imported_as(text: Text, module: str) -> str:
    """The name under which a file knows torch.distributed, or multiprocessing (torch's is one)."""
    ways = {module, f"torch.{module}"} if module == "multiprocessing" else {module}
    for node in ast.walk(text.source.tree or ast.Pass()):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ways:
                    return alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in ways:
                    return alias.asname or alias.name
    short = {"torch.distributed": "dist", "torch.multiprocessing": "mp"}.get(module)
    text.add_import(f"import {module} as {short}" if short else f"import {module}")
    return short or module


def names_in(node: ast.AST) -> set[str]:
    """All names that are read or written in a piece of code."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def stored_in(*statements: ast.AST) -> set[str]:
    """The names that these bind where they stand, not those inside of what they define."""
    names: set[str] = set()
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).partition(".")[0] for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        names |= stored_in(*ast.iter_child_nodes(node))
    return names
