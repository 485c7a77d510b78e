"""The launch that a log quotes: a prompt, a shell trace, a batch script above its output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ddp_assist.probes.launch.plan import Launch, LaunchError
from ddp_assist.probes.launch.read import read_launch

_PROMPT = re.compile(
    r"\s*(?:\([\w.-]+\) )?(?:\[?[\w.-]+(?:@[\w.-]+[: ][^$#]{0,80})?)?(?:[$#%❯]|\+{1,3}|>) +(?=\S)"
)
_STARTS = re.compile(
    r"(?:(?:export +)?[A-Z][A-Z0-9_]*=\S* +)*(?:nohup +|exec +|time +|sudo +|uv run +)*"
    r"(?:torchrun|accelerate +launch|deepspeed|colossalai +run|horovodrun|srun|mpirun|mpiexec|"
    r"(?:\S*/)?python[\d.]* +(?:-[uOWB]\S* +)*(?:-m +[\w.]+|[\w./-]+\.py)\b)(?: |$)"
)
_SETS = re.compile(r"(?:export +[A-Z][A-Z0-9_]*=|#SBATCH +-)")
_MOST = 40
# The log's own host and folder are not known: nothing here may be looked at for it.
NOWHERE = Path("/nonexistent")


def launches(lines: Iterable[str]) -> Iterator[Launch]:
    """Each launch the lines quote, with what the lines just above it export."""
    for text in _commands(lines):
        try:
            launch = read_launch(text, {}, NOWHERE)
        except (LaunchError, RecursionError):
            continue
        if launch.plans:
            yield launch


def _commands(lines: Iterable[str]) -> Iterator[str]:
    above: list[str] = []
    going_on = False
    for line in lines:
        said = line[prompt.end() :] if (prompt := _PROMPT.match(line)) else line.strip()
        if going_on or _STARTS.match(said) or _SETS.match(said):
            ends = not said.endswith("\\")
            above.append(said)
            if ends and any(_STARTS.match(each) for each in above):
                yield "\n".join(above[-_MOST:])
                above = []
            going_on = not ends
        elif said:
            above, going_on = [], False
