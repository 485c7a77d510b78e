"""Who announced itself: Lightning's ranks say their number and the size before they meet."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddp_assist.probes.logs.ranks import Line
from ddp_assist.probes.model import Finding

_ANNOUNCED = re.compile(r"GLOBAL_RANK: (\d{1,6}), MEMBER: \d{1,6}/(\d{1,6})")
# What rank 0 prints when all have met, and what only a job under way prints.
_MET = re.compile(r"processes registered|Starting (?:ddp )?with \d+ processes|Epoch \d+")
_SHOWN = 16
_MOST_RANKS = 65_536


def unannounced(lines: Sequence[Line]) -> Finding | None:
    """Ranks that never announced themselves, where rank 0 did and the job never got under way."""
    said = [m for line in lines if (m := _ANNOUNCED.search(line.text))]
    ranks = {int(match[1]) for match in said}
    sizes = {int(match[2]) for match in said}
    # One line alone is a quotation, and who announces itself twice is a mistake of its own.
    if len(said) < 2 or 0 not in ranks or len(sizes) != 1 or len(said) > len(ranks):
        return None
    if any(_MET.search(line.text) for line in lines):
        return None
    size = sizes.pop()
    missing = sorted(set(range(min(size, _MOST_RANKS))) - ranks)
    if not missing:
        return None
    shown = ", ".join(map(str, missing[:_SHOWN])) + (" ..." if len(missing) > _SHOWN else "")
    sentence = f"of {size} ranks {len(missing)} never announced themselves here: {shown}"
    data = {"ranks": missing[:64], "rank": missing[0], "world_size": size}
    return Finding("story", "ranks-unannounced", sentence, data)
