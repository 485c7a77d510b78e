"""A correction written over the user's own files: only on request, and only after a yes."""

from __future__ import annotations

import io
import os
import stat
import tokenize
from collections.abc import Sequence
from pathlib import Path

from ddp_assist.app.files import WriteFailed, write_whole
from ddp_assist.app.fixes.model import FileEdit, Fix
from ddp_assist.probes.launch.plan import Launch

UTF8_MARK = b"\xef\xbb\xbf"


def edits(launch: Launch | None, fix: Fix) -> list[FileEdit]:
    """What would change: the corrected scripts, and the launch script the launch was read from."""
    found = [edit for edit in fix.files if edit.before != edit.after]
    after = fix.launch
    if launch is None or after is None or launch.path is None or launch.text == after.text:
        return found
    return [*found, FileEdit(launch.cwd / launch.path, launch.text, after.text)]


def overwrite(changes: Sequence[FileEdit]) -> None:
    """All of the files or none: each is looked at again before the first is written."""
    ready = [(edit.path, _encoded(edit), os.lstat(edit.path).st_mode) for edit in changes]
    for path, data, mode in ready:
        write_whole(path, data, stat.S_IMODE(mode))


def _encoded(edit: FileEdit) -> bytes:
    """The new text as bytes, in the encoding of the file as it is now."""
    path = edit.path
    if path.is_symlink():
        raise WriteFailed(f"{path} is a link: nothing is written through it")
    if not os.access(path, os.W_OK) or os.lstat(path).st_uid != os.geteuid():
        raise WriteFailed(f"{path} is not yours to write")
    try:
        raw = path.read_bytes()
        for encoding, errors in _encodings(path, raw):
            mark = UTF8_MARK if raw.startswith(UTF8_MARK) and encoding == "utf-8" else b""
            if raw.removeprefix(mark).decode(encoding, errors) == edit.before:
                return mark + edit.after.encode(encoding, errors)
    except (OSError, UnicodeError, SyntaxError) as why:
        raise WriteFailed(f"{path} can't be written as it was read: {why}") from why
    raise WriteFailed(f"{path} has changed since it was read: look again")


def _encodings(path: Path, raw: bytes) -> list[tuple[str, str]]:
    plain = [("utf-8", "surrogateescape")]
    if path.suffix != ".py":
        return plain
    found, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    return [(found.removesuffix("-sig"), "strict"), *plain]
