"""The private directory of a trial, and what becomes of those whose trial was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from ddp_assist.probes.trial.children import leftovers

PREFIX = "ddp-assist-trial-"


class Shelter:
    """A 0700 directory, locked as long as the asker or the guard lives."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            # It gets its name only when it is locked, or another start might sweep it in between.
            new = self.path / "lock.new"
            self.lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self.path / "lock")
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def release(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def sweep() -> list[Path]:
    """Remove what trials left whose processes are all gone; says which directories."""
    swept = []
    for path in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        if _abandoned(path):
            leftovers.sweep(_began(path))
            shutil.rmtree(path, ignore_errors=True)
            swept.append(path)
    return swept


def _began(path: Path) -> float:
    """When its trial began: the lock is made then, and never written to."""
    try:
        return (path / "lock").lstat().st_mtime
    except OSError:
        return time.time()


def _abandoned(path: Path) -> bool:
    """Ours, a real directory, and nobody holds its lock; a link is never followed."""
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        # Between mkdtemp and the lock of a trial that starts now, or killed there: age decides.
        return path.exists() and _older_than_a_minute(path)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _older_than_a_minute(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > 60
