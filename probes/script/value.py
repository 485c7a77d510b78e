"""What is known of a value without running anything: a constant, what it is, what it depends on."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ddp_assist.probes.script.read import Source


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """`kind` is a dotted path: `torch.distributed`; `torch.distributed.TCPStore()` is what it made.

    `role` says what it is identical with (rank, local-rank, index, world-size, env:NAME, arg:name),
    `of` what it depends on. `pattern` is text with {} where a part is unknown.
    """

    const: Any = UNKNOWN
    role: str = ""
    of: frozenset[str] = NOTHING
    kind: str = ""
    items: list[Value] | None = None
    table: dict[Any, Value] | None = None
    exact: bool = False
    """`items` is the whole list, not one example of what is in it."""
    pattern: str = ""
    target: Function | Class | Instance | Module | None = None
    call: Call | None = None
    mix: Mix | None = None
    count: int | None = None
    """How many items it has; of an index, how many there are."""

    @property
    def known(self) -> bool:
        return self.const is not UNKNOWN

    @property
    def number(self) -> int | None:
        """The constant as a whole number, where it is one or spells one."""
        if isinstance(self.const, bool) or not isinstance(self.const, int | str):
            return None
        try:
            return int(self.const)
        except ValueError:
            return None

    @property
    def text(self) -> str:
        """The constant text, or the pattern with {} for what is not known."""
        return self.const if isinstance(self.const, str) else self.pattern

    def without_const(self) -> Value:
        return replace(self, const=UNKNOWN)


@dataclass(frozen=True, slots=True)
class Mix:
    """The place where a rank is added to something that is the same for all, and that something."""

    source: Source
    node: ast.AST
    keep: ast.AST


@dataclass(slots=True, eq=False)
class Function:
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    source: Source
    names: Mapping[str, Value]
    """The names around it: its module's, or those of the function it is defined in."""
    owner: Value | None = None
    local: bool = False
    module: Module | None = None
    first: Value | None = None
    """What is put in front of the arguments: the object of a method."""
    given: tuple[Value, ...] = ()
    """Arguments that functools.partial has already given."""
    named: Mapping[str, Value] = field(default_factory=dict)
    guarded: bool = False
    """Defined under the main guard, where no spawned child finds it."""
    closure: bool = False
    """It sees the names around it, though a module knows it by name."""

    def decorated(self, *endings: str) -> bool:
        """Whether a decorator's name ends so."""
        return any(
            ast.unparse(d.func if isinstance(d, ast.Call) else d).endswith(endings)
            for d in getattr(self.node, "decorator_list", ())
        )

    @property
    def name(self) -> str:
        return "lambda" if isinstance(self.node, ast.Lambda) else self.node.name


@dataclass(slots=True, eq=False)
class Class:
    node: ast.ClassDef
    source: Source
    names: dict[str, Value]
    bases: list[Value]
    local: bool = False
    guarded: bool = False

    def find(self, name: str) -> Value | None:
        """A method or class attribute, looked up along the bases that are in the project."""
        if name in self.names:
            return self.names[name]
        for base in self.bases:
            if isinstance(base.target, Class) and base.target is not self:
                found = base.target.find(name)
                if found is not None:
                    return found
        return None

    def fields(self) -> dict[str, Value | None] | None:
        """The fields of a dataclass or named tuple with their defaults; None for other classes."""
        marks = [
            ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in self.node.decorator_list
        ]
        plain = any(m.endswith(("dataclass", "define", "attr.s", "frozen")) for m in marks)
        if not plain and not self.comes_from("NamedTuple", "BaseModel"):
            return None
        found: dict[str, Value | None] = {}
        for base in self.bases:
            if isinstance(base.target, Class) and base.target is not self:
                found |= base.target.fields() or {}
        for part in self.node.body:
            if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name):
                continue
            if "ClassVar" not in ast.unparse(part.annotation):
                found[part.target.id] = self.names.get(part.target.id)
        return found

    def comes_from(self, *endings: str) -> bool:
        """Whether a foreign base's path ends so."""
        return any(
            base.kind.endswith(endings)
            or (
                isinstance(base.target, Class)
                and base.target is not self
                and base.target.comes_from(*endings)
            )
            for base in self.bases
        )


@dataclass(slots=True, eq=False)
class Instance:
    owner: Class | None
    attrs: dict[str, Value] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    """Attributes that forward() looks at."""


@dataclass(slots=True, eq=False)
class Module:
    source: Source
    names: dict[str, Value]
    later: dict[str, int] = field(default_factory=dict)
    """Where the module's functions and classes are defined."""
    line: int = 0
    """The statement of the module's body that runs now."""
    guarded: set[str] = field(default_factory=set)
    """Names that are only bound under the main guard."""


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """The process a call happens in: the script itself, or a child that it starts."""

    number: int
    via: str = "main"
    """main, spawn (mp.spawn), process, pool."""
    method: str = "spawn"
    """How it was started: spawn, fork or forkserver."""
    call: Call | None = None
    function: Function | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Something that happens, in order: a call, a write to the environment, an item assignment."""

    name: str
    node: ast.AST
    source: Source
    args: tuple[Value, ...] = ()
    kwargs: Mapping[str, Value] = field(default_factory=dict)
    receiver: Value | None = None
    process: Process = field(default_factory=lambda: Process(0))
    path: tuple[tuple[int, bool], ...] = ()
    """Branches taken where the condition is not known: (id of the `if`, which way)."""
    tests: tuple[Value, ...] = ()
    """The conditions of those branches."""
    guarded: bool = False
    """Under `if __name__ == "__main__"`."""
    handler: bool = False
    """In an except block."""
    tries: tuple[ast.Try, ...] = ()
    within: tuple[Value, ...] = ()
    """What the surrounding with statements entered."""
    stack: tuple[ast.AST, ...] = ()
    """The calls in the project's own functions that lead here."""
    stray: bool = False
    """In a function that nothing in the project calls."""
    thread: bool = False
    loops: tuple[ast.AST, ...] = ()
    """The loops around it, also those around the calls that lead here."""
    top: bool = False
    """At the level of a module."""
    partial: bool = False
    """Called with *args or **kwargs that are not known."""

    @property
    def looped(self) -> bool:
        return bool(self.loops)

    def get(self, name: str, position: int | None = None) -> Value | None:
        """An argument by keyword or position."""
        if name in self.kwargs:
            return self.kwargs[name]
        if position is not None and position < len(self.args):
            return self.args[position]
        return None

    def node_of(self, name: str, position: int | None = None) -> ast.expr | None:
        """The expression given for an argument."""
        if not isinstance(self.node, ast.Call):
            return None
        for keyword in self.node.keywords:
            if keyword.arg == name:
                return keyword.value
        if position is not None and position < len(self.node.args):
            return self.node.args[position]
        return None

    def depends(self, *words: str) -> bool:
        """Whether it only happens under a condition on one of these."""
        return any(word in test.of for test in self.tests for word in words)

    def excludes(self, other: Call) -> bool:
        """Whether the two lie on different branches of one condition."""
        mine = dict(self.path)
        return any(node in mine and mine[node] != way for node, way in other.path)


Names = dict[str, Value]
Args = list[Value]
Kwargs = Mapping[str, Value]


def join(first: Value, second: Value) -> Value:
    """What is known of a value that is one or the other."""
    if first is second:
        return first
    same = first.known and second.known and type(first.const) is type(second.const)
    return Value(
        const=first.const if same and first.const == second.const else UNKNOWN,
        role=first.role if first.role == second.role else "",
        of=first.of | second.of,
        kind=first.kind
        if first.kind == second.kind or not second.kind
        else second.kind
        if not first.kind
        else "",
        items=first.items if first.items is not None else second.items,
        table=first.table if first.table is not None else second.table,
        target=first.target if first.target is not None else second.target,
        call=first.call or second.call,
        mix=first.mix or second.mix,
    )


def union(values: Iterable[Value]) -> frozenset[str]:
    """Everything that these depend on."""
    seen = NOTHING
    for value in values:
        if value.of:
            seen = seen | value.of
    return seen
