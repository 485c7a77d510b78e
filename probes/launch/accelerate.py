"""What an accelerate does that only its version tells."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ddp_assist.probes.launch.plan import LaunchPlan

_WORDS = "standalone-like mode"
"""In the warning with which a newer accelerate leaves a port that another process has."""


def steps_aside(plan: LaunchPlan | None, user: Mapping[str, str]) -> bool:
    """Whether this launch meets elsewhere by itself, where its port is taken on its one host."""
    if plan is None or plan.launcher != "accelerate" or (plan.nnodes and plan.nnodes[1] > 1):
        return False
    word = plan.python or "accelerate"
    program = shutil.which(word, path=plan.environment(user).get("PATH", os.defpath))
    if program is None:
        return False
    for source in Path(program).parent.parent.glob(
        "lib/python3*/site-packages/accelerate/utils/launch.py"
    ):
        try:
            return _WORDS in source.read_text("utf-8", errors="replace")
        except OSError:
            return False
    return False
