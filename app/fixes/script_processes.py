"""Cures of how processes are started."""

from __future__ import annotations

import ast
import re
import symtable

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_meeting import append_argument, argument
from ddp_assist.app.fixes.script_text import Text, _inside_strings


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
        name = text.source.code(inner.func)
        if text.source.code(call.func).endswith("spawn"):
            raise NoEdit
        args = ", ".join(text.source.code(a) for a in inner.args)
        text.replace(draft.data["value_span"], name)
        append_argument(text, call, f"args=({args}{',' if len(inner.args) == 1 else ''})")
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
    if len(codes) <= len(wanted) - 1 or len(kept) != len(wanted) - 1:
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


def to_module(draft: Draft) -> None:
    """A local function becomes one of the module; what it took from around it becomes arguments."""
    data, text = draft.data, draft.text
    if data.get("kind") != "function" or data["function_file"] != data["file"]:
        raise NoEdit
    if text.get(data["value_span"]) != data["name"]:
        raise NoEdit  # it is the answer of another function, which would go on making it
    function = text.node_at(data["function_span"], ast.FunctionDef)
    body = text.source.tree.body if text.source.tree is not None else []
    outer = next(
        (
            s
            for s in body
            if isinstance(s, ast.FunctionDef)
            and s.lineno < data["function_span"][0] <= (s.end_lineno or 0)
        ),
        None,
    )
    if (
        not isinstance(function, ast.FunctionDef)
        or outer is None
        or function.decorator_list
        or function not in outer.body
    ):
        raise NoEdit
    if (
        function.args.vararg
        or function.args.kwarg
        or function.args.defaults
        or function.args.kwonlyargs
    ):
        raise NoEdit
    free = _free(text, function)
    if any(
        function.name == n.id
        for n in ast.walk(outer)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ):
        raise NoEdit
    inside = _inside_strings(text.source)
    cut = len(text.indentation(function.lineno))
    lines = [
        line
        if number in inside
        else line[cut:]
        if line[:cut].isspace() or not line.strip()
        else line
        for number, line in enumerate(
            text.source.lines[function.lineno - 1 : function.end_lineno], function.lineno
        )
    ]
    if free:
        parameters = [a.arg for a in function.args.args] + free
        lines[0] = re.sub(
            r"\(.*\)(\s*(->.*)?:)", f"({', '.join(parameters)})\\1", lines[0], count=1
        )
        if ", ".join(parameters) not in lines[0]:
            raise NoEdit
    last = function.end_lineno or function.lineno
    while not text.source.line(last + 1).strip() and last < (outer.end_lineno or 0):
        last += 1
    text.delete_lines(function.lineno, last)
    text.insert(outer.lineno, *lines, "", "")
    call = draft.call
    if not free:
        return
    spawned = getattr(call.func, "attr", getattr(call.func, "id", "")) in (
        "spawn",
        "start_processes",
    )
    given = argument(call, "args", 1 if spawned else 3)
    if given is None:
        node = text.node_at(data["value_span"], ast.AST)
        end = data["value_span"][2:] if node is not None else None
        if end is None:
            raise NoEdit
        text.replace([*end, *end], f", args=({', '.join(free)}{',' if len(free) == 1 else ''})")
    elif isinstance(given, ast.Tuple):
        parts = [text.source.code(e) for e in given.elts] + free
        text.replace(text.place(given), f"({', '.join(parts)}{',' if len(parts) == 1 else ''})")
    else:
        raise NoEdit


def _free(text: Text, function: ast.FunctionDef) -> list[str]:
    """Names the function takes from the function around it."""
    table = symtable.symtable(text.source.text, "script", "exec")
    stack = [table]
    while stack:
        scope = stack.pop()
        if (
            isinstance(scope, symtable.Function)
            and scope.get_name() == function.name
            and scope.get_lineno() == function.lineno
        ):
            return sorted(scope.get_frees())
        stack += scope.get_children()
    raise NoEdit


def lock(draft: Draft) -> None:
    data = draft.data
    if data.get("tensor"):
        raise NoEdit
    text = draft.file(data["made_file"])
    if data.get("method") != "fork" and "args" not in data:
        raise NoEdit
    call = text.node_at(data["made_span"], ast.Call)
    if not isinstance(call, ast.Call):
        raise NoEdit
    name = str(data["lock"]).rpartition(".")[2]
    text.replace(text.place(call.func), f"{_module(text)}.{name}")


def _module(text: Text) -> str:
    """The name under which the file knows multiprocessing."""
    for node in ast.walk(text.source.tree or ast.Pass()):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ("multiprocessing", "torch.multiprocessing"):
                    return alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom) and node.module == "torch":
            for alias in node.names:
                if alias.name == "multiprocessing":
                    return alias.asname or alias.name
    text.add_import("import multiprocessing")
    return "multiprocessing"


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
            text.insert(
                first.lineno,
                f'{text.indentation(first.lineno)}{_module(text)}.set_start_method("spawn")',
            )
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
    "move-function-to-module": Cure(
        "a worker at the level of a module, where a new process can find it",
        ("define the function at the top of a .py file and hand it what it needs in args",),
        to_module,
        ("unpicklable-object", "notebook-main"),
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
