"""Is every rank of this job there, and does each do what the others wait for?"""

from __future__ import annotations

from collections.abc import Iterator

from ddp_assist.probes.host.processes import look as process_of
from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.find import family, find_jobs, unnamed
from ddp_assist.probes.jobs.ranks import Job
from ddp_assist.probes.jobs.scene import settled
from ddp_assist.probes.jobs.verdict import OUTCOMES, judge
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown


def job_of(pid: int) -> Job | None:
    """The job that a process belongs to, starts, or was started by."""
    processes = snapshot()
    below = {pid} | {p.pid for p in processes.descendants(pid)}
    near = [job for job in find_jobs(processes)
            if pid in family(job, processes) or below & set(job.pids)]  # fmt: skip
    if near:
        return max(near, key=lambda job: (pid in job.pids, len(job.ranks)))
    return unnamed(pid, processes)


def look(target: Target) -> Iterator[Finding]:
    assert target.job is not None
    job = job_of(target.job)
    if job is None and process_of(target.job) is None:
        because = f"there is no process {target.job} here any more; its output can be asked (--log)"
        yield unknown("job", because, pid=target.job)
        return
    if job is None:
        yield Finding(
            "job", "not-distributed", f"no rank was found at or below pid {target.job}",
            {"pid": target.job}, (Evidence("/proc", (), ("ps", "--forest", "-e")),),
        )  # fmt: skip
        return
    yield from judge(*settled(job), _launched(target))


def _launched(target: Target) -> frozenset[int]:
    """Ranks that the commands of the launch name one by one."""
    named = (plan.env.get("RANK", "") for plan in target.plans if not plan.repeated)
    return frozenset(int(text) for text in named if text.isascii() and text.isdecimal())


PROBES = (
    Probe(
        "job",
        "Is every rank there, and does each do what the others wait for?",
        OUTCOMES,
        look,
        lambda target: target.job is not None,
        deadline=40.0,
    ),
)
