"""Every job of this host with what each rank does, cheap enough to be asked every few seconds."""

from __future__ import annotations

from dataclasses import dataclass

from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.find import find_jobs
from ddp_assist.probes.jobs.scene import Scene, seen
from ddp_assist.probes.jobs.state import watch
from ddp_assist.probes.jobs.verdict import judge
from ddp_assist.probes.model import Finding


@dataclass(frozen=True, slots=True)
class Shown:
    """One job as a table shows it: a scene, and what can be said of it."""

    scene: Scene
    findings: tuple[Finding, ...]


def live(with_stacks: bool = False) -> list[Shown]:
    """One rescan. Nothing is asked of the jobs themselves; stacks only where they are wanted.

    A wait counts as one when the sockets were quiet for long enough, so a scan never has to wait.
    """
    jobs = find_jobs(snapshot())
    doing = watch(jobs)
    scenes = [seen(job, doing[job.id], with_stacks) for job in jobs]
    return [Shown(scene, tuple(judge(scene, scene.is_calm))) for scene in scenes]
