"""Files: written private, whole or not at all, never through a link; read only when regular; and
without a name where they are only wanted for a while."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class WriteFailed(Exception):
    """Nothing was written, and why, in a sentence."""


def write_private(path: Path, text: str) -> None:
    """Writes a file that is the user's alone: its mode is 0600 whatever the umask."""
    write_whole(path, text.encode("utf-8", "surrogateescape"), 0o600)


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Writes through a temporary name in the same folder: all of it or nothing."""
    temporary: str | None = None
    try:
        if path.is_dir() and not path.is_symlink():
            raise WriteFailed(f"{path} is a folder")
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # a link is replaced, never followed
        temporary = None
    except OSError as why:
        raise WriteFailed(f"{path} was not written: {why.strerror}") from why
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


class ReadFailed(Exception):
    """Nothing was read, and why, in a sentence."""


def read_limited(path: Path, limit: int = 8 << 20) -> bytes:
    """A regular file of at most `limit` bytes; a pipe or a device is refused, not waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ReadFailed(f"{path} is not a regular file")
            data = file.read(limit + 1)
    except OSError as why:
        raise ReadFailed(f"{path} can't be read: {why.strerror}") from why
    if len(data) > limit:
        raise ReadFailed(f"{path} is larger than {limit} bytes")
    return data


@contextmanager
def unnamed_file() -> Iterator[tuple[IO[bytes], str]]:
    """A private file that no death of ours leaves behind, and the path by which we and the
    programs we start open it."""
    with tempfile.TemporaryFile() as file:
        yield file, f"/proc/{os.getpid()}/fd/{file.fileno()}"
