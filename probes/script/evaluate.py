"""What an expression is worth: constants folded, ranks and stores recognised, calls followed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import comprehensions, known, literals, operators, parts
from ddp_assist.probes.script.calls import called
from ddp_assist.probes.script.parts import attribute, replace_owner
from ddp_assist.probes.script.value import Class, Function, Instance, Value, join, union

if TYPE_CHECKING:
    from ddp_assist.probes.script.trace import Tracer

DEEPEST: Final = 14


class Evaluator:
    """Expressions. What happens on the way is told to the tracer."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self.yields = False
        """Whether the function that is followed now has come to a yield."""

    def __call__(self, node: ast.AST | None) -> Value:
        if node is None:
            return Value(const=None)
        self.tracer.step()
        do = _OF.get(type(node))
        if do is not None:
            return do(self, node)
        return Value(
            of=union(
                [self(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
            )
        )

    def of_Await(self, node: ast.Await) -> Value:
        return self(node.value)

    def of_Call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self._super()
        owner: Value | None = None
        if isinstance(node.func, ast.Attribute):
            owner = self(node.func.value)
            function = attribute(self, owner, node.func.attr)
        else:
            function = self(node.func)
        args: list[Value] = []
        partial = False
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                value = self(argument.value)
                if value.exact and value.items is not None:
                    args += value.items
                else:
                    partial = True
            else:
                args.append(self(argument))
        kwargs: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self(keyword.value)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
            elif value.table is not None:
                kwargs.update({str(k): v for k, v in value.table.items()})
            else:
                partial = True
        return called(self, node, function, owner, args, kwargs, partial)

    def _super(self) -> Value:
        owner = self.tracer.names.get("self")
        if owner is None or not isinstance(owner.target, Instance) or owner.target.owner is None:
            return Value(kind="super()")
        inner = next(
            (b.target for b in owner.target.owner.bases if isinstance(b.target, Class)), None
        )
        return replace(
            owner, target=Instance(inner, owner.target.attrs), kind=f"{owner.kind}.super()"
        )

    def follow(
        self, function: Value, args: Sequence[Value], kwargs: Mapping[str, Value], node: ast.AST
    ) -> Value:
        """The body of one of the project's functions, with these arguments."""
        target, tracer = function.target, self.tracer
        if not isinstance(target, Function):
            return Value(of=union([*args, *kwargs.values()]))
        if target.node in tracer.running or len(tracer.running) >= DEEPEST:
            return Value()
        if not tracer.stray:
            tracer.trace.entered.add(id(target.node))
        names = dict(target.names) if target.local or target.closure else {}
        self._bind(target, args, kwargs, names)
        tracer.running.append(target.node)
        kept = tracer.returned, tracer.stack, tracer.loops
        tracer.returned, tracer.stack = [], (*tracer.stack, node)
        yields, self.yields = self.yields, False
        try:
            with tracer.inside(target.source, names, target.module, local=True):
                if isinstance(target.node, ast.Lambda):
                    tracer.returned.append(self(target.node.body))
                else:
                    ended = tracer.block(target.node.body)
                    if ended != "return":
                        tracer.returned.append(Value(const=None))
            answers = tracer.returned
        finally:
            tracer.running.pop()
            tracer.returned, tracer.stack, tracer.loops = kept
            made_generator, self.yields = self.yields, yields
        if made_generator and not target.decorated("contextmanager"):
            return Value(kind="generator()", of=union(answers))
        answer = answers[0] if answers else Value()
        for other in answers[1:]:
            answer = join(answer, other)
        if (
            not answer.kind
            and not answer.known
            and known.is_free_port(target.name)
            and not answer.of
        ):
            return Value(of=self.picked("free-port"), call=answer.call)
        return answer

    def picked(self, word: str) -> frozenset[str]:
        """Something that no two processes pick alike, and the process that picked it."""
        return frozenset({word, f"picked@{self.tracer.process.number}"})

    def _bind(
        self,
        function: Function,
        args: Sequence[Value],
        kwargs: Mapping[str, Value],
        names: dict[str, Value],
    ) -> None:
        parameters = function.node.args
        plain = [*parameters.posonlyargs, *parameters.args]
        given = [*function.given, *args]
        kwargs = {**function.named, **kwargs}
        if function.first is not None:
            given.insert(0, function.first)
        defaults = [None] * (len(plain) - len(parameters.defaults)) + list(parameters.defaults)
        for index, (parameter, default) in enumerate(zip(plain, defaults, strict=True)):
            if index < len(given):
                names[parameter.arg] = given[index]
            elif parameter.arg in kwargs:
                names[parameter.arg] = kwargs[parameter.arg]
            else:
                names[parameter.arg] = self._default(function, default)
        for parameter, default in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True):
            value = kwargs.get(parameter.arg)
            names[parameter.arg] = value if value is not None else self._default(function, default)
        if parameters.vararg:
            names[parameters.vararg.arg] = Value(
                items=given[len(plain) :], exact=True, kind="tuple"
            )
        if parameters.kwarg:
            rest = {k: v for k, v in kwargs.items() if k not in {p.arg for p in plain}}
            names[parameters.kwarg.arg] = Value(table=dict(rest), kind="dict")

    def _default(self, function: Function, default: ast.expr | None) -> Value:
        if default is None or not isinstance(default, ast.Constant | ast.UnaryOp | ast.Name):
            return Value()
        if isinstance(default, ast.Name):
            return function.names.get(default.id, Value())
        return self(default)

    def call_stray(self, function: Function) -> None:
        """A function that nothing calls: its parameters are known by their names only."""
        rank = self.tracer.settings.rank
        parameters = [*function.node.args.posonlyargs, *function.node.args.args]
        args: list[Value] = []
        owner: Value | None = None
        if function.owner is not None and isinstance(function.owner.target, Class):
            owner = Value(target=Instance(function.owner.target), kind="self")
        for index, parameter in enumerate(parameters):
            if index == 0 and owner is not None and parameter.arg in ("self", "cls"):
                args.append(owner)
            elif parameter.arg in ("rank", "global_rank") and index == (owner is not None):
                args.append(Value(const=rank, role="rank", of=frozenset({"rank", "global-rank"})))
            elif parameter.arg == "local_rank":
                args.append(Value(const=rank, role="local-rank", of=frozenset({"rank"})))
            else:
                args.append(Value())
        self.follow(Value(target=replace_owner(function, None)), args, {}, function.node)


_OF: Final[Mapping[type[ast.AST], Callable[[Evaluator, Any], Value]]] = {
    **literals.OF,
    **operators.OF,
    **parts.OF,
    **comprehensions.OF,
    ast.Call: Evaluator.of_Call,
    ast.Await: Evaluator.of_Await,
}
