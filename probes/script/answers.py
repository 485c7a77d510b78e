"""Functions whose answer says something: ranks, sizes, paths, the environment."""

from __future__ import annotations

import ast
import os.path
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ddp_assist.probes.script.constants import cast, quiet
from ddp_assist.probes.script.parts import environ, option
from ddp_assist.probes.script.starting import thread
from ddp_assist.probes.script.value import (
    UNKNOWN,
    Args,
    Function,
    Instance,
    Kwargs,
    Value,
    union,
)

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator

Special = Callable[["Evaluator", ast.Call, Args, Kwargs], "Value | None"]


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
    return environ(evaluate, node, args[0], default) if args else Value()


def _setdefault(evaluate: Evaluator, node: ast.Call, args: Args, kwargs: Kwargs) -> Value:
    if len(args) > 1:
        evaluate.tracer.set_environ(node, args[0], args[1], soft=True)
        return environ(evaluate, node, args[0], args[1])
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
        return Value(table={n: option(evaluate, n) for n in names}, kind="dict")
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
        return Value(const=quiet(make, *parts), of=union(args))

    return made


ANSWERS: Final[dict[str, Special]] = {
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
    "threading.Thread": thread,
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
