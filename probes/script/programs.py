"""Programs of the project that a script starts by their file: each is followed in its process."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ddp_assist.probes.script.value import Call, Value

if TYPE_CHECKING:
    from ddp_assist.probes.script.evaluate import Evaluator

_PYTHON = re.compile(r"(^|/)python[\d.]*$")
_LAUNCHERS = re.compile(r"(^|/)(torchrun|accelerate|deepspeed|srun|mpirun|mpiexec)$")


def follow_program(evaluate: Evaluator, call: Call) -> None:
    """Popen([sys.executable, "worker.py", ...], env=...): the file, as that process runs it."""
    words = call.get("args", 0)
    if words is None or not words.items:
        return
    texts = [w.text for w in words.items]
    python = words.items[0].kind == "sys.executable" or bool(_PYTHON.search(texts[0]))
    if not python or any(t == "-m" or _LAUNCHERS.search(t) for t in texts[1:3]):
        return
    file = next((t for t in texts[1:] if t.endswith(".py")), None)
    if file is None or "{}" in file:
        return
    source = evaluate.tracer.project.module(PurePosixPath(file).stem)
    if source is None or source.tree is None:
        return
    evaluate.tracer.program(call, source, _environment(call))


def _environment(call: Call) -> dict[str, Value]:
    """What env= puts on top of what the parent has."""
    given = call.get("env")
    table = given.table if given is not None else None
    return {str(k): v for k, v in (table or {}).items()}
