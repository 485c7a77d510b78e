"""Cures of who hosts a store, and of who shares a client of it."""

from __future__ import annotations

import ast

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import append_argument, argument, stored_in


def last_to_leave(draft: Draft) -> None:
    """Each rank says when it is done, and the host waits until all have."""
    text = draft.text
    made = draft.call
    worker = next(
        (
            n
            for n in reversed(list(ast.walk(text.source.tree or ast.Pass())))
            if isinstance(n, ast.FunctionDef) and made in set(ast.walk(n))
        ),
        None,
    )
    names = [
        n.targets[0].id
        for n in ast.walk(worker or ast.Pass())
        if isinstance(n, ast.Assign) and n.value is made and isinstance(n.targets[0], ast.Name)
    ]
    host, world = argument(made, "is_master", 3), argument(made, "world_size", 2)
    leaves = any(isinstance(n, ast.Return) for n in ast.walk(worker or ast.Pass()))
    if worker is None or len(names) != 1 or host is None or world is None or leaves:
        raise NoEdit
    indent, store = text.indentation(worker.body[0].lineno), names[0]
    test, count = text.source.code(host), text.source.code(world)
    test = test if isinstance(host, ast.Name) else f"({test})"
    text.add_import("import time")
    text.insert(
        (worker.end_lineno or worker.lineno) + 1,
        f'{indent}{store}.add("done", 1)',
        f'{indent}while {test} and {store}.add("done", 0) < {count}:',
        f"{indent}    time.sleep(0.1)  # the host leaves last",
    )


def one_host(draft: Draft) -> None:
    text, call = draft.text, draft.call
    place, rank = draft.data.get("value_span"), draft.data.get("rank")
    if draft.data.get("agent"):
        if place is None:
            raise NoEdit
        text.replace(place, "False")
        return
    if draft.data.get("made_span"):
        _hand_over(draft)
        return
    if draft.data.get("caller_rank"):
        _by_caller(draft)
        return
    if not rank:
        _host_in_parent(draft)
        return
    if draft.finding.outcome.startswith("store-not-hosted") or place is None:
        node = argument(call, "is_master", 3)
        if node is not None:
            text.replace(text.place(node), f"{rank} == 0")
        else:
            append_argument(text, call, f"is_master={rank} == 0")
    else:
        text.replace(place, f"{rank} == 0")


def _hand_over(draft: Draft) -> None:
    """init_process_group(store=...) of the store that is there already, by its name."""
    text = draft.text
    made = text.node_at(draft.data["made_span"], ast.Call)
    names = [
        n.targets[0].id
        for n in ast.walk(text.source.tree or ast.Pass())
        if isinstance(n, ast.Assign) and n.value is made and isinstance(n.targets[0], ast.Name)
    ]
    if len(names) != 1 or argument(draft.call, "init_method", 1) is not None:
        raise NoEdit
    append_argument(text, draft.call, f"store={names[0]}")


def _by_caller(draft: Draft) -> None:
    """The function that opens the store is told who hosts it, where it is called."""
    text, data = draft.text, draft.data
    call = text.node_at(data["caller"], ast.Call)
    if not isinstance(call, ast.Call):
        raise NoEdit
    chosen, given = f"{data['caller_rank']} == 0", argument(call, data["option"])
    if given is not None:
        text.replace(text.place(given), chosen)
    else:
        append_argument(text, call, f"{data['option']}={chosen}")


def _host_in_parent(draft: Draft) -> None:
    """A store in the process that starts the workers, where these do not know their rank."""
    text, data = draft.text, draft.data
    if not draft.finding.outcome.startswith("store-not-hosted") or not data.get("parent"):
        raise NoEdit
    statement = text.statement_at(data["parent"][0])
    if statement is None:
        raise NoEdit
    indent = text.indentation(statement.lineno)
    made = f"{data['maker']}({data['endpoint']}, is_master=True, wait_for_workers=False)"
    text.insert(statement.lineno, f"{indent}store_host = {made}")


def _client_in_worker(draft: Draft) -> None:
    """A worker that uses the module's store opens a client under the same name."""
    text, data = draft.text, draft.data
    made = text.node_at(data["made"], ast.Call)
    worker = text.node_at(data["worker"], ast.FunctionDef)
    tree = text.source.tree or ast.Module([], [])
    names = [
        s.targets[0].id
        for s in tree.body
        if isinstance(s, ast.Assign) and s.value is made and isinstance(s.targets[0], ast.Name)
    ]
    used = text.node_at(draft.place, ast.Call)
    if len(names) != 1 or not isinstance(worker, ast.FunctionDef) or not isinstance(made, ast.Call):
        raise NoEdit
    if used not in set(ast.walk(worker)) or names[0] in stored_in(*worker.body):
        raise NoEdit
    host, port = argument(made, "host_name", 0), argument(made, "port", 1)
    first = worker.body[0]
    if host is None or port is None or first.lineno == worker.lineno:
        raise NoEdit
    where = f"{text.source.code(host)}, {text.source.code(port)}"
    maker = text.source.code(made.func)
    text.insert(
        first.lineno,
        f"{text.indentation(first.lineno)}{names[0]} = {maker}({where}, is_master=False)",
    )


def own_client(draft: Draft) -> None:
    data = draft.data
    text = draft.text
    if data.get("made") and data.get("worker"):
        _client_in_worker(draft)
        return
    if (
        not data.get("parameter")
        or not data.get("item_span")
        or data.get("function_file") != data["file"]
        or not data.get("store_span")
    ):
        raise NoEdit
    made = text.node_at(data["store_span"], ast.Call)
    function = text.node_at(data["function_span"], ast.FunctionDef)
    item = text.get(data["item_span"])
    if (
        not isinstance(made, ast.Call)
        or not isinstance(function, ast.FunctionDef)
        or not item.isidentifier()
    ):
        raise NoEdit
    name = data["parameter"]
    parameter = next(a for a in function.args.args if a.arg == name)
    text.replace(data["item_span"], f"{item}.port")
    end = text.place(parameter)
    text.replace([end[0], end[1], end[0], end[1] + len(name)], f"{name}_port")
    first = function.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and len(function.body) > 1
    ):
        first = function.body[1]
    maker = text.source.code(made.func)
    text.insert(
        first.lineno,
        f"{text.indentation(first.lineno)}{name} = {maker}({data['host']}, {name}_port, "
        "is_master=False)",
    )
    if (
        argument(made, "world_size", 2) is not None
        and argument(made, "wait_for_workers", 5) is None
    ):
        append_argument(text, made, "wait_for_workers=False")


CURES = {
    "one-store-host": Cure(
        "exactly one rank hosts the store",
        ("is_master=True in one process, False in all others: is_master=(rank == 0)",),
        one_host,
        ("store-hosted-twice", "store-not-hosted"),
    ),
    "store-client-per-process": Cure(
        "each process opens its own client of the store",
        ("hand over host and port, and in the worker: dist.TCPStore(host, port, is_master=False)",),
        own_client,
        ("store-object-shared",),
    ),
    "host-leaves-last": Cure(
        "the host leaves last",
        ('let each rank store.add("done", 1) at its end, and the host wait until all have',),
        last_to_leave,
        ("store-left-early",),
    ),
}
