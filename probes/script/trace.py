"""Follows a script as one rank would run it, without running it: which calls happen, in order.

Where a condition is known (it only depends on the rank, say) one branch is taken, else both.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ddp_assist.probes.script import bindings, flow, known
from ddp_assist.probes.script.evaluate import Evaluator
from ddp_assist.probes.script.flow import Body, run_with
from ddp_assist.probes.script.parts import bound
from ddp_assist.probes.script.read import Project, Source
from ddp_assist.probes.script.value import (
    Call,
    Class,
    Function,
    Instance,
    Module,
    Names,
    Process,
    Value,
)

MOST_STEPS = 60_000
MOST_CHILDREN = 40


class TooLong(Exception):
    """The budget of steps is used up: what was seen so far stands."""


@dataclass(slots=True)
class Settings:
    """What is assumed of the run: the rank, and which variables the launch sets."""

    rank: int = 0
    world: int | None = None
    present: Callable[[str], bool | None] = lambda name: None
    value: Callable[[str], str | None] = lambda name: None
    """What a variable holds when the script starts, where the launch tells."""
    arguments: tuple[tuple[str, ...], ...] = ()
    """The words each command of the launch gives the script; none where nobody says them."""
    argument_rank: bool = False
    """`--rank` of this script is the rank of the process (and not that of a LoRA)."""


@dataclass(slots=True)
class Trace:
    """What one rank does."""

    rank: int
    calls: list[Call] = field(default_factory=list)
    modules: dict[str, Module] = field(default_factory=dict)
    entered: set[int] = field(default_factory=set)
    """ids of the function nodes that were followed from the script's start."""
    functions: list[Function] = field(default_factory=list)
    classes: list[Class] = field(default_factory=list)
    complete: bool = True
    on_rank: set[int] = field(default_factory=set)
    """ids of what decides by the rank: `if`, `a if b else c`, `and`."""
    optional: set[str] = field(default_factory=set)
    """Modules whose absence the script lives with, by their first names."""


class Tracer:
    """Statements: what changes names and the way the script takes."""

    def __init__(self, project: Project, settings: Settings) -> None:
        self.project, self.settings = project, settings
        self.trace = Trace(settings.rank)
        self.process = Process(0)
        self.environ: Names = {}
        self.start_method: str | None = None
        self.source: Source = project.main
        self.module: Module | None = None
        self.names: Names = {}
        self.shared: set[str] = set()
        self.path: tuple[tuple[int, bool], ...] = ()
        self.tests: tuple[Value, ...] = ()
        self.within: tuple[Value, ...] = ()
        self.tries: tuple[ast.Try, ...] = ()
        self.stack: tuple[ast.AST, ...] = ()
        self.running: list[ast.AST] = []
        self.returned: list[Value] = []
        self.guarded = self.stray = self.local = False
        self.loops: tuple[ast.AST, ...] = ()
        self.arguments: dict[str, Value] = {}
        self.bodies: list[Body] = []
        self.handler = self.thread = self.steps = self.children = self.forgiving = 0
        self.evaluate = Evaluator(self)

    def run(self) -> Trace:
        """The script from its first line, then the functions that nothing calls."""
        try:
            self.start("__main__", self.project.main)
            self.stray = True
            for function in list(self.trace.functions):
                if id(function.node) not in self.trace.entered and not function.local:
                    self.evaluate.call_stray(function)
        except (TooLong, RecursionError):
            self.trace.complete = False
        return self.trace

    def start(self, name: str, source: Source) -> Module:
        """Run a module's body."""
        own = Value(const=str(source.path), kind="str")
        module = Module(source, {"__name__": self._name_of(name), "__file__": own})
        if name != "__main__" or source is self.project.main:
            self.trace.modules[name] = module
        if source.tree is not None:
            for part in source.tree.body:
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    module.later.setdefault(part.name, part.lineno)
            with self.inside(source, module.names, module):
                for part in source.tree.body:
                    module.line = part.lineno
                    if self.block([part]):
                        break
        module.line = len(source.lines) + 1
        return module

    def _name_of(self, name: str) -> Value:
        return Value(
            const=name, of=frozenset({"main-guard"}) if name == "__main__" else frozenset()
        )

    @contextlib.contextmanager
    def inside(
        self, source: Source, names: Names, module: Module | None, local: bool = False
    ) -> Iterator[None]:
        """Names and place of a module's or function's body."""
        kept = self.source, self.names, self.path, self.tests, self.shared, self.module, self.local
        self.source, self.names, self.shared, self.module, self.local = (
            source,
            names,
            set(),
            module,
            local,
        )
        try:
            yield
        finally:
            (
                self.source,
                self.names,
                self.path,
                self.tests,
                self.shared,
                self.module,
                self.local,
            ) = kept

    def step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooLong

    def happens(
        self,
        name: str,
        node: ast.AST,
        args: Sequence[Value] = (),
        kwargs: Mapping[str, Value] | None = None,
        receiver: Value | None = None,
        partial: bool = False,
    ) -> Call:
        call = Call(
            name,
            node,
            self.source,
            tuple(args),
            kwargs or {},
            receiver,
            self.process,
            self.path,
            self.tests,
            self.guarded,
            self.handler > 0,
            self.tries,
            self.within,
            self.stack,
            self.stray,
            self.thread > 0,
            self.loops,
            not self.local,
            partial,
        )
        self.trace.calls.append(call)
        return call

    def block(self, body: Sequence[ast.stmt]) -> str:
        """Run statements; the answer says how they ended: return, break, continue, or nothing."""
        for statement in body:
            self.step()
            do = _DO.get(type(statement))
            ended = do(self, statement) if do else ""
            if ended:
                return str(ended)
        return ""

    def load(self, name: str) -> Value:
        source = self.project.module(name)
        if source is None:
            return Value(kind=known.plain(name))
        module = self.trace.modules.get(name)
        if module is None:
            kept = self.process, self.guarded, self.tries, self.within, self.loops
            self.tries, self.within, self.loops = (), (), ()
            module = self.start(name, source)
            self.process, self.guarded, self.tries, self.within, self.loops = kept
        return Value(kind=name, target=module)

    def imports(self, name: str, node: ast.AST) -> None:
        """A module is wanted."""
        first = name.partition(".")[0]
        if self.forgiving:
            self.trace.optional.add(first)
        else:
            self.happens("import", node, (Value(const=first),))

    def bind(self, name: str, value: Value) -> None:
        module = self.module
        if name in self.shared and module is not None:
            module.names[name] = value
            return
        if module is not None and not self.local and self.names is module.names:
            if self.guarded and name not in module.names:
                module.guarded.add(name)
            elif not self.guarded:
                module.guarded.discard(name)
        self.names[name] = value

    def assign(self, target: ast.expr, value: Value, augmented: bool = False) -> None:
        if isinstance(target, ast.Name):
            self.bind(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            for index, part in enumerate(target.elts):
                if isinstance(part, ast.Starred):
                    self.assign(part.value, Value(of=value.of))
                elif value.exact and value.items is not None and index < len(value.items):
                    self.assign(part, value.items[index])
                else:
                    self.assign(
                        part, Value(of=value.of, kind=f"{value.kind}[]" if value.kind else "")
                    )
        elif isinstance(target, ast.Attribute):
            owner = self.evaluate(target.value)
            if isinstance(owner.target, Instance):
                owner.target.attrs[target.attr] = value
            self.happens(f"{owner.kind}.{target.attr}=", target, (value,), receiver=owner)
        elif isinstance(target, ast.Subscript):
            owner, key = self.evaluate(target.value), self.evaluate(target.slice)
            if owner.kind == "os.environ":
                self.set_environ(target, key, value)
                return
            if owner.table is not None and key.known:
                owner.table[key.const] = value
            if self.own_method(owner, "__setitem__", target, [key, value]) is not None:
                return
            name = "__iadd__" if augmented else "__setitem__"
            self.happens(f"{owner.kind}.{name}", target, (key, value), receiver=owner)

    def set_environ(self, node: ast.AST, key: Value, value: Value, soft: bool = False) -> None:
        """A write to os.environ; `soft` leaves alone what is there already (setdefault)."""
        self.happens("environ.setdefault" if soft else "environ.set", node, (key, value))
        if not isinstance(key.const, str):
            self.environ["*"] = Value()
        elif not (soft and (key.const in self.environ or self.settings.present(key.const))):
            self.environ[key.const] = value

    def own_method(
        self, owner: Value, name: str, node: ast.AST, args: Sequence[Value] = ()
    ) -> Value | None:
        """One of the script's own methods that Python calls by itself."""
        if not isinstance(owner.target, Instance) or owner.target.owner is None:
            return None
        found = owner.target.owner.find(name)
        if found is None or not isinstance(found.target, Function):
            return None
        return self.evaluate.follow(bound(self.evaluate, found, owner), args, {}, node)

    def yielded(self, value: Value) -> None:
        """What a `with` around a context manager of the project does while that waits."""
        frame = next((f for f in reversed(self.bodies) if not f.done), None)
        if frame is None or not self.running or self.running[-1] is not frame.generator:
            return
        frame.done = True
        kept, self.returned = self.returned, []
        shared = self.shared
        with self.inside(frame.source, frame.names, frame.module, frame.local):
            if frame.items[0].optional_vars is not None:
                self.assign(frame.items[0].optional_vars, value)
            running = self.running
            self.running = [n for n in running if n is not frame.generator]
            try:
                frame.ended = run_with(self, frame.items[1:], frame.body)
            finally:
                self.running = running
        self.shared = shared
        frame.returned, self.returned = self.returned, kept

    def child(
        self,
        via: str,
        method: str,
        call: Call,
        function: Value,
        args: Sequence[Value],
        kwargs: Mapping[str, Value] | None = None,
    ) -> None:
        """Follow a function, or an object that can be called, in a process of its own."""
        if isinstance(function.target, Instance) and function.target.owner is not None:
            found = function.target.owner.find("__call__")
            function = bound(self.evaluate, found, function) if found is not None else function
        target = function.target if isinstance(function.target, Function) else None
        with self._in_child(via, method, call, target):
            if target is not None and self.process.number < MOST_CHILDREN:
                self.evaluate.follow(function, args, kwargs or {}, call.node)

    def program(self, call: Call, source: Source, environ: Names) -> None:
        """Follow another script of the project in a process of its own."""
        with self._in_child("program", "program", call, None):
            if source.tree is None or self.process.number >= MOST_CHILDREN:
                return
            if source.tree in self.running:
                return
            for name, value in environ.items():
                self.set_environ(call.node, Value(const=name), value)
            self.running.append(source.tree)
            kept, self.arguments = self.arguments, {}
            self.start("__main__", source)
            self.arguments = kept
            self.running.pop()

    @contextlib.contextmanager
    def _in_child(
        self, via: str, method: str, call: Call, target: Function | None
    ) -> Iterator[None]:
        self.children += 1
        kept = {name: getattr(self, name) for name in _OF_A_PROCESS}
        self.process = Process(self.children, via, method, call, target)
        self.environ = dict(self.environ)
        self.path, self.tests, self.tries, self.within, self.loops = (), (), (), (), ()
        self.handler = 0
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(self, name, value)


_OF_A_PROCESS = (
    "process", "environ", "guarded", "path", "tests", "tries", "within", "handler", "loops",
    "start_method",
)  # fmt: skip
_DO = {**bindings.DO, **flow.DO}


def follow(project: Project, settings: Settings) -> Trace:
    """What one rank does."""
    return Tracer(project, settings).run()
