"""Cures of devices and backends, and of parameters that DDP waits for."""

from __future__ import annotations

import ast

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit
from ddp_assist.app.fixes.script_text import Text, append_argument, argument
from ddp_assist.probes.script.facts import SETTERS

_VARIABLE = dict.fromkeys(SETTERS, "LOCAL_RANK") | {
    "srun": "SLURM_LOCALID",
    "mpirun": "OMPI_COMM_WORLD_LOCAL_RANK",
}
"""What tells a process its rank on the node, by what started it."""


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
    name = _VARIABLE.get(plan.launcher) if plan is not None else None
    if name is None:
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
                    chosen = f'torch.cuda.set_device(int(os.environ["{name}"]))'
                    text.insert((statement.end_lineno or 0) + 1, indent + chosen)
                    return
        raise NoEdit
    for one in sorted({tuple(p) for p in draft.data.get("spans") or [place]}):
        _local(text, list(one), name)


def _local(text: Text, place: list[int], name: str) -> None:
    """A GPU named by the rank, named by the rank on the node."""
    code = text.get(place)
    if code.strip("'\"").startswith("cuda"):
        text.replace(place, f"f\"cuda:{{os.environ['{name}']}}\"")
    else:
        text.replace(place, f'int(os.environ["{name}"])')


def location(draft: Draft) -> None:
    append_argument(draft.text, draft.call, 'map_location="cpu"')


CURES = {
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
