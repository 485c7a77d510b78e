"""What a live job was started with, as if the user had typed it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ddp_assist.probes.host.processes import Process, look, read, snapshot
from ddp_assist.probes.jobs.job import job_of
from ddp_assist.probes.jobs.ranks import Job
from ddp_assist.probes.launch.plan import Launch, LaunchError, joined
from ddp_assist.probes.launch.read import read_launch

RECORDERS = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
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


def elsewhere(pid: int) -> int | None:
    """A process of the job from whose network one has to look, where none of it is in ours.

    In a container or a namespace, what we see here of addresses, ports and rules says nothing
    about it. Of several networks the one of the highest rank tells most: it dials the others.
    """
    job = job_of(pid)
    if job is None:
        return None
    members = [job.launcher] if job.launcher else []
    members += [r.process for r in job.ranks[:64]]
    ours = _link("/proc/self/ns/net")
    theirs = [(p.pid, where) for p in members if (where := _link(f"{p.path}/ns/net"))]
    if not theirs or any(where == ours for _, where in theirs):
        return None
    return theirs[-1][0]


def way_in(pid: int) -> list[str] | None:
    """The command that puts a program of ours into a process's network, where root can do that,
    the same files are there, and a pid means the same."""
    nsenter = shutil.which("nsenter")
    if os.geteuid() != 0 or nsenter is None:
        return None
    try:
        same = all(os.path.samefile(f"/proc/{pid}/root{path}", path)
                   for path in (sys.executable, os.getcwd()))  # fmt: skip
    except OSError:
        return None
    if not same or _link(f"/proc/{pid}/ns/pid") != _link("/proc/self/ns/pid"):
        return None
    return [nsenter, "-t", str(pid), "-n", "-m", "-u", f"--wd={os.getcwd()}", "--"]


def logs_of(pid: int) -> tuple[str, ...]:
    """The files that a live job writes its output to, itself or through tee, and what its flight
    recorders wrote.

    A file that is appended to may hold earlier runs, whose errors are not this job's: left out.
    """
    job = job_of(pid)
    return () if job is None else (*_outputs(job), *_recorders(job))[:128]


def _recorders(job: Job) -> Iterator[str]:
    """Dumps of the ranks' flight recorders that are younger than the ranks."""
    for rank in job.ranks[:64]:
        cache = rank.env.get("XDG_CACHE_HOME") or f"{rank.env.get('HOME', '')}/.cache"
        stems = [rank.env[name] for name in RECORDERS if rank.env.get(name)]
        for stem in stems or [f"{cache}/torch/comm_lib_trace_rank_"]:
            path = f"{stem}{rank.rank}"
            try:
                kind = os.stat(path)
            except (OSError, ValueError):
                continue
            young = kind.st_mtime > time.time() - rank.process.age()
            if stat.S_ISREG(kind.st_mode) and young and os.access(path, os.R_OK):
                yield path


def _outputs(job: Job) -> tuple[str, ...]:
    members = [r.process for r in job.ranks[:64]] + ([job.launcher] if job.launcher else [])
    ends = [(f"{p.path}/fd/{fd}", f"{p.path}/fdinfo/{fd}") for p in members for fd in (1, 2)]
    pipes = {where for fd, _ in ends if (where := _link(fd)).startswith("pipe:")}
    for process in snapshot() if pipes else ():
        if process.comm == "tee" and _link(f"{process.path}/fd/0") in pipes:
            ends += [
                (f"{process.path}/fd/{fd}", f"{process.path}/fdinfo/{fd}") for fd in range(3, 9)
            ]
    found: dict[tuple[int, int], str] = {}
    for fd, info in ends:
        try:
            kind = os.stat(fd)
            where = os.readlink(fd)
        except OSError:
            continue
        written = stat.S_ISREG(kind.st_mode) and kind.st_size and not _is_appended(info)
        if written and os.access(where, os.R_OK):
            found.setdefault((kind.st_dev, kind.st_ino), where)
    return tuple(found.values())[:64]


def _is_appended(info: str) -> bool:
    flags = next((line.split()[1] for line in (read(info, 4096) or b"").splitlines()
                  if line.startswith(b"flags:")), b"0")  # fmt: skip
    return bool(int(flags, 8) & os.O_APPEND)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


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
