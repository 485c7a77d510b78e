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
MOST_ROUNDS = 6
MOST_CHILDREN = 40
DEEPEST = 14
Names = dict[str, Value]


class TooLong(Exception):
    """The budget of steps is used up: what was seen so far stands."""


@dataclass(slots=True, eq=False)
class Body:
    """What stands under a `with` whose context manager is a generator of the project."""

    generator: ast.AST
    items: Sequence[ast.withitem]
    body: list[ast.stmt]
    source: Source
    names: Names
    module: Module | None
    local: bool
    done: bool = False
    ended: str = ""
    returned: list[Value] = field(default_factory=list)


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
    """ids of the `if` nodes whose condition depends on the rank."""


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
        self.guarded = self.stray = self.local = False
        self.loops: tuple[ast.AST, ...] = ()
        self.arguments: dict[str, Value] = {}
        self.bodies: list[Body] = []
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
                else:
                    self.names["*"] = Value()
                continue
            full = f"{base}.{alias.name}" if base else alias.name
            if isinstance(module.target, Module):
                value = module.target.names.get(alias.name) or self._import(full)
                if self._lacks(module.target, alias.name) and value.target is None:
                    self.happens("import.missing", node, (Value(const=alias.name), module))
            elif not base or (self.project.module(full) if node.level else None):
                value = self._import(full)
            else:
                value = Value(kind=known.plain(full))
            self.bind(alias.asname or alias.name, value)

    def _lacks(self, module: Module, name: str) -> bool:
        """Whether a file of the project surely has no such name."""
        whole = module.line > len(module.source.lines) and module.source.problem is None
        magic = "__getattr__" in module.source.text or "globals()" in module.source.text
        return whole and not magic and "*" not in module.names and name not in module.names

    def _import(self, name: str) -> Value:
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

    def do_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        decorators = [self.evaluate(decorator) for decorator in node.decorator_list]
        function = Function(
            node, self.source, self.names, None, self.local, self.module,
            guarded=self.guarded and not self.local,
        )  # fmt: skip
        self.trace.functions.append(function)
        value = Value(target=function, kind=f"function:{node.name}")
        self.bind(node.name, value)
        for decorator in reversed(decorators):
            value = self._decorated(decorator, value, node)
        self.bind(node.name, value)

    def _decorated(self, decorator: Value, value: Value, node: ast.AST) -> Value:
        """What one of the project's own decorators makes of a function."""
        if not isinstance(decorator.target, Function):
            return value
        made = self.evaluate.follow(decorator, [value], {}, node)
        if not isinstance(made.target, Function):
            return value
        # With wraps() Python finds the wrapper under the function's own name.
        local = self.local or not made.target.decorated("wraps")
        if made.target.node is node:
            local = self.local
        wrapper = replace(made.target, local=local, closure=made.target.local)
        return replace(made, target=wrapper, kind=value.kind)

    do_AsyncFunctionDef = do_FunctionDef

    def do_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [self.evaluate(base) for base in node.bases]
        guarded = self.guarded and not self.local
        made = Class(node, self.source, {}, bases, self.local, guarded)
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
        if isinstance(node.target, ast.Name) and self.local and not self.stray:
            name = node.target.id
            if name not in self.names and name not in self.shared:
                self.happens("name.unbound", node.target, (Value(const=name),))
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
            if self._method(owner, "__setitem__", target, [key, value]) is not None:
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
        if "rank" in test.of:
            self.trace.on_rank.add(id(node))
        if self.loops and node.body and isinstance(node.body[-1], ast.Break):
            parts = node.test
            bounds = [parts.left, *parts.comparators] if isinstance(parts, ast.Compare) else []
            self.happens("break", node, (test, *(self.evaluate(b) for b in bounds)))
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
        items = over.items if over.exact and over.items is not None else []
        if 0 < len(items) <= MOST_ROUNDS and not self.loops:
            return self._rounds(node, items)
        self.assign(node.target, self.evaluate.item_of(over, node.iter, [*node.body]))
        return self._loop(node, endless=False)

    def _rounds(self, node: ast.For | ast.AsyncFor, items: list[Value]) -> str:
        """A loop over a few things that are known, round by round."""
        kept_path, kept_tests = self.path, self.tests
        for item in items:
            self.assign(node.target, item)
            ended = self.block(node.body)
            self.path, self.tests = kept_path, kept_tests
            if ended in ("return", "break"):
                return ended if ended == "return" else ""
        return self.block(node.orelse)

    do_AsyncFor = do_For

    def do_While(self, node: ast.While) -> str:
        test = self.evaluate(node.test)
        bounds: list[Value] = []
        if isinstance(node.test, ast.Compare):
            bounds = [self.evaluate(part) for part in (node.test.left, *node.test.comparators)]
        self.happens("while", node, (test, *bounds))
        if test.known and not test.const:
            return self.block(node.orelse)
        return self._loop(node, endless=test.known)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, endless: bool) -> str:
        kept_path, kept_tests, kept_loops = self.path, self.tests, self.loops
        self.loops = (*kept_loops, node)
        ended = self.block(node.body)
        self.path, self.tests, self.loops = kept_path, kept_tests, kept_loops
        if ended == "return" and endless:
            return ended
        return self.block(node.orelse)

    def do_With(self, node: ast.With | ast.AsyncWith) -> str:
        return self._with(node.items, node.body)

    do_AsyncWith = do_With

    def _with(self, items: Sequence[ast.withitem], body: list[ast.stmt]) -> str:
        if not items:
            return self.block(body)
        item, kept = items[0], self.within
        generator = self._generator(item.context_expr)
        if generator is not None:
            return self._with_generator(generator, items, body)
        value = self.evaluate(item.context_expr)
        call = self.happens(f"{value.kind}.__enter__", item.context_expr, (), receiver=value)
        entered = self._method(value, "__enter__", item.context_expr) or value
        self.within = (*kept, value)
        if item.optional_vars is not None:
            self.assign(item.optional_vars, entered)
        ended = self._with(items[1:], body)
        self.within = kept
        self._method(value, "__exit__", call.node)
        return ended

    def _method(
        self, owner: Value, name: str, node: ast.AST, args: Sequence[Value] = ()
    ) -> Value | None:
        """One of the script's own methods that Python calls by itself."""
        if not isinstance(owner.target, Instance) or owner.target.owner is None:
            return None
        found = owner.target.owner.find(name)
        if found is None or not isinstance(found.target, Function):
            return None
        return self.evaluate.follow(self.evaluate._bound(found, owner), args, {}, node)

    def _generator(self, node: ast.expr) -> Function | None:
        """The project's own context manager that this calls, written as a generator."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
            return None
        held = self.evaluate(node.func).target
        own = isinstance(held, Function) and held.decorated("contextmanager")
        return held if own and isinstance(held, Function) else None

    def _with_generator(
        self, generator: Function, items: Sequence[ast.withitem], body: list[ast.stmt]
    ) -> str:
        """The body runs where the generator yields."""
        frame = Body(generator.node, items, body, self.source, self.names, self.module, self.local)
        self.bodies.append(frame)
        self.evaluate(items[0].context_expr)
        self.bodies.remove(frame)
        if not frame.done:
            return self._with(items[1:], body)
        self.returned += frame.returned
        return frame.ended

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
            frame.ended = self._with(frame.items[1:], frame.body)
            self.running = running
        self.shared = shared
        frame.returned, self.returned = self.returned, kept

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
        fits = _case(node.cases, subject)
        if fits is not None:
            return self.block(fits.body)
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
        """Follow a function, or an object that can be called, in a process of its own."""
        if isinstance(function.target, Instance) and function.target.owner is not None:
            found = function.target.owner.find("__call__")
            function = self.evaluate._bound(found, function) if found is not None else function
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


def _case(cases: Sequence[ast.match_case], subject: Value) -> ast.match_case | None:
    """The case that a constant subject takes, where that is clear."""
    if not subject.known:
        return None
    for case in cases:
        pattern = case.pattern
        if case.guard is not None:
            return None
        options = pattern.patterns if isinstance(pattern, ast.MatchOr) else [pattern]
        for option in options:
            if isinstance(option, ast.MatchAs) and option.pattern is None and option.name is None:
                return case
            if not isinstance(option, ast.MatchValue | ast.MatchSingleton):
                return None
            held = option.value
            const = held.value if isinstance(held, ast.Constant) else held
            if isinstance(const, ast.AST):
                return None
            if const == subject.const:
                return case
    return None


def follow(project: Project, settings: Settings) -> Trace:
    """What one rank does."""
    return Tracer(project, settings).run()


__all__ = ["UNKNOWN", "Settings", "Trace", "Tracer", "follow", "replace"]
