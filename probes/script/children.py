"""Mistakes in how a script starts processes: guards, targets, what can be pickled."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import SPAWNS, ScriptFacts, handed
from ddp_assist.probes.script.known import is_pool, is_process
from ddp_assist.probes.script.locks import LOCKS
from ddp_assist.probes.script.spots import at, place, spot
from ddp_assist.probes.script.value import Call, Class, Function, Instance, Process, Value

_HELD = (*LOCKS, "threading.Condition()", "threading.Event()")
"""What holds a lock can't be pickled."""


def starts(facts: ScriptFacts) -> list[tuple[Call, Process | None]]:
    """Every place where a process is started, with the process where its function is known."""
    made = {id(g.process.call.node): g.process for g in facts.gangs if g.process.call is not None}
    calls = [c for c in facts.traces[0].calls if c.name in SPAWNS or is_process(c.name)]
    return [(c, made.get(id(c.node))) for c in calls]


def started_by(facts: ScriptFacts, call: Call, process: Process | None) -> str:
    """How the process is started: the method named, else what this Python does on Linux."""
    if process is not None:
        return "fork" if process.method == "default" else process.method
    return "spawn" if call.name in SPAWNS else "fork"


def guard(facts: ScriptFacts) -> Iterator[Finding]:
    if facts.source.notebook:
        return
    for call, process in [*starts(facts), *_pools(facts)]:
        if call.process.number or call.guarded or call.stray:
            continue
        if started_by(facts, call, process) not in ("spawn", "forkserver"):
            continue
        if call.stack and not isinstance(call.stack[0], ast.Call):
            continue
        outer = call.stack[0] if call.stack else call.node
        source = facts.source
        sentence = (
            "processes are started while the script is imported: every child imports it again and "
            'starts more; put it under if __name__ == "__main__":'
        )
        statement = _statement(source.tree, outer)
        if statement is None:
            continue
        name = call.name.rpartition(".")[2]
        yield spot(
            "missing-main-guard",
            sentence,
            source,
            outer,
            what=name,
            statement=place(source, statement),
            block=place(source, _first_of_block(source.tree, statement)),
        )
        return


def _pools(facts: ScriptFacts) -> list[tuple[Call, Process]]:
    """Pools, whose workers are started where the pool is made."""
    found = []
    chosen = "default"
    for call in facts.traces[0].calls:
        if call.name.endswith("multiprocessing.set_start_method") and call.args:
            chosen = str(call.args[0].const)
        if is_pool(f"{call.name}()") and not call.stray:
            made = call.receiver.call if call.receiver is not None else call
            context = call.get("mp_context") or call.get("context")
            made = context.call if context is not None and context.call else made
            method = made.get("method", 0) if made and made.name.endswith("get_context") else None
            how = method.const if method is not None and isinstance(method.const, str) else chosen
            found.append((call, Process(0, "pool", how, call)))
    return found


def _statement(tree: ast.Module | None, node: ast.AST) -> ast.stmt | None:
    """The statement of the module that holds a node."""
    for statement in tree.body if tree is not None else []:
        if statement.lineno <= getattr(node, "lineno", 0) <= (statement.end_lineno or 0):
            return statement
    return None


def _first_of_block(tree: ast.Module | None, statement: ast.stmt) -> ast.stmt:
    """The first of the statements with it: those after the last definition or import."""
    first = statement
    plain = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    for earlier in reversed(
        [s for s in (tree.body if tree else []) if s.lineno < statement.lineno]
    ):
        if isinstance(earlier, plain) or (
            isinstance(earlier, ast.Expr) and isinstance(earlier.value, ast.Constant)
        ):
            break
        first = earlier
    return first


def target(facts: ScriptFacts) -> Iterator[Finding]:
    """A function that can't be called the way it will be."""
    for call, process in starts(facts):
        spawned = call.name in SPAWNS
        fn = call.get("fn", 0) if spawned else call.get("target", 1)
        fn_node = call.node_of("fn", 0) if spawned else call.node_of("target", 1)
        args_node = call.node_of("args", 1 if spawned else 3)
        given = call.get("args", 1 if spawned else 3)
        if isinstance(fn_node, ast.Call) and fn is not None and fn.known and fn.const is None:
            sentence = (
                "the function is called here, and its answer, None, is given to be run; "
                "name the function and put its arguments into args=(...)"
            )
            yield at(
                call,
                "spawn-target-invalid",
                sentence,
                kind="called",
                value_span=place(call.source, fn_node),
            )
            return
        if args_node is not None and given is not None and _no_tuple(args_node, given):
            sentence = (
                f"args={call.source.code(args_node)} is no tuple; one argument needs a "
                f"comma: args=({call.source.code(args_node)},)"
            )
            yield at(
                call,
                "spawn-target-invalid",
                sentence,
                kind="tuple",
                value_span=place(call.source, args_node),
            )
            return
        function = process.function if process is not None else None
        if fn is not None and isinstance(fn.target, Function):
            function = fn.target
        if function is None or call.partial or (given is not None and not given.exact):
            continue
        if function.named or call.name not in SPAWNS and function.given:
            continue
        count = (len(given.items or []) if given is not None else 0) + len(function.given)
        named = call.get("kwargs", 4) if not spawned else None
        if named is not None:
            continue
        problem = _arity(function, count + spawned)
        if problem:
            what = (
                "mp.spawn puts the index in front of args"
                if spawned
                else "Process hands over args as they are"
            )
            sentence = f"{function.name} {problem}; {what}"
            yield at(
                call,
                "spawn-target-invalid",
                sentence,
                kind="arity",
                function=function.name,
                spawned=spawned,
                function_file=str(function.source.path),
                function_span=place(function.source, function.node),
                given=count,
            )
            return


def _no_tuple(node: ast.expr, value: Value) -> bool:
    if isinstance(node, ast.Tuple | ast.List | ast.Starred):
        return False
    if value.known:
        return isinstance(value.const, int | float | str) and not isinstance(value.const, tuple)
    if isinstance(value.target, Instance):
        methods = value.target.owner
        return methods is None or methods.find("__iter__") is None and methods.fields() is None
    return (
        bool(value.role in ("world-size", "gpu-count", "rank", "local-rank"))
        or value.kind in ("class:",)
        or isinstance(value.target, Function)
    )


def _arity(function: Function, given: int) -> str:
    parameters = function.node.args
    names = [a.arg for a in [*parameters.posonlyargs, *parameters.args]]
    bound = (
        function.owner is not None
        and names[:1] in (["self"], ["cls"])
        and not _static(function.node)
    )
    most = len(names) - bound
    least = most - len(parameters.defaults)
    required = [
        a.arg
        for a, d in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
        if d is None
    ]
    if parameters.vararg is None and given > most:
        return f"takes {most} arguments and gets {given}"
    if given < least:
        return f"needs {least} arguments and gets {given}"
    return f"needs the keyword {required[0]}, which is not given" if required else ""


def _static(node: ast.AST) -> bool:
    return any(
        isinstance(d, ast.Name) and d.id == "staticmethod"
        for d in getattr(node, "decorator_list", [])
    )


def pickling(facts: ScriptFacts) -> Iterator[Finding]:
    for call, process in starts(facts):
        method = started_by(facts, call, process)
        if method not in ("spawn", "forkserver"):
            continue
        spawned = call.name in SPAWNS
        fn = call.get("fn", 0) if spawned else call.get("target", 1)
        node = call.node_of("fn", 0) if spawned else call.node_of("target", 1)
        if (
            fn is not None
            and isinstance(fn.target, Function)
            and (fn.target.local or fn.target.guarded or fn.kind == "lambda")
        ):
            what = (
                "a lambda"
                if fn.kind == "lambda"
                else f"{fn.target.name}, a function defined under the main guard,"
                if fn.target.guarded and not fn.target.local
                else f"{fn.target.name}, a function defined inside another,"
            )
            sentence = (
                f"{what} is handed to a new process and can't be pickled; define it at "
                "the level of the module"
            )
            yield at(
                call,
                "unpicklable-object",
                sentence,
                kind="function",
                name=fn.target.name,
                method=method,
                function_file=str(fn.target.source.path),
                function_span=place(fn.target.source, fn.target.node),
                value_span=place(call.source, node or call.node),
            )
            return
        owner = [fn] if fn is not None and isinstance(fn.target, Function) else []
        for item in [*handed(call), *owner]:
            found = _unpicklable(item)
            if found is not None:
                what, inner = found
                sentence = f"{what} is handed to a new process in args and can't be pickled"
                yield at(
                    call,
                    "unpicklable-object",
                    sentence,
                    kind="argument",
                    what=what,
                    method=method,
                    **_made_at(inner),
                )
                return
    for call in facts.calls("torch.utils.data.DataLoader"):
        context = call.get("multiprocessing_context")
        workers = facts.value_of(call.get("num_workers", 5))
        spawns = (context is not None and context.const == "spawn") or any(
            c.name.endswith("set_start_method") and c.args and c.args[0].const == "spawn"
            for c in facts.traces[0].calls
        )
        if not spawns or not isinstance(workers, int) or workers < 1:
            continue
        for name, position in (("collate_fn", 6), ("worker_init_fn", 10)):
            value = call.get(name, position)
            if value is not None and value.kind == "lambda":
                sentence = (
                    f"{name} is a lambda, which can't be pickled for spawned DataLoader workers"
                )
                yield at(
                    call,
                    "unpicklable-object",
                    sentence,
                    kind="argument",
                    what=f"{name}=lambda",
                    **_made_at(value),
                )
                return


def _unpicklable(item: Value, depth: int = 0) -> tuple[str, Value] | None:
    """What of this no new process can be given, in words; also deep inside of what is given."""
    if depth < 3:
        for part in _inside(item):
            found = _unpicklable(part, depth + 1)
            if found is not None:
                return found
    what = _WHAT.get(item.kind, "")
    if item.kind in _HELD:
        what = f"a {item.kind[:-2]}"
    owner = item.target.owner if isinstance(item.target, Instance) else item.target
    if isinstance(owner, Class) and (owner.local or owner.guarded):
        where = "inside a function" if owner.local else "under the main guard"
        kind = "an object of a" if isinstance(item.target, Instance) else "a"
        what = what or f"{kind} class defined {where}"
    if isinstance(item.target, Function) and item.target.local:
        what = what or f"the local function {item.target.name}"
    return (what, item) if what else None


_WHAT = {
    "lambda": "a lambda",
    "generator()": "a generator",
    "open()": "an open file",
    "socket.socket()": "a socket",
    "threading.Thread()": "a thread",
    "torch.distributed.new_group()": "a process group",
}


def _inside(item: Value) -> list[Value]:
    parts = [*(item.items or ()), *(item.table or {}).values()]
    if isinstance(item.target, Instance):
        owner = item.target.owner
        if owner is None or not {"__getstate__", "__reduce__"} & owner.names.keys():
            parts += item.target.attrs.values()
    elif isinstance(item.target, Function):
        parts += [*item.target.given, *item.target.named.values()]
        parts += [item.target.first] if item.target.first is not None else []
    return parts


def _made_at(item: Value) -> dict[str, object]:
    """Where it is defined or made, for the correction."""
    owner = item.target.owner if isinstance(item.target, Instance) else item.target
    where: dict[str, object] = {}
    if isinstance(owner, Function | Class):
        where |= {"function_file": str(owner.source.path)}
        where |= {"function_span": place(owner.source, owner.node)}
    made = item.call
    if made is not None:
        where |= {"made_span": place(made.source, made.node), "made_file": str(made.source.path)}
        where |= {"lock": item.kind[:-2]} if item.kind in _HELD else {}
    return where


def notebook(facts: ScriptFacts) -> Iterator[Finding]:
    if not facts.source.notebook:
        return
    for call, process in starts(facts):
        function = process.function if process is not None else None
        if (
            function is not None
            and function.source is facts.source
            and started_by(facts, call, process) != "fork"
        ):
            sentence = (
                f"{function.name} only lives in this notebook: a spawned process can't import "
                "it; move it "
                "to a .py file beside the notebook"
            )
            yield at(call, "notebook-main", sentence, name=function.name)
            return


def never_started(facts: ScriptFacts) -> Iterator[Finding]:
    for call, process in starts(facts):
        if call.name in SPAWNS or call.stray:
            continue
        texts = [s.text for s in facts.project.read()]
        if not any(re.search(r"\.start\b", text) for text in texts):
            sentence = "a process is made here and never started: start() is called nowhere"
            yield at(
                call, "rank-never-started", sentence, process=process.number if process else None
            )
            return


CHECKS = (
    guard,
    target,
    pickling,
    notebook,
    never_started,
)
