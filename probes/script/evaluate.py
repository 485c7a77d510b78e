"""What an expression is worth: constants folded, ranks and stores recognised, calls followed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Class,
    Function,
    Instance,
    Mix,
    Module,
    Value,
    join,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.trace import Tracer

_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
}
_CASTS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": int,
    "str": str,
    "float": float,
    "bool": bool,
}
_FREE_PORT: Final = re.compile(
    r"(free|unused|available|open|random|find|pick|get).*port|port.*(free|unused)", re.I
)
_RANDOM: Final = re.compile(
    r"(random|secrets|uuid|numpy\.random|torch\.rand|torch\.randint)\b|os\.(getpid|urandom)$"
    r"|time\.(time|time_ns|monotonic|perf_counter)$|socket\.gethostname$|tempfile\.(mk|Named|Temp)"
)
_ENDS: Final = {"sys.exit", "exit", "quit", "os._exit", "os.abort"}
_BIGGEST: Final = 10**12
MOST_SIFTED: Final = 64


def quiet(do: Callable[..., Any], *values: Any) -> Any:
    """A constant of constants, or UNKNOWN where Python would raise or it grows too large."""
    try:
        if do in (operator.mul, operator.lshift, operator.mod) and any(
            not isinstance(v, int | float) or abs(v) > _BIGGEST for v in values
        ):
            return UNKNOWN
        return do(*values)
    except (TypeError, ValueError, ArithmeticError, KeyError, IndexError, AttributeError):
        return UNKNOWN


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
        do = getattr(self, f"of_{type(node).__name__}", None)
        if do is not None:
            value: Value = do(node)
            return value
        return Value(
            of=union(
                [self(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
            )
        )

    # Names and literals

    def of_Constant(self, node: ast.Constant) -> Value:
        return Value(const=node.value)

    def of_Name(self, node: ast.Name) -> Value:
        tracer = self.tracer
        if self._only_guarded(node.id):
            tracer.happens("name.guarded", node, (Value(const=node.id),))
        if node.id in tracer.names and node.id not in tracer.shared:
            return tracer.names[node.id]
        if tracer.module is not None and node.id in tracer.module.names:
            return tracer.module.names[node.id]
        if not tracer.stray and tracer.module is not None and self._comes_later(node):
            tracer.happens("name.early", node, (Value(const=node.id),))
        if node.id in known.ALIASES and node.id not in _CASTS:
            return Value(kind=known.ALIASES[node.id])
        return Value(kind=node.id)

    def _only_guarded(self, name: str) -> bool:
        """Whether a spawned child asks for what only the script itself binds, under its guard."""
        tracer = self.tracer
        process, module = tracer.process, tracer.module
        return (
            process.number > 0
            and process.method in ("spawn", "forkserver")
            and module is not None
            and name in module.guarded
            and (name not in tracer.names or tracer.names is module.names)
        )

    def _comes_later(self, node: ast.Name) -> bool:
        """Whether the module only defines this name further down, after what runs now."""
        tracer = self.tracer
        if tracer.module is None or tracer.module.source is not tracer.source or tracer.handler:
            return False
        return tracer.module.later.get(node.id, 0) > tracer.module.line

    def of_NamedExpr(self, node: ast.NamedExpr) -> Value:
        value = self(node.value)
        self.tracer.assign(node.target, value)
        return value

    def of_Tuple(self, node: ast.Tuple | ast.List) -> Value:
        items = [self(item.value if isinstance(item, ast.Starred) else item) for item in node.elts]
        exact = not any(isinstance(item, ast.Starred) for item in node.elts)
        const: Any = UNKNOWN
        if exact and all(item.known for item in items):
            const = tuple(item.const for item in items)
        return Value(
            const=const,
            items=items,
            exact=exact,
            of=union(items),
            kind=type(node).__name__.lower(),
            count=len(items) if exact else None,
        )

    of_List = of_Tuple

    def of_Dict(self, node: ast.Dict) -> Value:
        table: dict[Any, Value] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            value = self(item)
            name = self(key) if key is not None else Value()
            if isinstance(name.const, str | int):
                table[name.const] = value
            elif key is None and value.table:
                table.update(value.table)
        exact = len(table) == len(node.keys)
        return Value(table=table, of=union(table.values()), kind="dict", exact=exact)

    def of_JoinedStr(self, node: ast.JoinedStr) -> Value:
        parts = [
            self(p.value) if isinstance(p, ast.FormattedValue) else self(p) for p in node.values
        ]
        plain = all(
            not isinstance(p, ast.FormattedValue) or (p.format_spec is None and p.conversion == -1)
            for p in node.values
        )
        mix = next((p.mix for p in parts if p.mix), None)
        if plain and all(p.known for p in parts):
            return Value(const="".join(str(p.const) for p in parts), of=union(parts), mix=mix)
        pattern = "".join(str(p.const) if p.known else p.pattern or "{}" for p in parts)
        return Value(pattern=pattern, of=union(parts), mix=mix, kind="str")

    def of_Lambda(self, node: ast.Lambda) -> Value:
        tracer = self.tracer
        return Value(
            kind="lambda",
            target=Function(node, tracer.source, tracer.names, None, True, tracer.module),
        )

    def of_Yield(self, node: ast.Yield) -> Value:
        self.tracer.yielded(self(node.value) if node.value is not None else Value(const=None))
        self.yields = True
        return Value()

    def of_YieldFrom(self, node: ast.YieldFrom) -> Value:
        self(node.value)
        self.yields = True
        return Value()

    # Operators

    def of_BoolOp(self, node: ast.BoolOp) -> Value:
        tracer = self.tracer
        kept = tracer.path, tracer.tests
        try:
            return self._operands(node)
        finally:
            tracer.path, tracer.tests = kept

    def _operands(self, node: ast.BoolOp) -> Value:
        tracer = self.tracer
        result: Value | None = None
        stop = isinstance(node.op, ast.Or)
        for part in node.values:
            value = self(part)
            result = value if result is None else self._either(result, value, stop)
            if value.known and bool(value.const) == stop:
                seen = result.of | value.of
                return (
                    replace(value, of=seen)
                    if result.known or stop is False
                    else Value(const=value.const, of=seen)
                )
            if not value.known:  # what follows only happens where this one does not decide
                tracer.path = (*tracer.path, (id(part), not stop))
                tracer.tests = (*tracer.tests, value)
        return result or Value()

    def _either(self, first: Value, second: Value, stop: bool) -> Value:
        if first.known and bool(first.const) != stop:
            return replace(second, of=first.of | second.of)
        joined = join(first, second)
        return joined if first.known == second.known else joined.without_const()

    def of_UnaryOp(self, node: ast.UnaryOp) -> Value:
        value = self(node.operand)
        if not value.known:
            return Value(of=value.of)
        if isinstance(node.op, ast.Not):
            return Value(const=not value.const, of=value.of)
        if isinstance(node.op, ast.USub):
            return Value(const=quiet(operator.neg, value.const), of=value.of)
        return Value(of=value.of)

    def of_BinOp(self, node: ast.BinOp) -> Value:
        return self.operation(node, node.left, node.op, node.right)

    def operation(self, node: ast.AST, left: ast.expr, op: ast.operator, right: ast.expr) -> Value:
        first, second = self(left), self(right)
        of = first.of | second.of
        if isinstance(op, ast.Mod) and not first.text:
            of -= {"global-rank"}  # the rank on its node
        for side in (first, second):
            if side.kind.endswith("Store()") or side.kind.endswith("Store().get()"):
                self.tracer.happens(f"{side.kind}.__op__", node, (first, second), receiver=side)
        if isinstance(op, ast.BitOr) and second.table is not None:
            exact = first.table is not None and first.exact and second.exact
            return Value(table={**(first.table or {}), **second.table}, of=of, kind="dict",
                         exact=exact)  # fmt: skip
        if first.items is not None and second.items is not None:
            exact = first.exact and second.exact
            return Value(items=[*first.items, *second.items], exact=exact, of=of, kind=first.kind)
        if isinstance(op, ast.Mult) and first.items is not None and second.number is not None:
            count = len(first.items) * second.number if first.exact else None
            return Value(items=first.items, kind=first.kind, of=of, count=count)
        const: Any = UNKNOWN
        if first.known and second.known and type(op) in _OPERATORS:
            const = quiet(_OPERATORS[type(op)], first.const, second.const)
        mix = first.mix or second.mix
        if (
            mix is None
            and not (first.text or second.text)
            and isinstance(op, ast.Add | ast.Sub)
            and ("rank" in first.of) != ("rank" in second.of)
        ):
            mix = Mix(self.tracer.source, node, right if "rank" in first.of else left)
        pattern = ""
        if not isinstance(const, str) and isinstance(op, ast.Add) and (first.text or second.text):
            pattern = (first.text or "{}") + (second.text or "{}")
        elif isinstance(op, ast.Mod) and isinstance(first.const, str):
            pattern = re.sub(r"%[sd]", "{}", first.const)
            if second.known and const is UNKNOWN:
                const = quiet(lambda: first.const % second.const)
        numbers = {first.kind, second.kind} & {"int", "float"}
        kind = "str" if pattern else ""
        if numbers and not (first.text or second.text):
            kind = max(numbers)
        return Value(const=const, of=of, mix=mix, pattern=pattern, kind=kind)

    def of_Compare(self, node: ast.Compare) -> Value:
        values = [self(node.left), *(self(part) for part in node.comparators)]
        of = union(values)
        for value in values:
            if value.kind.endswith(("Store().get()", "Store()")):
                self.tracer.happens(
                    f"{value.kind}.__compare__", node, tuple(values), receiver=value
                )
        if len(values) != 2:
            return Value(of=of)
        first, second = values
        op = node.ops[0]
        if (
            second.kind == "os.environ"
            and isinstance(op, ast.In | ast.NotIn)
            and isinstance(first.const, str)
        ):
            there = self._present(first.const)
            seen = frozenset({f"env:{first.const}"})
            return (
                Value(of=seen)
                if there is None
                else Value(const=there == isinstance(op, ast.In), of=seen)
            )
        if first.known and second.known:
            if (
                isinstance(op, ast.Is | ast.IsNot)
                and first.const is not None
                and second.const is not None
            ):
                return Value(of=of)
            return Value(const=quiet(_OPERATORS[type(op)], first.const, second.const), of=of)
        return Value(of=of)

    def of_IfExp(self, node: ast.IfExp) -> Value:
        test = self(node.test)
        if test.known:
            value = self(node.body if test.const else node.orelse)
            return replace(value, of=value.of | test.of)
        tracer, branches = self.tracer, []
        kept = tracer.path, tracer.tests
        for way, branch in ((True, node.body), (False, node.orelse)):
            tracer.path, tracer.tests = (*kept[0], (id(node), way)), (*kept[1], test)
            branches.append(self(branch))
        tracer.path, tracer.tests = kept
        joined = join(*branches)
        return replace(joined, of=joined.of | test.of)

    # Parts

    def of_Attribute(self, node: ast.Attribute) -> Value:
        return self.attribute(self(node.value), node.attr)

    def attribute(self, owner: Value, name: str) -> Value:
        target = owner.target
        if name == "value" and owner.known and isinstance(owner.const, str | int):
            return owner  # a member of an Enum
        if isinstance(target, Module):
            if name in target.names:
                return target.names[name]
            return self.tracer._import(f"{owner.kind}.{name}")
        if isinstance(target, Instance):
            if any(getattr(n, "name", "") == "forward" for n in self.tracer.running):
                target.used.add(name)
            if name == "module" and owner.kind.endswith("DataParallel()"):
                return replace(owner, kind="")
            if name in target.attrs:
                return target.attrs[name]
            found = target.owner.find(name) if target.owner else None
            if found is not None and isinstance(found.target, Function):
                bound = self._bound(found, owner)
                if found.target.decorated("property"):
                    value = self.follow(bound, [], {}, found.target.node)
                    target.attrs.setdefault(name, value) if "cached" in name else None
                    return value
                return bound
            if found is not None:
                return found
            if owner.kind.endswith("parse_args()"):
                return self._option(name)
        if isinstance(target, Class):
            found = target.find(name)
            if found is not None and isinstance(found.target, Function):
                return self._bound(found, owner) if found.target.decorated("classmethod") else found
            if found is not None:
                return found
        if owner.kind.endswith("().port") or not owner.kind:
            return self._by_name(name, owner)
        value = self._by_name(name, owner)
        kind = known.plain(f"{owner.kind}.{name}")
        return replace(value, kind=kind, call=owner.call, count=owner.count)

    def _bound(self, method: Value, owner: Value) -> Value:
        if isinstance(method.target, Function) and not method.target.decorated("staticmethod"):
            if method.target.decorated("classmethod") and isinstance(owner.target, Instance):
                owner = Value(target=owner.target.owner, kind=owner.kind.removesuffix("()"))
            return replace(method, target=replace_owner(method.target, owner))
        return method

    def _option(self, name: str) -> Value:
        """An option of the command line: known by its name only."""
        rank = self.tracer.settings.rank
        if name in ("local_rank", "local_process_index"):
            return Value(const=rank, role="local-rank", of=frozenset({"rank", f"arg:{name}"}))
        if name in ("rank", "global_rank") and self.tracer.settings.argument_rank:
            return Value(
                const=rank, role="rank", of=frozenset({"rank", "global-rank", f"arg:{name}"})
            )
        given = self.tracer.arguments.get(name)
        return Value(
            const=UNKNOWN if given is None else given.const,
            role=f"arg:{name}",
            of=frozenset({f"arg:{name}"}),
            kind="str" if given is not None and isinstance(given.const, str) else "",
        )

    def _by_name(self, name: str, owner: Value) -> Value:
        rank = self.tracer.settings.rank
        if name in ("local_rank", "local_process_index"):
            return Value(const=rank, role="local-rank", of=frozenset({"rank"}))
        if name in ("global_rank", "process_index"):
            return Value(const=rank, role="rank", of=frozenset({"rank", "global-rank"}))
        if name in (
            "is_main_process",
            "is_global_zero",
            "is_local_main_process",
            "is_world_process_zero",
        ):
            return Value(const=rank == 0, of=frozenset({"rank"}))
        return Value(of=owner.of)

    def of_Subscript(self, node: ast.Subscript) -> Value:
        owner = self(node.value)
        if isinstance(node.slice, ast.Slice):
            parts = [
                self(p)
                for p in (node.slice.lower, node.slice.upper, node.slice.step)
                if p is not None
            ]
            of = union(parts)
            shard = frozenset({"shard"}) if "rank" in of else of
            count = sliced(
                owner.count,
                node.slice,
                [self(p) if p is not None else None for p in _bounds(node.slice)],
            )
            items, exact = owner.items, False
            marks = [
                p.number if p is not None else None
                for p in map(self._bound_of, _bounds(node.slice))
            ]
            known_marks = all(
                b is None or m is not None for b, m in zip(_bounds(node.slice), marks, strict=True)
            )
            if owner.exact and items is not None and known_marks:
                items, exact = items[slice(*marks)], True
            return Value(
                of=owner.of | of | shard, kind=owner.kind, items=items, exact=exact, count=count
            )
        key = self(node.slice)
        if owner.kind == "os.environ":
            return self._environ(node, key, None)
        own = self.tracer._method(owner, "__getitem__", node, [key])
        if own is not None:
            return own
        if owner.kind.endswith("Store()"):
            self.tracer.happens(f"{owner.kind}.__getitem__", node, (key,), receiver=owner)
        if (
            owner.table is not None
            and isinstance(key.const, str | int)
            and key.const in owner.table
        ):
            return chosen(owner.table[key.const], key)
        if owner.items is not None and isinstance(key.const, int):
            if owner.exact and -len(owner.items) <= key.const < len(owner.items):
                return chosen(owner.items[key.const], key)
            return owner.items[0] if owner.items else Value()
        if owner.kind == "sys.argv":
            return Value(role=f"argv:{key.const}", of=frozenset({"argv"}))
        of = owner.of | key.of
        if key.const in ("local_rank", "rank", "world_size"):
            return replace(self._by_name(str(key.const), owner), kind="")
        return Value(of=of, kind=f"{owner.kind}[]" if owner.kind else "", call=owner.call)

    def _bound_of(self, part: ast.expr | None) -> Value | None:
        return self(part) if part is not None else None

    def _present(self, name: str) -> bool | None:
        environ = self.tracer.environ
        if name in environ:
            return True
        return None if "*" in environ else self.tracer.settings.present(name)

    def _environ(self, node: ast.AST, key: Value, default: Value | None) -> Value:
        """What os.environ holds under a name: what the script or else the launch put there."""
        if not isinstance(key.const, str):
            return Value(of=frozenset({"env"}))
        name, tracer = key.const, self.tracer
        if name in tracer.environ:
            return tracer.environ[name]
        seen = frozenset({f"env:{name}"})
        if tracer.settings.present(name) is False and "*" not in tracer.environ:
            if default is not None:
                return replace(default, of=default.of | seen)
            tracer.happens("environ.missing", node, (key,))
        rank = tracer.settings.rank
        if name in known.RANK:
            return Value(const=str(rank), role="rank", of=seen | {"rank", "global-rank"})
        if name in known.LOCAL_RANK:
            return Value(const=str(rank), role="local-rank", of=seen | {"rank"})
        if name in known.NODE_RANK:
            return Value(role="node-rank", of=seen)
        if name in known.WORLD_SIZE:
            world = tracer.settings.world
            return Value(const=UNKNOWN if world is None else str(world), role="world-size", of=seen)
        told = tracer.settings.value(name) if "*" not in tracer.environ else None
        return Value(
            const=UNKNOWN if told is None else told,
            role=f"env:{name}",
            of=seen | (default.of if default else frozenset()),
            kind="str",
        )

    # Loops in expressions

    def of_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> Value:
        return self._comprehension(node, [node.elt])

    of_SetComp = of_GeneratorExp = of_ListComp

    def of_DictComp(self, node: ast.DictComp) -> Value:
        return self._comprehension(node, [node.key, node.value])

    def _comprehension(
        self,
        node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp,
        parts: list[ast.expr],
    ) -> Value:
        tracer = self.tracer
        kept, loops = tracer.names, tracer.loops
        tracer.names, tracer.loops = dict(kept), (*loops, node)
        of = frozenset[str]()
        count: int | None = None
        for generator in node.generators:
            over = self(generator.iter)
            lone = len(node.generators) == 1
            count = over.count if lone and not generator.ifs else None
            if lone and generator.ifs and over.count is not None:
                count = self._sifted(generator, over)
            of |= over.of
            tracer.assign(generator.target, self.item_of(over, generator.iter, parts))
            for condition in generator.ifs:
                of |= self(condition).of
        items = [self(part) for part in parts]
        tracer.names, tracer.loops = kept, loops
        return Value(items=items[-1:], of=of | union(items), kind="list", count=count)

    def _sifted(self, generator: ast.comprehension, over: Value) -> int | None:
        """How many of the numbers of range() or enumerate() the conditions let through."""
        pairs = over.kind == "enumerate()"
        plain = isinstance(generator.iter, ast.Call) and len(generator.iter.args) == 1
        counted = plain and over.kind in ("enumerate()", "range()")
        if not counted or (over.count or 0) > MOST_SIFTED:
            return None
        kept = 0
        for number in range(over.count or 0):
            index = Value(const=number, kind="int")
            item = Value(items=[index, Value()], exact=True) if pairs else index
            self.tracer.assign(generator.target, item)
            tests = [self(condition) for condition in generator.ifs]
            if not all(test.known for test in tests):
                return None
            kept += all(test.const for test in tests)
        return kept

    def item_of(self, over: Value, node: ast.expr, body: Sequence[ast.AST]) -> Value:
        """One item of what is looped over; the index of a process where the loop starts some."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "range":
                return self._index(node, over, body)
            if node.func.id == "enumerate" and node.args:
                inner = self(node.args[0])
                return Value(items=[Value(), self.item_of(inner, node.args[0], body)], exact=True)
            if node.func.id == "zip":
                return Value(items=[self.item_of(self(a), a, body) for a in node.args], exact=True)
        if over.items:
            item = over.items[0]
            for other in over.items[1:]:
                item = join(item, other)
            return replace(item, of=item.of | over.of) if over.of - item.of else item
        if over.kind in ("str", "list", "tuple", "dict", ""):
            return Value(of=over.of)
        return Value(of=over.of, kind=f"{over.kind}[]", call=over.call)

    def _index(self, node: ast.Call, over: Value, body: Sequence[ast.AST]) -> Value:
        starts = any(self._starts_process(part) for part in body)
        if not starts:
            return Value(of=over.of, kind="int")
        bounds = [self(argument).number for argument in node.args]
        first = (bounds[0] or 0) if len(bounds) > 1 else 0
        last = bounds[min(1, len(bounds) - 1)] if bounds else None
        rank = self.tracer.settings.rank + first
        count = None if last is None else last - first
        return Value(const=rank, role="index", of=frozenset({"rank"}), count=count)

    # Calls

    def of_Await(self, node: ast.Await) -> Value:
        return self(node.value)

    def of_Call(self, node: ast.Call) -> Value:
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self._super()
        owner: Value | None = None
        if isinstance(node.func, ast.Attribute):
            owner = self(node.func.value)
            function = self.attribute(owner, node.func.attr)
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
                    self._note(value)
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
        from ddp_assist.probes.script.calls import called

        return called(self, node, function, owner, args, kwargs, partial)

    def _note(self, value: Value) -> None:
        """Nothing is known of *args; their parts were looked at on the way."""

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

    def _starts_process(self, part: ast.AST, depth: int = 0) -> bool:
        """Whether a process is started in this piece of code, or in what it calls."""
        for node in ast.walk(part):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("Process", "apply_async", "submit", "Popen"):
                return True
            if name.endswith(("Process", "Worker")):
                return True
            held = self._held(node.func)
            if isinstance(held, Class) and held.comes_from(".Process"):
                return True
            if not isinstance(held, Function) or depth > 2 or isinstance(held.node, ast.Lambda):
                continue
            if any(self._starts_process(s, depth + 1) for s in held.node.body):
                return True
        return False

    def _held(self, node: ast.expr) -> object:
        """What a plain name stands for now, looked up without telling anybody."""
        names = self.tracer.names
        if isinstance(node, ast.Name):
            value = names.get(node.id)
            if value is None and self.tracer.module is not None:
                value = self.tracer.module.names.get(node.id)
            return value.target if value is not None else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = names.get(node.value.id)
            if owner is not None and isinstance(owner.target, Instance) and owner.target.owner:
                found = owner.target.owner.find(node.attr)
                return found.target if found is not None else None
        return None

    def follow(
        self, function: Value, args: Sequence[Value], kwargs: Mapping[str, Value], node: ast.AST
    ) -> Value:
        """The body of one of the project's functions, with these arguments."""
        from ddp_assist.probes.script.trace import DEEPEST

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
            and _FREE_PORT.search(target.name)
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


def replace_owner(function: Function, owner: Value | None) -> Function:
    """The function as a method of that object."""
    return replace(function, owner=owner, first=owner)


def chosen(item: Value, key: Value) -> Value:
    """What stands under a key: it depends on the key as well."""
    return replace(item, of=item.of | key.of) if key.of - item.of else item


def cast(name: str, value: Value) -> Value:
    """int(x), str(x), ...: the same thing in another type."""
    const = quiet(_CASTS[name], value.const) if value.known else UNKNOWN
    kind = "" if name == "bool" else name
    return replace(value, const=const, kind=kind, target=None, items=None, table=None)


def _bounds(part: ast.Slice) -> tuple[ast.expr | None, ...]:
    return part.lower, part.upper, part.step


def sliced(count: int | None, part: ast.Slice, bounds: Sequence[Value | None]) -> int | None:
    """How many items a slice has, where that is known."""
    numbers = [b.number if b is not None else None for b in bounds]
    if count is None or any(
        b is not None and n is None for b, n in zip(bounds, numbers, strict=True)
    ):
        return None
    found = quiet(lambda: len(range(count)[slice(*numbers)]))
    return found if isinstance(found, int) else None


def is_random(kind: str) -> bool:
    return bool(_RANDOM.match(kind))


def is_free_port(kind: str) -> bool:
    return bool(_FREE_PORT.search(kind.rpartition(".")[2]))


def ends(kind: str) -> bool:
    return kind in _ENDS
