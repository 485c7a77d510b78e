"""Cures of how processes are started."""

from __future__ import annotations

import ast
import re

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import append_argument, argument, imported_as


def main_guard(draft: Draft) -> None:
    text, place = draft.text, draft.data["statement"]
    body = text.source.tree.body if text.source.tree is not None else []
    index = next(i for i, s in enumerate(body) if s.lineno == place[0])
    last = body[index]
    for later in body[index + 1 :]:
        if isinstance(
            later,
            ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Import | ast.ImportFrom,
        ):
            break
        last = later
    text.insert(place[0], 'if __name__ == "__main__":')
    text.indent(place[0], last.end_lineno or last.lineno)


def spawn_target(draft: Draft) -> None:
    kind, text = draft.data["kind"], draft.text
    if kind == "tuple":
        place = draft.data["value_span"]
        text.replace(place, f"({text.get(place)},)")
    elif kind == "called":
        call = draft.call
        inner = text.node_at(draft.data["value_span"], ast.Call)
        if not isinstance(inner, ast.Call) or inner.keywords or argument(call, "args") is not None:
            raise NoEdit
        given = [text.source.code(a) for a in inner.args]
        if text.source.code(call.func).endswith("spawn"):
            if given[:1] not in (["0"], ["rank"]):
                raise NoEdit
            given = given[1:]  # the rank is what mp.spawn gives by itself
        text.replace(draft.data["value_span"], text.source.code(inner.func))
        if given:
            tail = "," if len(given) == 1 else ""
            append_argument(text, call, f"args=({', '.join(given)}{tail})")
    else:
        _rank_first(draft)


def _rank_first(draft: Draft) -> None:
    """A worker that lacks the index mp.spawn puts in front."""
    if not draft.data["spawned"] or draft.data["function_file"] != draft.data["file"]:
        raise NoEdit
    text = draft.text
    function = text.node_at(draft.data["function_span"], ast.FunctionDef)
    if not isinstance(function, ast.FunctionDef):
        raise NoEdit
    if function.args.kwonlyargs:
        _by_place(draft, function)
        return
    names = [a.arg for a in function.args.args]
    own = names[:1] in (["self"], ["cls"])
    if len(names) - own != draft.data["given"] or {"rank", "local_rank", "gpu"} & set(names):
        _args_that_fit(draft, function)
        return
    if own and len(names) == 1:
        end = text.place(function.args.args[0])[2:]
        text.replace([*end, *end], ", rank")
    elif names:
        start = text.place(function.args.args[own])[:2]
        text.replace([*start, *start], "rank, ")
    else:
        line = function.lineno
        col = text.source.line(line).index(function.name) + len(function.name)
        col = text.source.line(line).index("(", col) + 1
        text.replace([line, col, line, col], "rank")
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "init_process_group"
        ):
            rank = argument(node, "rank", 4)
            if isinstance(rank, ast.Constant) and rank.value == 0:
                text.replace(text.place(rank), "rank")


def _by_place(draft: Draft, function: ast.FunctionDef) -> None:
    """Parameters that only a keyword can give, where what is given has no keywords."""
    text, parameters = draft.text, function.args
    every = [*parameters.args, *parameters.kwonlyargs]
    if parameters.vararg or len(every) != draft.data["given"] + 1:
        raise NoEdit
    first = text.place(parameters.kwonlyargs[0])[:2]
    start = text.place(parameters.args[-1])[2:] if parameters.args else None
    if start is None:
        line = function.lineno
        start = [line, text.source.line(line).index("(", text.place(function)[1]) + 1]
    between = text.get([*start, *first])
    text.replace([*start, *first], re.sub(r"\*\s*,\s*", "", between, count=1))


def _args_that_fit(draft: Draft, function: ast.FunctionDef) -> None:
    """args=(...) made to fit: what the worker has no name for goes, the number of ranks comes."""
    text, call = draft.text, draft.call
    wanted = [a.arg for a in function.args.args]
    wanted = wanted[1:] if wanted[:1] in (["self"], ["cls"]) else wanted
    least = len(wanted) - len(function.args.defaults)
    given, count = argument(call, "args", 1), argument(call, "nprocs", 2)
    if given is None:
        missing = wanted[1:least]
        fits = len(missing) == 1 and re.search(r"world|size|nproc|^n$|ranks", missing[0])
        if not fits or count is None:
            raise NoEdit
        append_argument(text, call, f"args=({text.source.code(count)},)")
        return
    if not isinstance(given, ast.Tuple):
        raise NoEdit
    codes = [text.source.code(e) for e in given.elts]
    kept = [c for c in codes if c.rpartition(".")[2] in wanted[1:]]
    by_hand = codes[:1] in (["0"], ["rank"]) and len(codes) == len(wanted) == least
    if by_hand and wanted[0] in ("rank", "local_rank", "gpu"):
        kept = codes[1:]  # what mp.spawn gives by itself
    elif len(codes) <= len(wanted) - 1 or len(kept) != len(wanted) - 1:
        raise NoEdit
    text.replace(text.place(given), f"({', '.join(kept)}{',' if len(kept) == 1 else ''})")


def start_them(draft: Draft) -> None:
    """start() in front of the first join() of a process that was never started."""
    text = draft.text
    for node in ast.walk(text.source.tree or ast.Pass()):
        if not isinstance(node, ast.Call) or getattr(node.func, "attr", "") != "join":
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if not isinstance(owner, ast.Name) or node.args:
            continue
        loop = next(
            (
                n
                for n in ast.walk(text.source.tree or ast.Pass())
                if isinstance(n, ast.For) and node in ast.walk(n)
                and isinstance(n.target, ast.Name) and n.target.id == owner.id
            ),
            None,
        )  # fmt: skip
        first = loop.lineno if loop is not None else node.lineno
        indent = text.indentation(first)
        if loop is not None:
            head = f"{indent}for {owner.id} in {text.source.code(loop.iter)}:"
            text.insert(first, head, f"{indent}    {owner.id}.start()")
        else:
            text.insert(first, f"{indent}{owner.id}.start()")
        return
    raise NoEdit


def lock(draft: Draft) -> None:
    data = draft.data
    if data.get("tensor"):
        if data.get("method") != "fork":
            raise NoEdit  # a spawned worker makes the module, and the tensor, anew
        text = draft.file(data["made_file"])
        end = data["made_span"][2:]
        text.replace([*end, *end], ".share_memory_()")
        return
    text = draft.file(data["made_file"])
    if data.get("method") != "fork" and "args" not in data:
        raise NoEdit
    call = text.node_at(data["made_span"], ast.Call)
    if not isinstance(call, ast.Call):
        raise NoEdit
    name = str(data["lock"]).rpartition(".")[2]
    text.replace(text.place(call.func), f"{imported_as(text, 'multiprocessing')}.{name}")


def not_fork(draft: Draft) -> None:
    text, place = draft.text, draft.data.get("value_span")
    if draft.data.get("loader"):
        raise NoEdit
    if place is not None and text.get(place).strip("'\"") == "fork":
        text.replace(place, '"spawn"')
        return
    for node in text.source.tree.body if text.source.tree is not None else []:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            first = node.body[0]
            name, indent = imported_as(text, "multiprocessing"), text.indentation(first.lineno)
            text.insert(first.lineno, f'{indent}{name}.set_start_method("spawn")')
            return
    raise NoEdit


def method_once(draft: Draft) -> None:
    call = draft.call
    if argument(call, "force", 1) is not None:
        raise NoEdit
    append_argument(draft.text, call, "force=True")


def no_daemon(draft: Draft) -> None:
    text = draft.file(draft.data["daemon_file"])
    call = text.node_at(draft.data["daemon_span"], ast.Call)
    flag = argument(call, "daemon") if isinstance(call, ast.Call) else None
    if flag is not None:
        text.replace(text.place(flag), "False")
        return
    for node in ast.walk(text.source.tree or ast.Pass()):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Attribute)
            and node.targets[0].attr == "daemon"
        ):
            text.replace(text.place(node.value), "False")
            return
    raise NoEdit


def join_context(draft: Draft) -> None:
    draft.text.replace(draft.data["value_span"], "True")


CURES = {
    "add-main-guard": Cure(
        "start the processes only where the file is the script itself",
        ('put what starts processes under: if __name__ == "__main__":',),
        main_guard,
        ("missing-main-guard",),
    ),
    "spawn-target-rank": Cure(
        "a worker that takes what it is given",
        (
            "mp.spawn calls worker(index, *args): its first parameter is the index, and args is a "
            "tuple",
        ),
        spawn_target,
        ("spawn-target-invalid",),
    ),
    "lock-from-context": Cure(
        "a lock that holds between processes",
        ("make the Lock with multiprocessing, in the parent, and hand it to the workers in args",),
        lock,
        ("lock-not-shared",),
    ),
    "spawn-not-fork": Cure(
        "start the workers with spawn",
        (
            'use get_context("spawn"), or set_start_method("spawn") '
            "first of all under the __main__ guard",
        ),
        not_fork,
        ("fork-after-cuda", "fork-with-threads"),
    ),
    "set-start-method-once": Cure(
        "set the start method once, or with force",
        ("set_start_method(..., force=True)",),
        method_once,
        ("start-method-already-set",),
    ),
    "no-daemon": Cure(
        "a parent that may have children",
        ("start the outer process with daemon=False",),
        no_daemon,
        ("daemonic-parent",),
    ),
    "join-the-context": Cure(
        "wait for the workers",
        ("join=True, or keep the context and join it",),
        join_context,
        ("context-dropped",),
    ),
    "start-the-process": Cure(
        "start every process that is made",
        ("call start() on each process, and join() afterwards",),
        start_them,
        ("rank-never-started",),
    ),
}
