"""Follows a script as one rank would run it, without running it: which calls happen, in order.

Where a condition is known (it only depends on the rank, say) one branch is taken, else both.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddp_assist.probes.script import known
from ddp_assist.probes.script.read import Project, Source
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Call,
    Class,
    Function,
    Instance,
    Module,
    Process,
    Value,
    join,
)

MOST_STEPS = 60_000
DEEPEST = 14
Names = dict[str, Value]


class TooLong(Exception):
    """The budget of steps is used up: what was seen so far stands."""


@dataclass(slots=True)
class Settings:
    """What is assumed of the run: the rank, and which variables the launch sets."""

    rank: int = 0
    world: int | None = None
    present: Callable[[str], bool | None] = lambda name: None
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


class Tracer:
    """Statements: what changes names and the way the script takes."""

    def __init__(self, project: Project, settings: Settings) -> None:
        from ddp_assist.probes.script.evaluate import Evaluator

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
        self.guarded = self.stray = self.local = self.looped = False
        self.handler = self.thread = self.steps = self.children = 0
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
        module = Module(source, {"__name__": self._name_of(name), "__file__": Value(kind="str")})
        self.trace.modules[name] = module
        if source.tree is not None:
            with self.inside(source, module.names, module):
                self.block(source.tree.body)
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
            self.looped,
            not self.local,
            partial,
        )
        self.trace.calls.append(call)
        return call

    def block(self, body: Sequence[ast.stmt]) -> str:
        """Run statements; the answer says how they ended: return, break, continue, or nothing."""
        for statement in body:
            self.step()
            do = getattr(self, f"do_{type(statement).__name__}", None)
            ended = do(statement) if do else ""
            if ended:
                return str(ended)
        return ""

    # What binds names

    def do_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            found = self._import(alias.name)
            if alias.asname:
                self.bind(alias.asname, found)
            else:
                top = alias.name.partition(".")[0]
                self.bind(top, self._import(top))

    def do_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parts = [] if self.source.name == "__main__" else self.source.name.split(".")
            is_package = self.source.path.name == "__init__.py"
            up = node.level - 1 if is_package else node.level
            parts = parts[: len(parts) - up] if up else parts
            base = ".".join([*parts, *([base] if base else [])])
        module = self._import(base) if base else Value()
        for alias in node.names:
            if alias.name == "*":
                if isinstance(module.target, Module):
                    self.names.update(module.target.names)
                continue
            full = f"{base}.{alias.name}" if base else alias.name
            if isinstance(module.target, Module):
                value = module.target.names.get(alias.name) or self._import(full)
            elif not base or (self.project.module(full) if node.level else None):
                value = self._import(full)
            else:
                value = Value(kind=known.plain(full))
            self.bind(alias.asname or alias.name, value)

    def _import(self, name: str) -> Value:
        source = self.project.module(name)
        if source is None:
            return Value(kind=known.plain(name))
        module = self.trace.modules.get(name)
        if module is None:
            kept = self.process, self.guarded, self.tries, self.within, self.looped
            self.tries, self.within, self.looped = (), (), False
            module = self.start(name, source)
            self.process, self.guarded, self.tries, self.within, self.looped = kept
        return Value(kind=name, target=module)

    def do_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.evaluate(decorator)
        function = Function(node, self.source, self.names, None, self.local, self.module)
        self.trace.functions.append(function)
        self.bind(node.name, Value(target=function, kind=f"function:{node.name}"))

    do_AsyncFunctionDef = do_FunctionDef

    def do_ClassDef(self, node: ast.ClassDef) -> None:
        made = Class(
            node, self.source, {}, [self.evaluate(base) for base in node.bases], self.local
        )
        self.trace.classes.append(made)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                method = Function(
                    statement, self.source, self.names, Value(target=made), self.local, self.module
                )
                self.trace.functions.append(method)
                made.names[statement.name] = Value(target=method, kind=f"function:{statement.name}")
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
                value = self.evaluate(statement.value)
                targets = (
                    statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                )
                for target in targets:
                    if isinstance(target, ast.Name):
                        made.names[target.id] = value
        self.bind(node.name, Value(target=made, kind=f"class:{node.name}"))

    def bind(self, name: str, value: Value) -> None:
        if name in self.shared and self.module is not None:
            self.module.names[name] = value
        else:
            self.names[name] = value

    def do_Global(self, node: ast.Global) -> None:
        self.shared = self.shared | set(node.names)

    def do_Assign(self, node: ast.Assign) -> None:
        value = self.evaluate(node.value)
        for target in node.targets:
            self.assign(target, value)

    def do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value))

    def do_AugAssign(self, node: ast.AugAssign) -> None:
        value = self.evaluate.operation(node, node.target, node.op, node.value)
        if self.evaluate(node.target).kind == "os.environ":
            for key, item in (self.evaluate(node.value).table or {}).items():
                self.set_environ(node, Value(const=key), item)
            return
        self.assign(node.target, value, augmented=True)

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
            name = "__iadd__" if augmented else "__setitem__"
            self.happens(f"{owner.kind}.{name}", target, (key, value), receiver=owner)

    def set_environ(self, node: ast.AST, key: Value, value: Value, soft: bool = False) -> None:
        """A write to os.environ; `soft` leaves alone what is there already (setdefault)."""
        self.happens("environ.setdefault" if soft else "environ.set", node, (key, value))
        if not isinstance(key.const, str):
            self.environ["*"] = Value()
        elif not (soft and (key.const in self.environ or self.settings.present(key.const))):
            self.environ[key.const] = value

    def do_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                held = self.names.get(target.id)
                if held is not None:
                    self.happens(f"{held.kind}.__del__", target, (), receiver=held)
            else:
                self.evaluate(target)

    # Where the script goes

    def do_Expr(self, node: ast.Expr) -> str:
        value = self.evaluate(node.value)
        return "return" if value.kind == "ends()" else ""

    def do_Return(self, node: ast.Return) -> str:
        self.returned.append(self.evaluate(node.value) if node.value else Value(const=None))
        return "return"

    def do_Raise(self, node: ast.Raise) -> str:
        if node.exc is not None:
            self.evaluate(node.exc)
        self.happens("raise", node)
        return "return"

    def do_Break(self, node: ast.Break) -> str:
        return "break"

    def do_Continue(self, node: ast.Continue) -> str:
        return "continue"

    def do_Assert(self, node: ast.Assert) -> None:
        self.evaluate(node.test)

    def do_If(self, node: ast.If) -> str:
        test = self.evaluate(node.test)
        guard = "main-guard" in test.of
        if test.known:
            kept = self.guarded
            self.guarded = kept or (guard and bool(test.const))
            ended = self.block(node.body if test.const else node.orelse)
            self.guarded = kept
            return ended
        kept_path, kept_tests = self.path, self.tests
        before = dict(self.names)
        environ = dict(self.environ)
        self.path, self.tests = (*kept_path, (id(node), True)), (*kept_tests, test)
        first = self.block(node.body)
        after, environ_after = dict(self.names), dict(self.environ)
        self.names.clear()
        self.names.update(before)
        self.environ = environ
        self.path = (*kept_path, (id(node), False))
        second = self.block(node.orelse)
        for name, value in environ_after.items():
            self.environ.setdefault(name, value)
        if first and second:
            self.path, self.tests = kept_path, kept_tests
            return first if first == second else "return"
        if second:
            self.names.clear()
            self.names.update(after)
        elif not first:
            for name, value in after.items():
                self.names[name] = join(value, self.names[name]) if name in self.names else value
        if first or second:
            # What follows only happens on the branch that goes on.
            self.path = (*kept_path, (id(node), bool(second)))
        else:
            self.path, self.tests = kept_path, kept_tests
        return ""

    def do_For(self, node: ast.For | ast.AsyncFor) -> str:
        over = self.evaluate(node.iter)
        self.happens("for", node, (over,))
        self.assign(node.target, self.evaluate.item_of(over, node.iter, [*node.body]))
        return self._loop(node.body, node.orelse, endless=False)

    do_AsyncFor = do_For

    def do_While(self, node: ast.While) -> str:
        test = self.evaluate(node.test)
        self.happens("while", node, (test,))
        if test.known and not test.const:
            return self.block(node.orelse)
        return self._loop(node.body, node.orelse, endless=test.known)

    def _loop(self, body: list[ast.stmt], orelse: list[ast.stmt], endless: bool) -> str:
        kept_path, kept_tests, kept_loop = self.path, self.tests, self.looped
        self.looped = True
        ended = self.block(body)
        self.path, self.tests, self.looped = kept_path, kept_tests, kept_loop
        if ended == "return" and endless:
            return ended
        return self.block(orelse)

    def do_With(self, node: ast.With | ast.AsyncWith) -> str:
        kept = self.within
        for item in node.items:
            value = self.evaluate(item.context_expr)
            self.happens(f"{value.kind}.__enter__", item.context_expr, (), receiver=value)
            self.within = (*self.within, value)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        ended = self.block(node.body)
        self.within = kept
        return ended

    do_AsyncWith = do_With

    def do_Try(self, node: ast.Try) -> str:
        kept = self.tries
        self.tries = (*kept, node)
        before = dict(self.names)
        ended = self.block(node.body)
        self.tries = kept
        after = dict(self.names)
        self.handler += 1
        for handler in node.handlers:
            self.names.clear()
            self.names.update(before | after)
            if handler.name:
                self.names[handler.name] = Value(kind="exception")
            path, tests = self.path, self.tests
            self.path = (*path, (id(node), False))
            self.block(handler.body)
            self.path, self.tests = path, tests
            for name, value in self.names.items():
                after[name] = (
                    join(after[name], value)
                    if name in after and name not in before
                    else after.get(name, value)
                )
        self.handler -= 1
        self.names.clear()
        self.names.update(after)
        if not ended:
            ended = self.block(node.orelse)
        return self.block(node.finalbody) or ended

    do_TryStar = do_Try

    def do_Match(self, node: ast.Match) -> str:
        subject = self.evaluate(node.subject)
        kept = self.path, self.tests
        for case in node.cases:
            self.path, self.tests = (
                (*kept[0], (id(case), True)),
                (*kept[1], subject.without_const()),
            )
            self.block(case.body)
        self.path, self.tests = kept
        return ""

    # Children

    def child(
        self,
        via: str,
        method: str,
        call: Call,
        function: Value,
        args: Sequence[Value],
        kwargs: Mapping[str, Value] | None = None,
    ) -> None:
        """Follow a function in a process of its own."""
        target = function.target if isinstance(function.target, Function) else None
        self.children += 1
        kept = (
            self.process,
            self.environ,
            self.guarded,
            self.path,
            self.tests,
            self.tries,
            self.within,
            self.handler,
            self.looped,
        )
        self.process = Process(self.children, via, method, call, target)
        self.environ = dict(self.environ)
        self.path, self.tests, self.tries, self.within, self.handler, self.looped = (
            (),
            (),
            (),
            (),
            0,
            False,
        )
        if target is not None and self.process.number < 40:
            self.evaluate.follow(function, args, kwargs or {}, call.node)
        (
            self.process,
            self.environ,
            self.guarded,
            self.path,
            self.tests,
            self.tries,
            self.within,
            self.handler,
            self.looped,
        ) = kept


def follow(project: Project, settings: Settings) -> Trace:
    """What one rank does."""
    return Tracer(project, settings).run()


__all__ = ["UNKNOWN", "Settings", "Trace", "Tracer", "follow", "replace"]
