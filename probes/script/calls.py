"""What a call does, for the calls that mean something to a rank."""

from __future__ import annotations

import ast
import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.arguments import arguments
from ddp_assist.probes.script.evaluate import Evaluator, cast, ends, is_free_port, is_random, quiet
from ddp_assist.probes.script.programs import follow_program
from ddp_assist.probes.script.value import UNKNOWN, Call, Class, Function, Instance, Value, union

_ITSELF: Final = ("cuda", "to", "cpu", "float", "half", "double", "train", "eval")
"""Methods of a module that give back the module."""
Args = list[Value]
Kwargs = Mapping[str, Value]
_SPAWNS: Final = (
    "torch.multiprocessing.spawn",
    "torch.multiprocessing.start_processes",
)
_MAPS: Final = (
    "map",
    "imap",
    "imap_unordered",
    "map_async",
    "starmap",
    "starmap_async",
    "apply",
    "apply_async",
    "submit",
)


_POPENS: Final = tuple(
    f"subprocess.{n}" for n in ("Popen", "run", "call", "check_call", "check_output")
)
_AGREES: Final = re.compile(r"(bcast|broadcast|scatter|all_?reduce|all_?gather|recv)", re.I)
_OWN: Final = re.compile(r"(rank|global-rank|shard|random|free-port|picked@\d+)$")
"""What a value may depend on that differs from process to process."""


def _agrees(kind: str) -> bool:
    """Whether all processes have the same after this call."""
    return bool(_AGREES.search(kind.rpartition(".")[2])) and "gather" not in kind


def _agreed(evaluate: Evaluator, args: Args) -> None:
    """What was broadcast into is the same in all processes from here on."""
    names = evaluate.tracer.names
    given = [a for a in args if a.of and (a.items is not None or a.call is not None)]
    for name, value in list(names.items()):
        if any(value is a for a in given):
            of = frozenset(w for w in value.of if not _OWN.match(w))
            names[name] = replace(value, of=of, const=UNKNOWN, items=None, exact=False, mix=None)


_SAME_THING: Final = tuple(
    f".{name}"
    for name in (
        "decode", "strip", "item", "getvalue", "tobytes", "numpy", "hex", "tolist", "cpu",
        "detach", "clone", "read",
    )
)  # fmt: skip
"""Methods whose answer is what the object is, in another form."""
_POURS: Final = {"torch.save": 1, "pickle.dump": 1, "json.dump": 1, "numpy.save": 0}


def _poured(evaluate: Evaluator, args: Args, receiver: Value | None) -> None:
    """What is written into a buffer is in it from here on."""
    of = union(args)
    into = [v for v in (*args, receiver) if v is not None and "BytesIO()" in v.kind]
    for name, value in list(evaluate.tracer.names.items()):
        if of - value.of and any(value is one for one in into):
            evaluate.tracer.names[name] = replace(value, of=value.of | of)


def _grown(evaluate: Evaluator, node: ast.Call, held: Value, exact: bool = True) -> None:
    """A list that was changed: what was known of it as a whole is so no more."""
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    exact = exact and held.exact and not evaluate.tracer.loops
    changed = replace(
        held, const=UNKNOWN, exact=exact, count=None, of=held.of | union(held.items or [])
    )
    if isinstance(owner, ast.Name):
        evaluate.tracer.assign(owner, changed)
    elif isinstance(owner, ast.Attribute):
        held_by = evaluate(owner.value).target
        if isinstance(held_by, Instance):
            held_by.attrs[owner.attr] = changed


def _const(key: object) -> Value:
    return Value(const=key)


def _default(evaluate: Evaluator, default: Value | None) -> Value | None:
    """What field(default=...) or field(default_factory=...) stands for."""
    if default is None or default.call is None or not default.kind.endswith("field()"):
        return default
    made, plain = default.call.get("default_factory"), default.call.get("default")
    if made is not None and made.kind and made.target is None:
        return Value(kind=f"{made.kind}()", call=default.call)
    if made is not None and isinstance(made.target, Function):
        return evaluate.follow(made, [], {}, default.call.node)
    return plain if plain is not None else Value()


def called(
    evaluate: Evaluator,
    node: ast.Call,
    function: Value,
    receiver: Value | None,
    args: Args,
    kwargs: Kwargs,
    partial: bool,
) -> Value:
    """The value of a call; it is told to the tracer unless it is one of the project's functions."""
    kind, tracer = function.kind, evaluate.tracer
    if isinstance(function.target, Class):
        return _made(evaluate, node, function.target, args, kwargs, partial)
    if isinstance(function.target, Function):
        tracer.happens(kind, node, args, kwargs, function, partial)
        return evaluate.follow(function, args, kwargs, node)
    if isinstance(function.target, Instance) and function.target.owner is not None:
        method = function.target.owner.find("__call__") or function.target.owner.find("forward")
        call = tracer.happens(f"{kind}.__call__", node, args, kwargs, function, partial)
        if method is None and kind.endswith(".parse_args()"):
            return Value(of=union(args), call=call)
        if method is not None:
            return evaluate.follow(evaluate._bound(method, function), args, kwargs, node)
        return Value(of=union(args), call=call)
    special = _SPECIAL.get(kind)
    if special is not None:
        answer = special(evaluate, node, args, kwargs)
        if answer is not None:
            return answer
    if receiver is None and function.call is not None:
        receiver = replace(function, kind=kind.rpartition(".")[0])
    call = tracer.happens(kind, node, args, kwargs, receiver, partial)
    if receiver is not None and isinstance(node.func, ast.Attribute):
        answer = _method(evaluate, node, receiver, node.func.attr, args, call)
        if answer is not None:
            return answer
    if kind in _SPAWNS:
        return _spawn(evaluate, call)
    if known.is_process(kind):
        return _process(evaluate, call)
    if ends(kind):
        return Value(kind="ends()")
    if args and (kind == "contextlib.closing" or kind.endswith(".enter_context")):
        return args[0]
    of = union([*args, *kwargs.values()])
    if is_random(kind):
        return Value(of=of | evaluate.picked("random"), kind=f"{kind}()", call=call)
    if kind.endswith("().getsockname") or (is_free_port(kind) and "." in kind and "()" not in kind):
        return Value(of=of | evaluate.picked("free-port"), call=call)
    if kind in _POURS or kind.endswith(".write"):
        _poured(evaluate, args, receiver)
    if kind in _POPENS:
        follow_program(evaluate, call)
    if _agrees(kind):
        _agreed(evaluate, args)
        of = frozenset(w for w in of if not _OWN.match(w))
    if kind.endswith("Store().get"):
        key = args[0].text if args else ""
        return Value(kind=f"{kind}()", of=of | {f"store:{key}"}, call=call)
    if kind.endswith("Store().add"):
        return Value(of=of | {"store-count"}, call=call)
    if kind == "itertools.islice" and len(args) > 1 and "rank" not in args[-1].of:
        of -= {"shard"}  # as many as all others take
    if receiver is not None and kind.endswith(_SAME_THING):
        of |= receiver.of
    target = Instance(None) if kind.endswith(".parse_args") else None
    items: list[Value] | None = None
    if kind.endswith((".parse_args", ".parse_known_args")):
        tracer.arguments |= arguments(tracer.trace.calls, tracer.settings.arguments, args)
    if kind.endswith(".parse_known_args"):
        space = Value(
            kind="argparse.ArgumentParser().parse_args()", target=Instance(None), call=call
        )
        return Value(items=[space, Value()], exact=True, call=call)
    made = known.plain(f"{kind}()")
    if made.rpartition(".")[2] in ("TCPStore()", "FileStore()", "HashStore()"):
        made = f"torch.distributed.{made.rpartition('.')[2]}"
    if kind.endswith("DistributedDataParallel") and args and isinstance(args[0].target, Instance):
        target = args[0].target
    count = _count(kind, receiver, args, kwargs)
    return Value(kind=made, of=of, call=call, target=target, items=items, count=count)


def _count(kind: str, receiver: Value | None, args: Args, kwargs: Kwargs) -> int | None:
    """How many rows a tensor, or batches a loader, has."""
    last = kind.rpartition(".")[2]
    first = args[0] if args else None
    if kind.startswith("torch.") and last in (
        "randn",
        "rand",
        "ones",
        "zeros",
        "empty",
        "full",
        "arange",
        "randperm",
    ):
        if first is not None and first.items and first.exact:
            return first.items[0].number
        if first is None or (last == "arange" and len(args) > 1):
            return None
        return int(first.const) if isinstance(first.const, int | float) else None
    if first is None:
        return None
    rows = receiver.count if receiver is not None and "()" in kind else first.count
    size = first if receiver is not None and "()" in kind else args[1] if len(args) > 1 else None
    if kind in ("enumerate", "reversed"):
        return first.count
    if last == "Subset" and len(args) > 1:
        return args[1].count
    if last == "islice" and len(args) > 1 and first.count is not None:
        marks = [None if a.const is None else a.number for a in args[1:4]]
        if any(m is None and a.const is not None for m, a in zip(marks, args[1:4], strict=False)):
            return None
        kept = slice(*marks) if len(marks) > 1 else slice(marks[0])
        found = quiet(lambda: len(range(first.count or 0)[kept]))
        return found if isinstance(found, int) else None
    if last == "split" and rows is not None and size is not None and size.number:
        return -(-rows // size.number)
    if last in ("chunk", "tensor_split", "array_split") and size is not None and size.number:
        return size.number
    if last in ("TensorDataset", "as_tensor", "tensor"):
        return first.count
    if last == "DataLoader":
        batch = kwargs.get("batch_size") or (args[1] if len(args) > 1 else Value(const=1))
        drop = kwargs.get("drop_last")
        if (
            first.count is None
            or not batch.number
            or "sampler" in kwargs
            or "batch_sampler" in kwargs
        ):
            return None
        if drop is not None and drop.const is not False:
            return first.count // batch.number if drop.const is True else None
        return -(-first.count // batch.number)
    return None


def _made(
    evaluate: Evaluator, node: ast.Call, owner: Class, args: Args, kwargs: Kwargs, partial: bool
) -> Value:
    call = evaluate.tracer.happens(f"class:{owner.node.name}", node, args, kwargs, None, partial)
    made = Value(target=Instance(owner), kind=f"class:{owner.node.name}()", call=call)
    start, fields = owner.find("__init__"), owner.fields()
    if start is not None:
        evaluate.follow(evaluate._bound(start, made), args, kwargs, node)
    elif fields is not None and isinstance(made.target, Instance):
        given = {**dict(zip(fields, args, strict=False)), **kwargs}
        for name, default in fields.items():
            held = given.get(name) or _default(evaluate, default)
            if held is not None:
                made.target.attrs[name] = held
        after = owner.find("__post_init__")
        if after is not None:
            evaluate.follow(evaluate._bound(after, made), [], {}, node)
    return replace(made, of=frozenset(union([*args, *kwargs.values()]) & {"rank"}))


def _method(
    evaluate: Evaluator, node: ast.Call, receiver: Value, name: str, args: Args, call: Call
) -> Value | None:
    """Methods of things that the script holds."""
    if receiver.items is not None and name in ("append", "add") and args:
        receiver.items.append(args[0])
        _grown(evaluate, node, receiver)
        return Value(const=None)
    if receiver.items is not None and name in ("extend", "insert", "pop", "remove", "clear"):
        _grown(evaluate, node, receiver, exact=False)
        return Value(const=None) if name != "pop" else receiver.items[0] if receiver.items else None
    if receiver.table is not None and name == "items":
        pairs = [
            Value(items=[Value(const=k), v], exact=True, of=v.of) for k, v in receiver.table.items()
        ]
        return Value(items=pairs, exact=receiver.exact, of=receiver.of, kind="list")
    if receiver.table is not None and name in ("values", "keys"):
        parts = receiver.table.values() if name == "values" else map(_const, receiver.table)
        return Value(items=list(parts), exact=receiver.exact, of=receiver.of, kind="list")
    if receiver.table is not None and name == "copy":
        return replace(receiver, table=dict(receiver.table))
    if receiver.table is not None and name == "update":
        for other in args:
            receiver.table.update(other.table or {})
        receiver.table.update(call.kwargs)
        return Value(const=None)
    if receiver.table is not None and name == "get" and args and args[0].known:
        found = receiver.table.get(args[0].const) if isinstance(args[0].const, str | int) else None
        return found or Value()
    if isinstance(receiver.const, str) or receiver.kind == "str":
        return _text(receiver, name, args)
    if known.is_pool(receiver.kind) and name in _MAPS and args:
        _pool(evaluate, receiver, name, args, call)
    if (
        name == "start"
        and isinstance(receiver.target, Instance)
        and receiver.target.owner is not None
        and receiver.target.owner.comes_from("threading.Thread")
    ):
        _own_thread(evaluate, node, receiver, receiver.target.owner)
    elif (
        name == "start"
        and isinstance(receiver.target, Instance)
        and receiver.target.owner is not None
    ):
        run = receiver.target.owner.find("run")
        if run is not None and receiver.target.owner.comes_from(".Process"):
            evaluate.tracer.child(
                "process",
                _method_of(evaluate, receiver.kind),
                call,
                evaluate._bound(run, receiver),
                [],
            )
    if name in _ITSELF and isinstance(receiver.target, Instance):
        return receiver
    return None


def _text(receiver: Value, name: str, args: Args) -> Value | None:
    const = receiver.const
    if name == "format" and isinstance(const, str):
        of = receiver.of | union(args)
        if all(a.known for a in args):
            try:
                return Value(const=const.format(*(a.const for a in args)), of=of)
            except (IndexError, KeyError, ValueError, AttributeError):
                return Value(of=of)
        return Value(
            pattern=const, of=of, kind="str", mix=next((a.mix for a in args if a.mix), None)
        )
    if name == "join" and isinstance(const, str) and args and args[0].items is not None:
        parts = args[0].items
        of = receiver.of | union(parts)
        if args[0].exact and all(isinstance(p.const, str) for p in parts):
            return Value(const=const.join(str(p.const) for p in parts), of=of)
        text = const.join(p.text or "{}" for p in parts) if args[0].exact else ""
        return Value(pattern=text, of=of, kind="str")
    if name in ("lower", "upper", "strip") and isinstance(const, str):
        return replace(receiver, const=getattr(const, name)() if not args else UNKNOWN)
    if name == "encode":
        return replace(receiver, kind="bytes")
    if name in (
        "isdigit",
        "startswith",
        "endswith",
        "split",
        "partition",
        "replace",
        "count",
        "find",
        "rpartition",
    ):
        return Value(of=receiver.of, kind="str" if name == "replace" else "")
    return None


# Children


def _method_of(evaluate: Evaluator, kind: str, call: Call | None = None) -> str:
    """How a process made by this would be started."""
    if call is not None and call.receiver is not None and call.receiver.call is not None:
        context = call.receiver.call
        if context.name.endswith("get_context"):
            method = context.get("method", 0)
            if method is not None and isinstance(method.const, str):
                return method.const
            if method is not None and not method.known:
                return "unknown"
    return evaluate.tracer.start_method or "default"


def _spawn(evaluate: Evaluator, call: Call) -> Value:
    fn, given = call.get("fn", 0), call.get("args", 1)
    method = call.get("start_method", 5)
    how = method.const if method is not None and isinstance(method.const, str) else "spawn"
    rank = evaluate.tracer.settings.rank
    index = Value(const=rank, role="index", of=frozenset({"rank"}))
    rest = given.items if given is not None and given.items is not None and given.exact else []
    if fn is not None:
        evaluate.tracer.child("spawn", how, call, fn, [index, *(rest or [])])
    return Value(kind=f"{call.name}()", call=call)


def _process(evaluate: Evaluator, call: Call) -> Value:
    target, given, named = call.get("target", 1), call.get("args", 3), call.get("kwargs", 4)
    rest = given.items if given is not None and given.items is not None and given.exact else []
    table = {str(k): v for k, v in named.table.items()} if named is not None and named.table else {}
    if target is not None and isinstance(target.target, Function):
        names = [a.arg for a in target.target.node.args.args]
        rest = [
            _numbered(name, item) for name, item in zip(names, rest or [], strict=False)
        ] + list((rest or [])[len(names) :])
    if target is not None:
        evaluate.tracer.child(
            "process", _method_of(evaluate, call.name, call), call, target, rest or [], table
        )
    return Value(kind=f"{call.name}()", call=call)


def _numbered(name: str, item: Value) -> Value:
    """A number written down for a parameter called rank is a rank."""
    plain = isinstance(item.const, int) and not isinstance(item.const, bool) and not item.of
    return (
        replace(item, role="index", of=frozenset({"rank"}))
        if plain and re.search(r"rank|idx|index|worker|^i$|proc", name)
        else item
    )


def _pool(evaluate: Evaluator, pool: Value, name: str, args: Args, call: Call) -> None:
    rank = evaluate.tracer.settings.rank
    index = Value(const=rank, role="index", of=frozenset({"rank"}))
    method = _method_of(evaluate, pool.kind, pool.call)
    if name in ("apply", "apply_async"):
        given = args[1].items if len(args) > 1 and args[1].items else []
    elif name == "submit":
        given = args[1:]
    else:
        over = args[1] if len(args) > 1 else Value()
        if over.items:
            item = over.items[0]
        else:
            item = index if over.kind == "range()" else Value(of=over.of)
        given = item.items if name.startswith("starmap") and item.items else [item]
    evaluate.tracer.child("pool", method, call, args[0], given or [])


# Functions whose answer says something

Special = Callable[[Evaluator, ast.Call, Args, Kwargs], "Value | None"]


def _rank(role: str) -> Special:
    def answer(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
        group = args[0] if args else kwargs.get("group")
        evaluate.tracer.happens("torch.distributed.get_rank", node, args, kwargs)
        if group is not None and group.const is not None and role == "rank":
            return Value(of=frozenset({"group-rank"}))
        of = {"rank", "global-rank"} if role == "rank" else {"rank"}
        return Value(const=evaluate.tracer.settings.rank, role=role, of=frozenset(of))

    return answer


def _world(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    evaluate.tracer.happens("torch.distributed.get_world_size", node, args, kwargs)
    world = evaluate.tracer.settings.world
    const = UNKNOWN if world is None else world
    return Value(const=const, role="world-size", of=frozenset({"world-size"}))


def _initialized(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    number = evaluate.tracer.process.number
    begun = any(
        c.name == "torch.distributed.init_process_group"
        and c.process.number == number
        and not c.path
        for c in evaluate.tracer.trace.calls
    )
    return Value(const=True if begun else UNKNOWN, of=frozenset({"initialized"}))


def _getenv(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    default = args[1] if len(args) > 1 else kwargs.get("default", Value(const=None))
    return evaluate._environ(node, args[0], default) if args else Value()


def _setdefault(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    if len(args) > 1:
        evaluate.tracer.set_environ(node, args[0], args[1], soft=True)
        return evaluate._environ(node, args[0], args[1])
    return Value()


def _update(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    for mapping in args:
        if mapping.table is None:
            evaluate.tracer.environ["*"] = Value()
        for key, value in (mapping.table or {}).items():
            evaluate.tracer.set_environ(node, Value(const=key), value)
    for name, value in kwargs.items():
        evaluate.tracer.set_environ(node, Value(const=name), value)
    return Value(const=None)


def _pop(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    evaluate.tracer.happens("environ.pop", node, args)
    if args and isinstance(args[0].const, str):
        evaluate.tracer.environ.pop(args[0].const, None)
    return Value()


def _dotenv(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value | None:
    evaluate.tracer.environ["*"] = Value()
    return None


def _start_method(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value | None:
    method = args[0] if args else kwargs.get("method")
    if method is not None and isinstance(method.const, str):
        evaluate.tracer.start_method = method.const
    return None


def _cast(name: str) -> Special:
    def answer(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
        return cast(name, args[0]) if args else Value()

    return answer


def _range(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    of = union(args)
    numbers = [n for a in args if (n := a.number) is not None]
    count = None
    if args and len(numbers) == len(args):
        found = quiet(lambda: len(range(*numbers)))
        count = found if isinstance(found, int) else None
    shard = {"shard"} if "rank" in of else frozenset()
    return Value(of=of | shard, kind="range()", count=count)


def _length(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    if args and args[0].exact and args[0].items is not None:
        return Value(const=len(args[0].items), kind="int")
    if args and args[0].count is not None:
        return Value(const=args[0].count, of=args[0].of, kind="int")
    return Value(of=union(args), kind="int")


def _folded(do: Callable[..., object]) -> Special:
    """sum(), max() and min() of numbers that are all known."""

    def answer(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value | None:
        parts = args[0].items if len(args) == 1 and args[0].exact else args
        numbers = [p.const for p in parts or []]
        if kwargs or not numbers or not all(isinstance(n, int | float) for n in numbers):
            return None
        return Value(const=quiet(do, numbers), of=union(args), kind="int")

    return answer


def _same(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    return args[0] if args else Value()


def _thread(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    call = evaluate.tracer.happens("threading.Thread", node, args, kwargs)
    target, given = call.get("target", 1), call.get("args", 3)
    if target is not None and isinstance(target.target, Function):
        evaluate.tracer.thread += 1
        evaluate.follow(target, (given.items or []) if given is not None else [], {}, node)
        evaluate.tracer.thread -= 1
    return Value(kind="threading.Thread()", call=call)


def _own_thread(evaluate: Evaluator, node: ast.Call, receiver: Value, owner: Class) -> None:
    """start() of a class of the project that is a thread."""
    tracer = evaluate.tracer
    made = tracer.happens("threading.Thread", node)
    tracer.happens("threading.Thread().start", node, receiver=Value(call=made))
    run = owner.find("run")
    if run is not None:
        tracer.thread += 1
        evaluate.follow(evaluate._bound(run, receiver), [], {}, node)
        tracer.thread -= 1


def _partial(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    if args and isinstance(args[0].target, Function):
        inner = args[0].target
        given, named = (*inner.given, *args[1:]), {**inner.named, **kwargs}
        return replace(args[0], target=replace(inner, given=given, named=named))
    return Value(kind="functools.partial()", of=union(args))


def _dict(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value | None:
    """dict(table, name=value), and a copy of the environment with more in it."""
    table: dict[object, Value] = {}
    exact = True
    for other in args:
        exact = exact and other.table is not None and other.exact
        table.update(other.table or {})
    table.update(kwargs)
    return Value(table=table, of=union(table.values()), kind="dict", exact=exact)


def _namespace(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value | None:
    """SimpleNamespace and its kin: the names are attributes, and mostly keys as well."""
    named = {str(k): v for arg in args for k, v in (arg.table or {}).items()} | dict(kwargs)
    return _with_attributes(named) if named else None


def _with_attributes(named: dict[str, Value]) -> Value:
    held: dict[Any, Value] = {
        k: _with_attributes(v.table) if v.table and v.target is None else v
        for k, v in named.items()
    }
    of = union(held.values())
    return Value(target=Instance(None, held), table=held, of=of, kind="dict")


def _copy(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    return Value(table={}, kind="dict", of=frozenset({"env"}))


def _vars(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value | None:
    """vars(args): the options as a table."""
    if args and args[0].kind.endswith("parse_args()"):
        names = evaluate.tracer.arguments
        return Value(table={n: evaluate._option(n) for n in names}, kind="dict")
    if args and isinstance(args[0].target, Instance):
        return Value(table=dict(args[0].target.attrs), kind="dict")
    return None


def _true(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    return Value(const=True)


def _gpus(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    return Value(role="gpu-count", of=frozenset({"cuda"}))


def _cuda(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    return Value(of=frozenset({"cuda"}))


def _path(make: Callable[..., str]) -> Special:
    """A path of known parts; one below the working directory stays relative to it."""

    def made(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
        parts = [arg.const for arg in args]
        if any(not isinstance(part, str) for part in parts) or kwargs:
            return Value(of=union(args))
        return Value(const=make(*parts), of=union(args))

    return made


_SPECIAL: Final[dict[str, Special]] = {
    "torch.distributed.get_rank": _rank("rank"),
    "torch.distributed.get_node_local_rank": _rank("local-rank"),
    "torch.distributed.get_world_size": _world,
    "torch.distributed.is_initialized": _initialized,
    "torch.distributed.is_available": _true,
    "os.environ.get": _getenv,
    "os.getenv": _getenv,
    "os.environ.setdefault": _setdefault,
    "os.environ.update": _update,
    "os.environ.pop": _pop,
    "dotenv.load_dotenv": _dotenv,
    "torch.multiprocessing.set_start_method": _start_method,
    "multiprocessing.set_start_method": _start_method,
    "os.getcwd": _path(lambda: "."),
    "os.path.join": _path(os.path.join),
    "os.path.dirname": _path(os.path.dirname),
    "os.path.abspath": _path(lambda path: path),
    "os.path.realpath": _path(lambda path: path),
    "os.path.expanduser": _path(os.path.expanduser),
    "int": _cast("int"),
    "str": _cast("str"),
    "float": _cast("float"),
    "bool": _cast("bool"),
    "range": _range,
    "len": _length,
    "sum": _folded(sum),
    "max": _folded(max),
    "min": _folded(min),
    "list": _same,
    "tuple": _same,
    "sorted": _same,
    "reversed": _same,
    "iter": _same,
    "tqdm.tqdm": _same,
    "threading.Thread": _thread,
    "functools.partial": _partial,
    "dict": _dict,
    "types.SimpleNamespace": _namespace,
    "argparse.Namespace": _namespace,
    "easydict.EasyDict": _namespace,
    "munch.Munch": _namespace,
    "munch.munchify": _namespace,
    "addict.Dict": _namespace,
    "ml_collections.ConfigDict": _namespace,
    "omegaconf.OmegaConf.create": _namespace,
    "os.environ.copy": _copy,
    "vars": _vars,
    "contextlib.closing": _same,
    "copy.copy": _same,
    "copy.deepcopy": _same,
    "torch.cuda.device_count": _gpus,
    "torch.cuda.is_available": _cuda,
    "torch.distributed.is_nccl_available": _cuda,
}
