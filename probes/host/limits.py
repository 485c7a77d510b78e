"""Limits that a start runs into: descriptors, threads, locked memory, /dev/shm, temporary space."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from ddp_assist.probes.host.cgroup import Cgroup
from ddp_assist.probes.host.processes import read, snapshot
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown

MB = 1 << 20
FEW_FILES = 1024
FEWEST_FILES = 64
"""Torchrun and a few ranks of gloo come by with 40, as long as no tensor travels in a file."""
FEW_PROCESSES = 256
LITTLE_LOCKED = 64 * MB
LITTLE_SHM = 256 * MB
SHM_LEFT = 64 * MB
DISK_LEFT = 64 * MB
INODES_LEFT = 500
UNLIMITED = 1 << 62


def limits_of(pid: int | str = "self") -> Mapping[str, int] | None:
    """Soft limits by the kernel's name, None where the process is gone or not for us."""
    raw = read(f"/proc/{pid}/limits", 1 << 16)
    if raw is None:
        return None
    found: dict[str, int] = {}
    for line in raw.decode("ascii", "replace").splitlines()[1:]:
        if match := re.match(r"(Max [a-z ]+?) {2,}(\d+|unlimited)", line):
            found[match[1]] = UNLIMITED if match[2] == "unlimited" else int(match[2])
    return found


def _look_limits(target: Target) -> Iterator[Finding]:
    limits = limits_of(target.job or "self")
    whose = f"process {target.job}" if target.job else "this shell"
    see = (Evidence(f"/proc/{target.job or 'self'}/limits", see=("bash", "-c", "ulimit -a")),)
    if limits is None:
        yield unknown("limits", f"the limits of {whose} can't be read", *see)
        return
    files = limits.get("Max open files", UNLIMITED)
    if (own := _lowered(target)) is not None and own < files:
        files, whose = own, "the launch"
        see = (Evidence("the launch", (f"ulimit -n {own}",)),)
    fine = True
    if files < FEW_FILES and (files < FEWEST_FILES or _may_share(target)):
        fine = False
        sentence = f"{whose} may open only {files} files; ranks with DataLoader workers need more"
        yield Finding("limits", "nofile-low", sentence, {"nofile": files}, see)
    if (left := _processes_left(limits)) is not None and left[0] < FEW_PROCESSES:
        fine = False
        room, by = left
        sentence = f"only {room} more threads may be started ({by})"
        yield Finding("limits", "nproc-low", sentence, {"left": room, "by": by}, see)
    locked = limits.get("Max locked memory", UNLIMITED)
    if locked < LITTLE_LOCKED and _has_rdma():
        fine = False
        sentence = f"only {locked >> 10} KiB may be locked in memory; RDMA wants no limit"
        yield Finding("limits", "memlock-low", sentence, {"memlock": locked}, see)
    if fine:
        data = {"nofile": files, "memlock": locked}
        yield Finding("limits", "fine", f"{whose} may open {files} files", data, see)


def _lowered(target: Target) -> int | None:
    """What the launch itself sets as its limit of open files."""
    text = target.launch.text if target.launch else ""
    found = re.findall(r"^[^#\n]*\bulimit\s+-[SH]*n\s+(\d{1,9})\b", text, re.M)
    return int(found[-1]) if found else None


def _processes_left(limits: Mapping[str, int]) -> tuple[int, str] | None:
    """Threads that may still be started, by the tightest of the limits that bind us."""
    rooms: list[tuple[int, str]] = []
    allowed = limits.get("Max processes", UNLIMITED)
    if os.geteuid() != 0 and allowed < UNLIMITED:
        ours = sum(p.threads for p in snapshot() if p.uid == os.getuid())
        rooms.append((allowed - ours, f"ulimit -u {allowed}"))
    group = Cgroup.of("self", "pids")
    most, now = (group.number("pids.max"), group.number("pids.current")) if group else (None, None)
    if most is not None and now is not None:
        rooms.append((most - now, f"pids.max {most}"))
    return min(rooms, default=None)


def _has_rdma() -> bool:
    try:
        return bool(os.listdir("/sys/class/infiniband"))
    except OSError:
        return False


def _may_share(target: Target) -> bool:
    """Whether the script may put data there; the readers of scripts do not travel to the nodes of a
    fleet, where nobody can tell."""
    if find_spec("ddp_assist.probes.script") is None:
        return True
    from ddp_assist.probes.script.sharing import may_share

    return may_share(target)


def _look_shm(target: Target, path: str = "/dev/shm") -> Iterator[Finding]:
    see = (Evidence(path, see=("df", "-h", path)),)
    try:
        space = os.statvfs(path)
        mode = os.stat(path).st_mode & 0o7777
    except OSError as error:
        sentence = f"{path} can't be used: {error.strerror}"
        yield Finding("shm", "not-writable", sentence, {"path": path}, see)
        return
    size, free = space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize
    data = {"path": path, "size": size, "free": free, "mode": f"{mode:o}"}
    if space.f_flag & os.ST_RDONLY or not os.access(path, os.W_OK | os.X_OK):
        why = "is mounted read-only" if space.f_flag & os.ST_RDONLY else f"has mode {mode:o}"
        yield Finding("shm", "not-writable", f"{path} {why}, so you may not write there", data, see)
    elif (0 < size < LITTLE_SHM or 0 <= free < SHM_LEFT < size) and not _may_share(target):
        sentence = f"{path} has {_mb(free)} of {_mb(size)} free, and the script puts nothing there"
        yield Finding("shm", "fine", sentence, data, see)
    elif 0 < size < LITTLE_SHM:
        sentence = f"{path} holds only {_mb(size)} ({_mb(free)} free)"
        yield Finding("shm", "small", sentence, data, see)
    elif size and free < SHM_LEFT:
        sentence = f"{path} is full: {_mb(free)} of {_mb(size)} are free"
        yield Finding("shm", "full", sentence, data, see)
    else:
        yield Finding("shm", "fine", f"{path} has {_mb(free)} of {_mb(size)} free", data, see)


def _look_disk(target: Target) -> Iterator[Finding]:
    path = temporary(target.env)
    shown = brief(str(path))
    see = (Evidence(shown, see=("df", "-h", shown)),)
    try:
        space = os.statvfs(path)
    except (OSError, ValueError) as error:
        sentence = f"the folder for temporary files, {shown}, can't be used: {error}"
        yield Finding("disk", "missing", sentence, {"path": shown}, see)
        return
    free, inodes = space.f_bavail * space.f_frsize, space.f_favail
    data = {"path": shown, "free": free, "inodes": inodes}
    if not os.access(path, os.W_OK | os.X_OK) or space.f_flag & os.ST_RDONLY:
        yield Finding("disk", "not-writable", f"you may not write to {shown}", data, see)
    elif free < DISK_LEFT:
        yield Finding("disk", "full", f"{shown} is full: {_mb(free)} are free", data, see)
    elif space.f_files and inodes < INODES_LEFT:
        sentence = f"{shown} has room, but only {inodes} more files may be made there"
        yield Finding("disk", "inodes", sentence, data, see)
    else:
        yield Finding("disk", "fine", f"{shown} has {_mb(free)} free", data, see)


def temporary(env: Mapping[str, str]) -> Path:
    """Where the launch puts its temporary files."""
    return Path(next((env[n] for n in ("TMPDIR", "TEMP", "TMP") if env.get(n)), "/tmp"))


def _mb(size: int) -> str:
    return f"{size / MB:.0f} MiB" if size < 10 * 1024 * MB else f"{size / MB / 1024:.0f} GiB"


LIMITS = Probe(
    "limits",
    "May a rank open enough files, start enough threads, lock enough memory?",
    {"fine": "ok", "nofile-low": "bad", "nproc-low": "bad", "memlock-low": "bad"},
    _look_limits,
)
SHM = Probe(
    "shm",
    "Is there room in /dev/shm?",
    {"fine": "ok", "small": "bad", "full": "bad", "not-writable": "bad"},
    _look_shm,
)
DISK = Probe(
    "disk",
    "Is there room for temporary files?",
    {"fine": "ok", "full": "bad", "inodes": "bad", "not-writable": "bad", "missing": "bad"},
    _look_disk,
)
PROBES: tuple[Probe, ...] = (LIMITS, SHM, DISK)
