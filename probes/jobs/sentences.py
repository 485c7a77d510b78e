"""How a scene is told: who does what where, ranks that do the same in one breath."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ddp_assist.probes.jobs.scene import Scene, named
from ddp_assist.probes.jobs.state import Doing
from ddp_assist.probes.model import Evidence, Finding
from ddp_assist.probes.text import clean


def finding(scene: Scene, outcome: str, sentence: str, **data: Any) -> Finding:
    about = {
        "world_size": scene.job.world_size,
        "port": scene.job.port,
        "host": clean(scene.job.host),
        "quiet_s": None if scene.quiet is None else round(scene.quiet),
        "ranks": {
            str(d.rank.rank): clean(f"{d.state} {d.where}".strip()) for d in scene.doing[:64]
        },
    }
    return Finding("job", outcome, clean(sentence), about | data, tuple(evidence(scene)))


def evidence(scene: Scene) -> Iterator[Evidence]:
    """Equal ranks are one line, the odd ones first."""
    lines = tuple(clean(f"{named([d.rank for d in same])}: {what}")
                  for what, same in folded(scene)[:16])  # fmt: skip
    pids = ",".join(str(pid) for pid in scene.job.pids[:16])
    yield Evidence("/proc", lines, ("ps", "-o", "pid,stat,etime,args", "-p", pids or "1"))
    if scene.at:
        pid = next(iter(scene.at))
        yield Evidence("py-spy", (), ("py-spy", "dump", "--nonblocking", "--pid", str(pid)))


def folded(scene: Scene) -> list[tuple[str, list[Doing]]]:
    """The ranks in groups of equals, the smallest group first."""
    return sorted(_groups(scene, scene.doing).items(), key=lambda each: len(each[1]))


def place(scene: Scene, doing: Doing) -> str:
    stack = scene.stack(doing)
    if stack is None:
        return f"{doing.state} {doing.where}".strip()
    waits = f"waits in {stack.waits_in} at" if stack.waits_in else f"{doing.state} at"
    if doing.spins and not stack.waits_in:
        waits = "waits for its GPU at"
    return f"{waits} {stack.where or (stack.frames[0] if stack.frames else '?')}"


def others(scene: Scene) -> str:
    if not scene.waiting:
        return f"{len(scene.alive)} go on"
    return f"{waits(scene, scene.waiting)}"


def waits(scene: Scene, waiting: Sequence[Doing]) -> str:
    """`ranks 0, 2 wait in all_reduce at train.py:9 for 17 s`."""
    what, same = max(_groups(scene, waiting).items(), key=lambda each: len(each[1]))
    for_so_long = f" for {scene.quiet:.0f} s" if scene.quiet and scene.quiet >= 1 else ""
    if len(same) > 1:
        what = what.replace("waits in ", "wait in ", 1)
        what = what.replace("waits for its GPU", "wait for their GPUs", 1)
    return f"{named([d.rank for d in same])} {what}{for_so_long}"


def _groups(scene: Scene, some: Sequence[Doing]) -> dict[str, list[Doing]]:
    groups: dict[str, list[Doing]] = {}
    for d in some:
        groups.setdefault(place(scene, d), []).append(d)
    return groups
