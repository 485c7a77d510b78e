"""What a call does, for the calls that mean something to a rank."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ddp_assist.probes.script import known
from ddp_assist.probes.script.answers import ANSWERS
from ddp_assist.probes.script.arguments import arguments
from ddp_assist.probes.script.constants import quiet
from ddp_assist.probes.script.methods import of_method
from ddp_assist.probes.script.parts import bound
from ddp_assist.probes.script.programs import follow_program
from ddp_assist.probes.script.starting import process, spawn
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Args,
    Class,
    Function,
    Instance,
    Kwargs,
    Value,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator

_SPAWNS: Final = (
    "torch.multiprocessing.spawn",
    "torch.multiprocessing.start_processes",
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
            return evaluate.follow(bound(evaluate, method, function), args, kwargs, node)
        return Value(of=union(args), call=call)
    special = ANSWERS.get(kind)
    if special is not None:
        answer = special(evaluate, node, args, kwargs)
        if answer is not None:
            return answer
    if receiver is None and function.call is not None:
        receiver = replace(function, kind=kind.rpartition(".")[0])
    call = tracer.happens(kind, node, args, kwargs, receiver, partial)
    if receiver is not None and isinstance(node.func, ast.Attribute):
        answer = of_method(evaluate, node, receiver, node.func.attr, args, call)
        if answer is not None:
            return answer
    if kind in _SPAWNS:
        return spawn(evaluate, call)
    if known.is_process(kind):
        return process(evaluate, call)
    if known.ends(kind):
        return Value(kind="known.ends()")
    if args and (kind == "contextlib.closing" or kind.endswith(".enter_context")):
        return args[0]
    of = union([*args, *kwargs.values()])
    if known.is_random(kind):
        return Value(of=of | evaluate.picked("random"), kind=f"{kind}()", call=call)
    if kind.endswith("().getsockname") or (
        known.is_free_port(kind) and "." in kind and "()" not in kind
    ):
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
        evaluate.follow(bound(evaluate, start, made), args, kwargs, node)
    elif fields is not None and isinstance(made.target, Instance):
        given = {**dict(zip(fields, args, strict=False)), **kwargs}
        for name, default in fields.items():
            held = given.get(name) or _default(evaluate, default)
            if held is not None:
                made.target.attrs[name] = held
        after = owner.find("__post_init__")
        if after is not None:
            evaluate.follow(bound(evaluate, after, made), [], {}, node)
    return replace(made, of=frozenset(union([*args, *kwargs.values()]) & {"rank"}))
