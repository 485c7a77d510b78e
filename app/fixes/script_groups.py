"""Cures of init_process_group: where it is called, with which rank and how many of them."""

from __future__ import annotations

import ast
import re

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import Text, append_argument, argument, prefix, stored_in
from ddp_assist.probes.script.facts import SETTERS

DEFAULT = {"MASTER_ADDR": '"127.0.0.1"', "MASTER_PORT": '"29500"'}


def master_env(draft: Draft) -> None:
    names = draft.data["names"]
    if not draft.data["child"]:
        raise NoEdit
    text = draft.text
    statement = text.statement_at(draft.data["statement"])
    if statement is None:
        raise NoEdit
    call = draft.call
    if {"RANK", "WORLD_SIZE"} & set(names):
        _rank_of_worker(draft, call, names)
    text.add_import("import os")
    indent = text.indentation(statement.lineno)
    text.insert(
        statement.lineno,
        *(
            f'{indent}os.environ.setdefault("{n}", {DEFAULT[n]})'
            for n in ("MASTER_ADDR", "MASTER_PORT")
            if n in names
        ),
    )


def _rank_of_worker(draft: Draft, call: ast.Call, names: list[str]) -> None:
    """rank= and world_size= from the worker's own parameters."""
    text = draft.text
    worker = next(
        (
            n
            for n in ast.walk(text.source.tree or call)
            if isinstance(n, ast.FunctionDef) and n.lineno <= call.lineno <= (n.end_lineno or 0)
        ),
        None,
    )
    parameters = [a.arg for a in worker.args.args] if worker is not None else []
    size = next((p for p in parameters[1:] if re.search(r"world|size|nproc|^n$", p)), None)
    if size is None and worker is not None:
        size = _count_given(text, worker.name)
    if not parameters or ("WORLD_SIZE" in names and size is None):
        raise NoEdit
    extra = ([f"rank={parameters[0]}"] if "RANK" in names else []) + (
        [f"world_size={size}"] if "WORLD_SIZE" in names else []
    )
    append_argument(text, call, ", ".join(extra))


def _count_given(text: Text, worker: str) -> str | None:
    """nprocs of the spawn that starts a worker, where it is a number or one of the module."""
    tree = text.source.tree or ast.Module([], [])
    plain = stored_in(*(s for s in tree.body if not isinstance(s, ast.If)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.args[0]) == worker:
            count = argument(node, "nprocs", 2)
            if isinstance(count, ast.Constant) or (
                isinstance(count, ast.Name) and count.id in plain
            ):
                return text.source.code(count)
    return None


_GLOBAL = {
    "OMPI_COMM_WORLD_LOCAL_RANK": "OMPI_COMM_WORLD_RANK",
    "SLURM_LOCALID": "SLURM_PROCID",
    "LOCAL_RANK": "RANK",
}
"""The variable of the rank in the whole job, by that of the rank on its node."""


def global_rank(draft: Draft) -> None:
    text, place = draft.text, draft.data["value_span"]
    code = text.get(place)
    plan = draft.situation.target.plan
    launcher = plan.launcher if plan is not None else ""
    name = next((n for n in _GLOBAL if n in code), "")
    if name:
        text.replace(place, code.replace(name, _GLOBAL[name]))
    else:
        right = {"srun": "SLURM_PROCID", "mpirun": "OMPI_COMM_WORLD_RANK"}.get(launcher, "RANK")
        text.add_import("import os")
        text.replace(place, f'int(os.environ["{right}"])')


def once(draft: Draft) -> None:
    text, call = draft.text, draft.call
    statement = text.statement_at(call.lineno)
    if not isinstance(statement, ast.Expr) or statement.value is not call:
        raise NoEdit
    indent = text.indentation(statement.lineno)
    start = prefix(text, call)
    text.indent(statement.lineno, statement.end_lineno or statement.lineno)
    text.insert_first(statement.lineno, f"{indent}if not {start}is_initialized():")


def _for_all_ranks(draft: Draft) -> None:
    """`if rank == 0: init_process_group()` without the condition."""
    text, place = draft.text, draft.data["alone"]
    branch = text.node_at(place, ast.If)
    if not isinstance(branch, ast.If) or branch.orelse or len(branch.body) != 1:
        raise NoEdit
    if branch.body[0].lineno == branch.lineno:
        raise NoEdit
    text.delete_lines(branch.lineno, branch.body[0].lineno - 1)
    text.dedent(branch.body[0].lineno, branch.end_lineno or branch.lineno, place[1])


def _setup_of_a_file(draft: Draft) -> None:
    """A setup function of another file, imported and called where the script begins to work."""
    text, line = draft.file(draft.data["begins_file"]), draft.data["begins"]
    statement = text.statement_at(line)
    if draft.data["takes"] or statement is None:
        raise NoEdit
    text.add_import(f"from {draft.data['setup_module']} import {draft.data['setup']}", anyway=True)
    call = f"{draft.data['setup']}()"
    text.insert(statement.lineno, text.indentation(statement.lineno) + call)


def _call_setup(draft: Draft) -> None:
    """The script's own setup function, called at the start of the worker with its own names."""
    if draft.data.get("setup_module"):
        _setup_of_a_file(draft)
        return
    text, line = draft.text, draft.place[0]
    body = text.source.tree.body if text.source.tree is not None else []
    worker = next(
        (
            s
            for s in body
            if isinstance(s, ast.FunctionDef) and s.lineno < line <= (s.end_lineno or 0)
        ),
        None,
    )
    names = [a.arg for a in worker.args.args] if worker is not None else []
    takes = draft.data["takes"]
    if worker is None or not set(takes) <= set(names):
        raise NoEdit
    first = worker.body[0]
    call = f"{draft.data['setup']}({', '.join(takes)})"
    text.insert(first.lineno, text.indentation(first.lineno) + call)


def _destroy_last(draft: Draft) -> None:
    """destroy_process_group behind the last collective of the same block."""
    text, line = draft.text, draft.place[0]
    for node in ast.walk(text.source.tree or ast.Pass()):
        block = getattr(node, "body", None)
        for statement in block if isinstance(block, list) else ():
            ends = isinstance(statement, ast.Expr) and "destroy_process_group" in ast.unparse(
                statement
            )
            later = [s for s in block if s.lineno > statement.lineno] if block else []
            last = next((s for s in later if s.lineno <= line <= (s.end_lineno or 0)), None)
            if ends and isinstance(last, ast.Expr | ast.Assign):
                rows = text.source.lines[statement.lineno - 1 : statement.end_lineno]
                text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
                text.insert((last.end_lineno or last.lineno) + 1, *rows)
                return
    raise NoEdit


def make_group(draft: Draft) -> None:
    plan = draft.situation.target.plan
    text = draft.text
    if draft.data.get("setup"):
        _call_setup(draft)
        return
    if draft.data.get("late"):
        _destroy_last(draft)
        return
    if plan is not None and plan.launcher in SETTERS and draft.data.get("alone"):
        _for_all_ranks(draft)
        return
    if plan is None or plan.launcher not in SETTERS or "init_process_group" in text.source.text:
        raise NoEdit  # it is there, and not reached by all: where it belongs is not ours to guess
    statement = text.statement_at(draft.place[0])
    if statement is None:
        raise NoEdit
    backend = "nccl" if "cuda" in text.source.text else "gloo"
    start = (
        "dist."
        if re.search(
            r"(?m)^import torch\.distributed as dist|^from torch import .*distributed as dist",
            text.source.text,
        )
        else ""
    )
    if not start:
        text.add_import("import torch.distributed as dist")
        start = "dist."
    text.insert(
        statement.lineno,
        f'{text.indentation(statement.lineno)}{start}init_process_group("{backend}")',
    )


def world(draft: Draft) -> None:
    if draft.data.get("loop"):
        _from_zero(draft)
        return
    place, told = draft.data.get("started_span"), draft.data.get("value_span")
    plan = draft.situation.target.plan
    if plan is not None and plan.launcher in SETTERS and told is not None:
        draft.text.add_import("import os")
        draft.text.replace(told, 'int(os.environ["WORLD_SIZE"])')
    elif place is not None:
        draft.text.replace(place, str(draft.data["world_size"]))
    elif told is not None:
        draft.text.replace(told, str(draft.data["started"]))
    else:
        raise NoEdit


def _from_zero(draft: Draft) -> None:
    """range(1, n) of the loop that starts the ranks becomes range(n)."""
    text, data = draft.file(draft.data["loop_file"]), draft.data
    loop = text.node_at(data["loop"], (ast.For, ast.ListComp, ast.GeneratorExp))
    for node in ast.walk(loop or ast.Pass()):
        if (
            isinstance(node, ast.Call)
            and text.source.code(node.func) == "range"
            and len(node.args) == 2
            and text.source.code(node.args[0]) == "1"
        ):
            end, count = node.args[1], text.source.code(node.args[1])
            if draft.data["started"] == draft.data["world_size"]:
                one_more = isinstance(end, ast.BinOp) and text.source.code(end.right) == "1"
                if (
                    not isinstance(end, ast.BinOp)
                    or not isinstance(end.op, ast.Add)
                    or not one_more
                ):
                    raise NoEdit
                count = text.source.code(end.left)
            text.replace(text.place(node), f"range({count})")
            return
    raise NoEdit


CURES = {
    "master-env-before-init": Cure(
        "say where the workers meet before init_process_group",
        (
            'before init_process_group: os.environ.setdefault("MASTER_ADDR", "127.0.0.1") and the '
            "same for MASTER_PORT",
        ),
        master_env,
        ("missing-env",),
        "a port that another process holds is not looked for here",
    ),
    "rank-from-env": Cure(
        "the global RANK as the rank",
        ('rank=int(os.environ["RANK"]); LOCAL_RANK only chooses the GPU',),
        global_rank,
        ("local-rank-as-rank",),
    ),
    "init-once": Cure(
        "init_process_group only where there is no group yet",
        ("put `if not dist.is_initialized():` in front of the second call, or remove it",),
        once,
        ("process-group-twice",),
    ),
    "init-the-group": Cure(
        "make the process group before it is used",
        ("call dist.init_process_group(...) in this process, before the first collective",),
        make_group,
        ("process-group-missing",),
    ),
    "world-size-of-started": Cure(
        "as many processes as the world is told to have",
        (
            "world_size and the number of processes that are started must be the same number; "
            "ranks "
            "count from 0",
        ),
        world,
        ("world-size-mismatch", "rank-never-started"),
    ),
}
