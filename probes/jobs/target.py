"""What a live job was started with, as if the user had typed it."""

from __future__ import annotations

from pathlib import Path

from ddp_assist.probes.host.processes import Process, look, snapshot
from ddp_assist.probes.jobs.job import job_of
from ddp_assist.probes.launch.plan import Launch, LaunchError, joined
from ddp_assist.probes.launch.read import read_launch


def launch_of(pid: int) -> tuple[Launch | None, dict[str, str]]:
    """The launch of the job this process belongs to, and the environment it was started in.

    The command of the user is the uppermost process of the job that starts ranks: a shell that
    runs a script, else the launcher, else a rank itself.
    """
    job = job_of(pid)
    if job is None or not job.ranks and job.launcher is None:
        return None, {}
    asked = look(pid)
    top = job.launcher or job.ranks[0].process
    for process in (asked, top, job.ranks[0].process if job.ranks else top):
        launch = _read(process) if process is not None else None
        if launch is not None and launch.plans:
            assert process is not None
            return launch, dict(process.environ or {})
    return None, dict(top.environ or {})


def _read(process: Process) -> Launch | None:
    if process.pid not in snapshot().by_pid or not process.argv:
        return None
    try:
        text = joined(process.argv)
        return read_launch(text, process.environ or {}, Path(process.cwd or "/"))
    except LaunchError:
        return None
