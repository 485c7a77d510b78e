"""`--write`: the correction goes over the user's files after a yes, typed or given by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ddp_assist.app.cli import Wrong
from ddp_assist.app.diagnose import Diagnosis
from ddp_assist.app.files import WriteFailed
from ddp_assist.app.fixes.model import FileEdit, Fix
from ddp_assist.app.overwrite import edits, overwrite
from ddp_assist.probes.text import clean


def write_over(diagnosis: Diagnosis, fixes: Sequence[Fix], allowed: Sequence[Path]) -> None:
    """Writes the first correction that changes files; says on stderr what it did."""
    fix = next((f for f in fixes if f.safety in ("command", "edit")), None)
    changes = edits(diagnosis.target.launch, fix) if fix is not None else []
    if fix is None or not changes:
        print("--write: no correction changes one of your files", file=sys.stderr)
        return
    if fix.badge == "failed":
        raise Wrong(f"nothing was written: the correction failed here: {clean(fix.why)}")
    names = ", ".join(clean(str(edit.path)) for edit in changes)
    if not _named(changes, allowed) and not _agreed(changes):
        raise Wrong(f"nothing was written: {names} stays as it is")
    try:
        overwrite(changes)
    except WriteFailed as why:
        raise Wrong(f"nothing was written: {why}") from why
    print(f"written: {names}", file=sys.stderr)


def _named(changes: Sequence[FileEdit], allowed: Sequence[Path]) -> bool:
    """Whether each file was named by --yes-write; naming some of them is not enough."""
    if not allowed:
        return False
    given = {path.resolve() for path in allowed}
    missing = [edit.path for edit in changes if edit.path.resolve() not in given]
    if missing:
        names = " ".join(f"--yes-write {clean(str(path))}" for path in missing)
        raise Wrong(f"nothing was written: the correction also changes other files: {names}")
    return True


def _agreed(changes: Sequence[FileEdit]) -> bool:
    """A typed yes; the default is no, and without a terminal nobody can type one."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        names = " ".join(f"--yes-write {clean(str(edit.path))}" for edit in changes)
        raise Wrong(f"--write asks on a terminal; without one name what may be written: {names}")
    for edit in changes:
        print(clean(edit.diff), file=sys.stderr)
    print("Write this over your files? Type yes: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"
