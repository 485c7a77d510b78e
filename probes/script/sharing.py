"""Whether a script hands data between processes: that fills /dev/shm, a descriptor a tensor."""

from __future__ import annotations

import os
import re

from ddp_assist.probes.model import Target
from ddp_assist.probes.script.facts import read_facts, script_of
from ddp_assist.probes.script.read import ScriptError

_HANDS_OVER = re.compile(
    r"(?<!persistent)_workers\b(?!\s*=\s*0\b)|share_memory|shared_memory|Queue\b|\bPipe\(|Manager\(|\bPool|nccl"
)
WORKERS = 5
"""The place of num_workers among a DataLoader's arguments."""


def may_share(target: Target) -> bool:
    """True where nobody can tell; a script that was read through and only uses gloo may not.

    Without a name for its backend torch takes NCCL, which fills /dev/shm too, where GPUs are.
    """
    script = script_of(target)
    if script is None or os.path.exists("/proc/driver/nvidia"):
        return True
    try:
        facts = read_facts(target, script)
    except (ScriptError, RecursionError):
        return True
    if facts.frameworks or facts.project.refused or facts.source.problem is not None:
        return True
    loaders = facts.calls("torch.utils.data.DataLoader")
    if any(len(call.args) > WORKERS and call.args[WORKERS].const != 0 for call in loaders):
        return True
    return any(_HANDS_OVER.search(source.text) for source in facts.project.read())
