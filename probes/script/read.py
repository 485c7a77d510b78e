"""Training scripts as text and syntax tree: read, never run, never imported."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MOST_BYTES = 4_000_000
MOST_LINES = 60_000
MOST_FILES = 120


class ScriptError(ValueError):
    """A script that can't be looked at; the message is one clause for the user."""


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a file: lines count from 1, columns from 0 in characters."""

    line: int
    col: int
    end_line: int
    end_col: int


@dataclass(frozen=True, slots=True)
class SyntaxProblem:
    """Why Python can't parse the file, and where."""

    message: str
    line: int
    col: int


@dataclass(slots=True)
class Source:
    """One file. `tree` is None where Python can't parse it, then `problem` says why."""

    path: Path
    text: str
    name: str = "__main__"
    tree: ast.Module | None = None
    problem: SyntaxProblem | None = None
    notebook: bool = False
    cells: tuple[tuple[int, int], ...] = ()
    """Of a notebook: (first line in `text`, number of the cell)."""
    lines: list[str] = field(default_factory=list)

    def span(self, node: ast.AST) -> Span:
        """The node's place in characters; ast counts columns in bytes of UTF-8."""
        line, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
        return Span(
            line,
            self._chars(line, getattr(node, "col_offset", 0)),
            end,
            self._chars(end, getattr(node, "end_col_offset", 0)),
        )

    def _chars(self, line: int, col: int) -> int:
        text = self.line(line)
        return col if text.isascii() else len(text.encode()[:col].decode(errors="replace"))

    def line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def code(self, node: ast.AST) -> str:
        """The node's own text."""
        at = self.span(node)
        rows = self.lines[at.line - 1 : at.end_line]
        if not rows:
            return ""
        rows[-1] = rows[-1][: at.end_col]
        rows[0] = rows[0][at.col :]
        return "\n".join(rows)

    def where(self, line: int) -> str:
        """`train.py:12`, or for a notebook the cell and the line in it."""
        for first, number in reversed(self.cells):
            if line >= first:
                return f"{self.path.name}, cell {number}, line {line - first + 1}"
        return f"{self.path.name}:{line}"


@dataclass(slots=True)
class Project:
    """The script and the files of the same project that it imports, read on demand."""

    main: Source
    roots: tuple[Path, ...]
    instead: Mapping[Path, str] = field(default_factory=dict)
    """Corrected texts that are read in place of the files."""
    sources: dict[str, Source | None] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def module(self, name: str) -> Source | None:
        """The file of the project that `import name` means, or None for a foreign module."""
        if name not in self.sources:
            self.sources[name] = self._find(name) if len(self.sources) < 20 * MOST_FILES else None
        return self.sources[name]

    def _find(self, name: str) -> Source | None:
        if sum(s is not None for s in self.sources.values()) >= MOST_FILES:
            return None
        relative = Path(*name.split("."))
        for root in self.roots:
            for path in (root / relative.with_suffix(".py"), root / relative / "__init__.py"):
                if path.is_file() and path != self.main.path:
                    try:
                        return read_source(path, name, self.instead)
                    except ScriptError as error:
                        self.refused.append(f"{path.name}: {error}")
                        return None
        return None

    def read(self) -> Iterator[Source]:
        yield self.main
        yield from (s for s in self.sources.values() if s is not None)


def read_project(
    script: Path, cwd: Path | None = None, instead: Mapping[Path, str] | None = None
) -> Project:
    """Read `script`; what it imports from its folder, or from `cwd`, is read when asked for."""
    main = read_source(script, instead=instead or {})
    roots = [script.parent, *([cwd] if cwd and cwd != script.parent else [])]
    return Project(main, tuple(roots), instead or {})


def read_source(
    path: Path, name: str = "__main__", instead: Mapping[Path, str] | None = None
) -> Source:
    if instead and path in instead:
        return parse(path, instead[path], name)
    try:
        if not path.is_file():
            raise ScriptError("there is no such file" if not path.exists() else "it is not a file")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ScriptError(f"it can't be read: {error.strerror}") from error
    if len(raw) > MOST_BYTES:
        raise ScriptError(f"it is longer than {MOST_BYTES:,} bytes, which no script is")
    if raw.count(b"\n") > MOST_LINES:
        raise ScriptError(f"it has more than {MOST_LINES:,} lines, which no script has")
    if path.suffix == ".ipynb":
        return _notebook(path, raw, name)
    return parse(path, _decoded(raw), name)


def parse(path: Path, text: str, name: str = "__main__") -> Source:
    """The syntax tree of `text`, or the reason why there is none."""
    source = Source(path, text, name, lines=re.split(r"\r\n|\r|\n", text))
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        source.problem = SyntaxProblem("source code can't contain null bytes", line, 0)
        return source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a script's own invalid escapes are its business
            source.tree = ast.parse(text, filename=path.name)
    except SyntaxError as error:
        source.problem = SyntaxProblem(
            error.msg, error.lineno or 1, max(0, (error.offset or 1) - 1)
        )
    except (RecursionError, MemoryError, ValueError) as error:
        raise ScriptError(f"Python's parser gives up on it: {type(error).__name__}") from error
    return source


def _decoded(raw: bytes) -> str:
    """The text as Python would decode it: BOM, PEP 263, else UTF-8."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except SyntaxError as error:
        raise ScriptError(f"its encoding is wrong: {error.msg}") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise ScriptError(f"its encoding is wrong: {error}") from error
    return text.removeprefix("\ufeff")


def _notebook(path: Path, raw: bytes, name: str) -> Source:
    try:
        cells = json.loads(raw)["cells"]
        codes = [
            (number, "".join(cell["source"]))
            for number, cell in enumerate(cells, 1)
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ScriptError("it is no notebook that can be read") from error
    lines: list[str] = []
    starts: list[tuple[int, int]] = []
    for number, code in codes:
        starts.append((len(lines) + 1, number))
        lines += _without_magics(code)
    source = parse(path, "\n".join(lines), name)
    source.notebook, source.cells = True, tuple(starts)
    return source


def _without_magics(code: str) -> list[str]:
    """The lines of a cell; what only IPython understands becomes `pass` and keeps its place."""
    lines = code.splitlines()
    if lines and lines[0].startswith("%%"):
        return ["pass"] * len(lines)
    return [
        re.sub(r"\S.*", "pass", line) if re.match(r"\s*[%!?]|\s*\w+\?{1,2}$", line) else line
        for line in lines
    ]
