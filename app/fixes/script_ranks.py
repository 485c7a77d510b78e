"""Cures of what differs between ranks, and of devices."""

from __future__ import annotations

import ast
import re

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_meeting import append_argument, argument
from ddp_assist.app.fixes.script_text import Text
from ddp_assist.probes.script.facts import SETTERS

_LOCAL = 'int(os.environ["LOCAL_RANK"])'


def for_all(draft: Draft) -> None:
    """Take the collective out of the branch on the rank, with what it needs."""
    text, place = draft.text, draft.data.get("branch")
    if place is None or not _holds(text, place, draft.place):
        _before_the_guard(draft)
        return
    branch = text.node_at(place, ast.If)
    if not isinstance(branch, ast.If) or branch.orelse or not _on_rank(branch.test):
        raise NoEdit
    line = draft.place[0]
    index = next(
        (i for i, s in enumerate(branch.body) if s.lineno <= line <= (s.end_lineno or 0)), None
    )
    if index is None or not isinstance(branch.body[index], ast.Expr | ast.Assign):
        raise NoEdit
    inside = branch.body[index]
    outer = text.indentation(branch.lineno)
    if draft.data["collective"] == "barrier" and index == len(branch.body) - 1 and index > 0:
        text.delete_lines(inside.lineno, inside.end_lineno or inside.lineno)
        text.insert((branch.end_lineno or 0) + 1, outer + text.source.code(inside))
        return
    moved = _needed(branch.body[: index + 1])
    at_root = _list_at_root(text, draft, text.source.code(branch.test))
    for statement in moved:
        rows = _dedented(text, statement, outer)
        if at_root and statement is inside:
            rows = "\n".join(rows).replace(*at_root, 1).split("\n")
        text.insert(branch.lineno, *rows)
        text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
    if len(moved) == len(branch.body):
        text.delete_lines(branch.lineno, branch.body[0].lineno - 1)


def _holds(text: Text, place: list[int], line: list[int]) -> bool:
    branch = text.node_at(place, ast.If)
    return isinstance(branch, ast.If) and _on_rank(branch.test)


def _before_the_guard(draft: Draft) -> None:
    """`if rank != 0: return` goes behind the collective, with what the collective needs."""
    text, line = draft.text, draft.place[0]
    for node in ast.walk(text.source.tree or ast.Pass()):
        block = getattr(node, "body", None)
        if not isinstance(block, list):
            continue
        for index, guard in enumerate(block):
            leaves = isinstance(guard, ast.If) and not guard.orelse and _on_rank(guard.test)
            if not leaves or not isinstance(guard.body[-1], ast.Return | ast.Continue):
                continue
            rest = block[index + 1 :]
            at = next(
                (i for i, s in enumerate(rest) if s.lineno <= line <= (s.end_lineno or 0)), None
            )
            if at is None or not isinstance(rest[at], ast.Expr | ast.Assign):
                continue
            outer = text.indentation(guard.lineno)
            for statement in _needed(rest[: at + 1]):
                text.insert(guard.lineno, *_dedented(text, statement, outer))
                text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
            return
    raise NoEdit


def _list_at_root(text: Text, draft: Draft, test: str) -> tuple[str, str] | None:
    """The list that only the root may give to gather and scatter, before and after."""
    place = {"gather": 1, "gather_object": 1, "scatter": 1, "scatter_object_list": 1}
    if draft.data["collective"] not in place:
        return None
    given = argument(draft.call, "", place[draft.data["collective"]])
    for name in ("gather_list", "object_gather_list", "scatter_list", "scatter_object_input_list"):
        given = argument(draft.call, name) or given
    if given is None or isinstance(given, ast.IfExp):
        return None
    code = text.source.code(given)
    if text.source.code(draft.call).count(code) != 1:
        raise NoEdit
    return code, f"{code} if {test} else None"


def _on_rank(test: ast.expr) -> bool:
    return bool(re.search(r"rank|main|master|zero", ast.unparse(test), re.I)) and not isinstance(
        test, ast.BoolOp
    )


def _needed(body: list[ast.stmt]) -> list[ast.stmt]:
    """The last statement, and those before it that make what it uses."""
    needed = [body[-1]]
    names = {n.id for n in ast.walk(body[-1]) if isinstance(n, ast.Name)}
    for statement in reversed(body[:-1]):
        makes = {
            n.id
            for n in ast.walk(statement)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        if makes & names:
            if not isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
                raise NoEdit
            needed.insert(0, statement)
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    return needed


def _dedented(text: Text, statement: ast.stmt, outer: str) -> list[str]:
    own = len(text.indentation(statement.lineno))
    rows = text.source.lines[statement.lineno - 1 : statement.end_lineno]
    return [outer + row[own:] if row[:own].isspace() else row for row in rows]


def under_join(draft: Draft) -> None:
    """The loop of a DDP model under Join, in which a rank that is done shadows the others."""
    text, model = draft.text, draft.data.get("model")
    loop = text.statement_at(draft.place[0])
    if not model or not isinstance(loop, ast.For | ast.While) or loop.lineno != draft.place[0]:
        raise NoEdit
    indent = text.indentation(loop.lineno)
    text.add_import("from torch.distributed.algorithms.join import Join")
    text.insert(loop.lineno, f"{indent}with Join([{model}]):")
    text.indent(loop.lineno, loop.end_lineno or loop.lineno)


def without_rank(draft: Draft) -> None:
    """The size as it is without the rank that was mixed into it."""
    data = draft.data
    if not data.get("mix"):
        _from_rank_zero(draft)
        return
    draft.file(data["mix_file"]).replace(data["mix"], data["keep"])


def _from_rank_zero(draft: Draft) -> None:
    """The sizes that rank 0 has told to all, right before the layer that is made of them."""
    text, names = draft.text, list(draft.data.get("names") or ())
    call = draft.call
    statement = text.statement_at(call.lineno)
    if not names or statement is None or "nccl" in text.source.text:
        raise NoEdit
    scope: ast.AST = text.source.tree or ast.Pass()
    for node in ast.walk(scope):
        if isinstance(node, ast.FunctionDef) and call in ast.walk(node):
            scope = node
    bound = {n.id for n in ast.walk(scope) if isinstance(n, ast.Name) and not _is_read(n)}
    if not set(names) <= bound:
        raise NoEdit
    indent, listed = text.indentation(statement.lineno), ", ".join(names)
    text.add_import("import torch")
    text.add_import("import torch.distributed as dist")
    text.insert(
        statement.lineno,
        f"{indent}sizes = torch.tensor([{listed}])",
        f"{indent}dist.broadcast(sizes, src=0)",
        f"{indent}[{listed}] = sizes.tolist()",
    )


def _is_read(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


def unused(draft: Draft) -> None:
    append_argument(draft.text, draft.call, "find_unused_parameters=True")


def on_device(draft: Draft) -> None:
    text = draft.file(draft.data["made_file"])
    call = text.node_at(draft.data["made_span"], ast.Call)
    if not isinstance(call, ast.Call):
        raise NoEdit
    append_argument(text, call, 'device="cuda"')


def gloo(draft: Draft) -> None:
    """gloo where there is no NCCL, and the CPU where there is no GPU."""
    text = draft.text
    text.replace(draft.data["value_span"], '"nccl" if torch.cuda.is_available() else "gloo"')
    if "import torch\n" not in text.source.text.replace("\r\n", "\n"):
        text.add_import("import torch")
    for node in ast.walk(text.source.tree or ast.Pass()):
        if not isinstance(node, ast.Call):
            continue
        code, func = text.source.code(node), text.source.code(node.func)
        if (
            func.endswith("torch.device")
            and node.args
            and "cuda" in text.source.code(node.args[0])
            and "is_available" not in code
        ):
            text.replace(
                text.place(node), f'({code} if torch.cuda.is_available() else torch.device("cpu"))'
            )
        elif func.endswith("cuda.set_device"):
            statement = text.statement_at(node.lineno)
            if not isinstance(statement, ast.Expr):
                raise NoEdit
            text.replace(
                text.place(statement),
                f"if torch.cuda.is_available():{text.newline}{text.indentation(node.lineno)}    "
                f"{code}",
            )
        elif func.endswith(".cuda") and func != "torch.cuda":
            if node.args or node.keywords or not isinstance(node.func, ast.Attribute):
                raise NoEdit
            text.replace(
                text.place(node),
                f'{text.source.code(node.func.value)}.to("cuda" if torch.cuda.is_available() '
                'else "cpu")',
            )
        else:
            ids = argument(node, "device_ids")
            if ids is not None:
                text.replace(
                    text.place(ids),
                    f"{text.source.code(ids)} if torch.cuda.is_available() else None",
                )


def by_local_rank(draft: Draft) -> None:
    plan = draft.situation.target.plan
    if plan is None or plan.launcher not in SETTERS:
        raise NoEdit
    text, place = draft.text, draft.data.get("value_span")
    text.add_import("import os")
    if place is None:
        for node in ast.walk(text.source.tree or ast.Pass()):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") == "init_process_group"
            ):
                statement = text.statement_at(node.lineno)
                if statement is not None:
                    indent = text.indentation(statement.lineno)
                    text.insert(
                        (statement.end_lineno or 0) + 1, f"{indent}torch.cuda.set_device({_LOCAL})"
                    )
                    return
        raise NoEdit
    code = text.get(place)
    if code.strip("'\"").startswith("cuda"):
        text.replace(place, "f\"cuda:{os.environ['LOCAL_RANK']}\"")
    else:
        text.replace(place, _LOCAL)


def location(draft: Draft) -> None:
    append_argument(draft.text, draft.call, 'map_location="cpu"')


CURES = {
    "collective-for-all": Cure(
        "every rank enters the collective",
        (
            "take the collective out of the branch on the rank; "
            "only what follows from it stays there",
        ),
        for_all,
        ("collective-skipped", "collective-order"),
    ),
    "join-uneven-inputs": Cure(
        "ranks that run out early shadow the others",
        (
            "wrap the loop: with torch.distributed.algorithms.join.Join([model]): for ...",
            "or give each rank the same number of batches (DistributedSampler, drop_last)",
        ),
        under_join,
        ("uneven-inputs",),
    ),
    "find-unused-parameters": Cure(
        "DDP looks for parameters without a gradient",
        (
            "DistributedDataParallel(..., "
            "find_unused_parameters=True), or remove "
            "the layer that is not used",
        ),
        unused,
        ("unused-parameters",),
        "it costs time in every step; removing the layer does not",
    ),
    "same-shape-for-all": Cure(
        "the same shapes in every rank",
        ("make sizes from what all ranks share: compute them in rank 0 and broadcast them",),
        without_rank,
        ("shape-mismatch",),
    ),
    "tensor-to-device": Cure(
        "a tensor on the GPU",
        ("make the tensor on the rank's own GPU before it goes into the collective",),
        on_device,
        ("cpu-tensor-on-nccl",),
    ),
    "backend-gloo": Cure(
        "gloo where there is no NCCL",
        ('init_process_group("nccl" if torch.cuda.is_available() else "gloo")',),
        gloo,
        ("nccl-not-in-build",),
    ),
    "gpu-by-local-rank": Cure(
        "each rank on the GPU of its LOCAL_RANK",
        (
            'torch.cuda.set_device(int(os.environ["LOCAL_RANK"])) right after the '
            "start, and that device everywhere",
        ),
        by_local_rank,
        ("gpu-global-rank-index", "gpu-shared-by-ranks"),
    ),
    "map-location": Cure(
        "load on the CPU first",
        ('torch.load(..., map_location="cpu")',),
        location,
        ("gpu-map-location",),
    ),
}
