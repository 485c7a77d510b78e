"""What a live job was started with, as if the user had typed it."""

from __future__ import annotations

import os
from pathlib import Path

from ddp_assist.probes.host.processes import Process, look, snapshot
from ddp_assist.probes.jobs.job import job_of
from ddp_assist.probes.launch.plan import Launch, LaunchError, joined
from ddp_assist.probes.launch.read import read_launch

RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


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
    first = job.ranks[0].process if job.ranks else top
    shells = [asked] if asked is not None and _is_shell(asked) else _shells_above(top)
    for process in (*shells, asked, top, first):
        launch = _read(process) if process is not None else None
        above = process not in (asked, top, first)
        if launch is not None and launch.plans and not (above and not _starts(launch, top)):
            assert process is not None
            parent = look(process.ppid)
            users = process if _is_shell(process) or parent is None else parent
            return launch, dict(users.environ or process.environ or {})
    return None, dict(top.environ or {})


def _shells_above(process: Process) -> list[Process]:
    """A script of the user's says more than one command of it: who else was started, and where."""
    return [p for p in snapshot().ancestors(process.pid) if _is_shell(p) and len(p.argv or ()) > 1]


def _starts(launch: Launch, process: Process) -> bool:
    """Whether all that this launch starts is the job of this process."""
    words = {os.path.basename(word) for word in process.argv or ()}
    return all(plan.script and os.path.basename(plan.script) in words for plan in launch.plans)


def _read(process: Process) -> Launch | None:
    if process.pid not in snapshot().by_pid or not process.argv:
        return None
    try:
        text = joined(_words(process))
        if (parent := look(process.ppid)) is not None and not _is_shell(process):
            text = " ".join([*_given(process, parent), text])
        return read_launch(text, process.environ or {}, Path(process.cwd or "/"))
    except LaunchError:
        return None


def _is_shell(process: Process) -> bool:
    return os.path.basename((process.argv or ("",))[0]) in ("bash", "sh", "dash")


def _words(process: Process) -> tuple[str, ...]:
    """The command line; a shell that went elsewhere still has its script open, by its full name."""
    words = process.argv or ()
    if len(words) > 1 and _is_shell(process) and not words[1].startswith("-"):
        try:
            script = os.readlink(f"{process.path}/fd/255")
        except OSError:
            return words
        if os.path.basename(script) == os.path.basename(words[1]):
            return (words[0], script, *words[2:])
    return words


def _given(process: Process, parent: Process) -> list[str]:
    """What steers the ranks and was set for this process, not for the shell that started it."""
    own, above = process.environ or {}, parent.environ or {}
    return [
        joined((f"{name}={value}",))
        for name, value in own.items()
        if name in RENDEZVOUS and above.get(name) != value
    ]
