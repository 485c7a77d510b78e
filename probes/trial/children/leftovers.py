"""Shared memory that a killed rank of NCCL leaves behind. The guard runs this by path when a trial
ends, and whoever starts the next trial uses it where the guard was killed, too.

Standard library only, Python 3.8 and newer.
"""

from __future__ import annotations

import contextlib
import os

FOLDER = "/dev/shm"
PREFIX = "nccl-"


def sweep(since: float) -> list[str]:
    """Remove segments of ours that were made since then and that no process has; says which.

    NCCL names them at random and unlinks them once all ranks have one, so what nobody has mapped
    is of use to nobody."""
    found = {}
    for name in os.listdir(FOLDER) if os.path.isdir(FOLDER) else ():
        if name.startswith(PREFIX):
            path = os.path.join(FOLDER, name)
            with contextlib.suppress(OSError):
                about = os.lstat(path)
                if about.st_uid == os.getuid() and about.st_ctime >= since:
                    found[about.st_ino] = path
    swept = []
    if found:
        used = in_use()
        for inode in sorted(found.keys() - used):
            with contextlib.suppress(OSError):
                os.unlink(found[inode])
                swept.append(found[inode])
    return swept


def in_use() -> set[int]:
    """Inodes of shared memory that a process which we may look at has mapped or open."""
    used = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/maps", "rb") as maps:
                for line in maps:
                    if b"/dev/shm/" in line:
                        used.add(int(line.split()[4]))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}").startswith(FOLDER):
                        used.add(os.stat(f"/proc/{pid}/fd/{fd}").st_ino)
    return used
