"""Statements that decide what runs: branches, loops, with, try, match."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.comprehensions import item_of
from ddp_assist.probes.script.read import Source
from ddp_assist.probes.script.value import (
    Function,
    Module,
    Names,
    Value,
    join,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.trace import Tracer

MOST_ROUNDS = 6


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


def do_expression(tracer: Tracer, node: ast.Expr) -> str:
    value = tracer.evaluate(node.value)
    return "return" if value.kind == "ends()" else ""


def do_return(tracer: Tracer, node: ast.Return) -> str:
    tracer.returned.append(tracer.evaluate(node.value) if node.value else Value(const=None))
    return "return"


def do_raise(tracer: Tracer, node: ast.Raise) -> str:
    if node.exc is not None:
        tracer.evaluate(node.exc)
    tracer.happens("raise", node)
    return "return"


def do_break(tracer: Tracer, node: ast.Break) -> str:
    return "break"


def do_continue(tracer: Tracer, node: ast.Continue) -> str:
    return "continue"


def do_assert(tracer: Tracer, node: ast.Assert) -> None:
    tracer.evaluate(node.test)


def do_if(tracer: Tracer, node: ast.If) -> str:
    test = tracer.evaluate(node.test)
    guard = "main-guard" in test.of
    if "rank" in test.of:
        tracer.trace.on_rank.add(id(node))
    if tracer.loops and node.body and isinstance(node.body[-1], ast.Break):
        parts = node.test
        bounds = [parts.left, *parts.comparators] if isinstance(parts, ast.Compare) else []
        tracer.happens("break", node, (test, *(tracer.evaluate(b) for b in bounds)))
    if test.known:
        kept = tracer.guarded
        tracer.guarded = kept or (guard and bool(test.const))
        ended = tracer.block(node.body if test.const else node.orelse)
        tracer.guarded = kept
        return ended
    kept_path, kept_tests = tracer.path, tracer.tests
    before = dict(tracer.names)
    environ = dict(tracer.environ)
    tracer.path, tracer.tests = (*kept_path, (id(node), True)), (*kept_tests, test)
    first = tracer.block(node.body)
    after, environ_after = dict(tracer.names), dict(tracer.environ)
    tracer.names.clear()
    tracer.names.update(before)
    tracer.environ = environ
    tracer.path = (*kept_path, (id(node), False))
    second = tracer.block(node.orelse)
    for name, value in environ_after.items():
        tracer.environ.setdefault(name, value)
    if first and second:
        tracer.path, tracer.tests = kept_path, kept_tests
        return first if first == second else "return"
    if second:
        tracer.names.clear()
        tracer.names.update(after)
    elif not first:
        for name, value in after.items():
            tracer.names[name] = join(value, tracer.names[name]) if name in tracer.names else value
    if first or second:
        # What follows only happens on the branch that goes on.
        tracer.path = (*kept_path, (id(node), bool(second)))
    else:
        tracer.path, tracer.tests = kept_path, kept_tests
    return ""


def do_for(tracer: Tracer, node: ast.For | ast.AsyncFor) -> str:
    over = tracer.evaluate(node.iter)
    tracer.happens("for", node, (over,))
    items = over.items if over.exact and over.items is not None else []
    if 0 < len(items) <= MOST_ROUNDS and not tracer.loops:
        return _rounds(tracer, node, items)
    tracer.assign(node.target, item_of(tracer.evaluate, over, node.iter, [*node.body]))
    return _loop(tracer, node, endless=False)


def _rounds(tracer: Tracer, node: ast.For | ast.AsyncFor, items: list[Value]) -> str:
    """A loop over a few things that are known, round by round."""
    kept_path, kept_tests = tracer.path, tracer.tests
    for item in items:
        tracer.assign(node.target, item)
        ended = tracer.block(node.body)
        tracer.path, tracer.tests = kept_path, kept_tests
        if ended in ("return", "break"):
            return ended if ended == "return" else ""
    return tracer.block(node.orelse)


def do_while(tracer: Tracer, node: ast.While) -> str:
    test = tracer.evaluate(node.test)
    bounds: list[Value] = []
    if isinstance(node.test, ast.Compare):
        bounds = [tracer.evaluate(part) for part in (node.test.left, *node.test.comparators)]
    tracer.happens("while", node, (test, *bounds))
    if test.known and not test.const:
        return tracer.block(node.orelse)
    return _loop(tracer, node, endless=test.known)


def _loop(tracer: Tracer, node: ast.For | ast.AsyncFor | ast.While, endless: bool) -> str:
    kept_path, kept_tests, kept_loops = tracer.path, tracer.tests, tracer.loops
    tracer.loops = (*kept_loops, node)
    ended = tracer.block(node.body)
    tracer.path, tracer.tests, tracer.loops = kept_path, kept_tests, kept_loops
    if ended == "return" and endless:
        return ended
    return tracer.block(node.orelse)


def do_with(tracer: Tracer, node: ast.With | ast.AsyncWith) -> str:
    return run_with(tracer, node.items, node.body)


def run_with(tracer: Tracer, items: Sequence[ast.withitem], body: list[ast.stmt]) -> str:
    if not items:
        return tracer.block(body)
    item, kept = items[0], tracer.within
    generator = _generator(tracer, item.context_expr)
    if generator is not None:
        return _with_generator(tracer, generator, items, body)
    value = tracer.evaluate(item.context_expr)
    call = tracer.happens(f"{value.kind}.__enter__", item.context_expr, (), receiver=value)
    entered = tracer.own_method(value, "__enter__", item.context_expr) or value
    tracer.within = (*kept, value)
    tracer.forgiving += 1  # what it does with an error of its body nobody knows
    if item.optional_vars is not None:
        tracer.assign(item.optional_vars, entered)
    ended = run_with(tracer, items[1:], body)
    tracer.within = kept
    tracer.forgiving -= 1
    tracer.own_method(value, "__exit__", call.node)
    return ended


def _generator(tracer: Tracer, node: ast.expr) -> Function | None:
    """The project's own context manager that this calls, written as a generator."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return None
    held = tracer.evaluate(node.func).target
    own = isinstance(held, Function) and held.decorated("contextmanager")
    return held if own and isinstance(held, Function) else None


def _with_generator(
    tracer: Tracer, generator: Function, items: Sequence[ast.withitem], body: list[ast.stmt]
) -> str:
    """The body runs where the generator yields."""
    frame = Body(
        generator.node, items, body, tracer.source, tracer.names, tracer.module, tracer.local
    )
    tracer.bodies.append(frame)
    tracer.evaluate(items[0].context_expr)
    tracer.bodies.remove(frame)
    if not frame.done:
        return run_with(tracer, items[1:], body)
    tracer.returned += frame.returned
    return frame.ended


def do_try(tracer: Tracer, node: ast.Try) -> str:
    kept = tracer.tries
    tracer.tries = (*kept, node)
    forgiven = _forgives(node)
    tracer.forgiving += forgiven
    before = dict(tracer.names)
    ended = tracer.block(node.body)
    tracer.tries = kept
    tracer.forgiving -= forgiven
    after = dict(tracer.names)
    if forgiven and any(isinstance(part, ast.Import | ast.ImportFrom) for part in node.body):
        for name in before.keys() & after.keys():  # flags that say whether the import went well
            after[name] = join(before[name], after[name])
    tracer.handler += 1
    for handler in node.handlers:
        tracer.names.clear()
        tracer.names.update(before | after)
        if handler.name:
            tracer.names[handler.name] = Value(kind="exception")
        path, tests = tracer.path, tracer.tests
        tracer.path = (*path, (id(node), False))
        tracer.block(handler.body)
        tracer.path, tracer.tests = path, tests
        for name, value in tracer.names.items():
            after[name] = (
                join(after[name], value)
                if name in after and name not in before
                else after.get(name, value)
            )
    tracer.handler -= 1
    tracer.names.clear()
    tracer.names.update(after)
    if not ended:
        ended = tracer.block(node.orelse)
    return tracer.block(node.finalbody) or ended


def _forgives(node: ast.Try) -> bool:
    """Whether a module that is not there may be no error in the body."""
    return any(_catches(h.type) and not _gives_up(h.body) for h in node.handlers)


def _catches(kind: ast.expr | None) -> bool:
    """Whether it catches a missing module; of what is no plain built-in name nobody knows."""
    if isinstance(kind, ast.Tuple):
        return any(map(_catches, kind.elts))
    error = getattr(builtins, kind.id, None) if isinstance(kind, ast.Name) else None
    known = isinstance(error, type) and issubclass(error, BaseException)
    return not known or issubclass(ModuleNotFoundError, error)  # type: ignore[arg-type]


def _gives_up(body: list[ast.stmt]) -> bool:
    """`raise ImportError("install it")`, or an exit."""
    last = body[-1]
    exits = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)
    return isinstance(last, ast.Raise) or (
        exits and known.ends(ast.unparse(last.value.func))  # type: ignore[attr-defined]
    )


def do_match(tracer: Tracer, node: ast.Match) -> str:
    subject = tracer.evaluate(node.subject)
    kept = tracer.path, tracer.tests
    fits = _case(node.cases, subject)
    if fits is not None:
        return tracer.block(fits.body)
    for case in node.cases:
        tracer.path, tracer.tests = (
            (*kept[0], (id(case), True)),
            (*kept[1], subject.without_const()),
        )
        tracer.block(case.body)
    tracer.path, tracer.tests = kept
    return ""


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


DO: Final[Mapping[type[ast.AST], Callable[[Tracer, Any], str | None]]] = {
    ast.Expr: do_expression,
    ast.Return: do_return,
    ast.Raise: do_raise,
    ast.Break: do_break,
    ast.Continue: do_continue,
    ast.Assert: do_assert,
    ast.If: do_if,
    ast.For: do_for,
    ast.AsyncFor: do_for,
    ast.While: do_while,
    ast.With: do_with,
    ast.AsyncWith: do_with,
    ast.Try: do_try,
    ast.Match: do_match,
}
if sys.version_info >= (3, 11):
    DO = {**DO, ast.TryStar: do_try}
