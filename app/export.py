"""What a diagnosis leaves in a folder: case, reports, and a launch that runs from anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddp_assist.app.diagnose import Diagnosis, diagnose
from ddp_assist.app.files import WriteFailed, write_private
from ddp_assist.app.fixes.model import FileEdit, Fix
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.launch.write import started_by
from ddp_assist.probes.trial.shelter import Shelter

MOST_AT_ONCE = 2
"""Further faults that are cured on top of the first; more than that is a guess."""


def copies(fix: Fix, folder: Path) -> dict[Path, Path]:
    """Where the corrected copy of each edited file goes, by the file it stands for."""
    parents = [edit.path.parent for edit in fix.files]
    top = Path(os.path.commonpath(parents)) if parents else Path()
    return {
        edit.path: folder / "files" / edit.path.parent.relative_to(top) / edit.path.name
        for edit in fix.files
    }


def with_main_script(diagnosis: Diagnosis, fix: Fix) -> Fix:
    """The main script is copied too where only a file it imports was edited.

    Python looks for imports beside the script first, so the original would find the old file.
    """
    edited = {edit.path for edit in fix.files}
    launch = fix.launch or diagnosis.target.launch
    mains = {plan.script_path for plan in launch.plans} if launch else set()
    for main in mains - edited - {None}:
        assert main is not None
        beside = any(main.parent == path.parent or main.parent in path.parents for path in edited)
        if beside and main.is_file():
            text = main.read_text("utf-8", "surrogateescape")
            fix = replace(fix, files=(*fix.files, FileEdit(main, text, text)))
    return fix


def launch_text(diagnosis: Diagnosis, fix: Fix | None, folder: Path) -> str:
    """The corrected launch as a shell script; what no command cures stands in it as comments."""
    launch = (fix.launch if fix else None) or diagnosis.target.launch
    head = "#!/usr/bin/env bash\n"
    notes = [] if fix is None else [fix.title]
    if fix is not None and (fix.launch is None and not fix.files):
        notes += list(fix.steps)
    comments = "".join(f"# {line}\n" for note in notes for line in note.splitlines())
    if launch is None:
        return head + comments + "# no launch command was given\nexit 2\n"
    try:
        body = launch.shell(folder, copies(fix, folder) if fix else {})
    except LaunchError as why:
        return head + comments + f"# the launch can't be written down: {why}\nexit 2\n"
    shebang, _, rest = body.partition("\n")  # the user's own, where the launch is a script
    return f"{shebang}\n{comments}{rest}"


def write_launch(diagnosis: Diagnosis, fix: Fix | None, folder: Path) -> Path:
    """`launch.sh` and the corrected copies beside it."""
    if fix is not None:
        fix = with_main_script(diagnosis, fix)
        where = copies(fix, folder)
        for edit in fix.files:
            where[edit.path].parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(where[edit.path], edit.after)
    path = folder / "launch.sh"
    write_private(path, launch_text(diagnosis, fix, folder))
    return path


def _to_write(fixes: Sequence[Fix]) -> Fix | None:
    """Of the first cause the first cure that is a command; else its steps."""
    ours = [fix for fix in fixes if fix.safety != "ends-process"]
    ready = [f for f in ours if f.cause == ours[0].cause and (f.launch or f.files)]
    ready.sort(key=lambda fix: fix.badge == "failed")
    return next(iter((*ready, *ours)), None)


def write_all(
    folder: Path, diagnosis: Diagnosis, fixes: Sequence[Fix], result: Mapping[str, Any]
) -> None:
    """The launch with its copies, exact because it must run; case and reports, redacted."""
    from ddp_assist.app.report import Format, write_report

    written: tuple[tuple[str, Format], ...] = (
        ("case.json", "json"),
        ("report.md", "md"),
        ("report.html", "html"),
    )
    first = _to_write(fixes)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as why:
        raise WriteFailed(f"{folder} can't be made: {why.strerror}") from why
    write_launch(diagnosis, first, folder.resolve())
    if first is not None and first.left:
        _cure_the_rest(diagnosis, first, folder.resolve())
    refused: list[str] = []
    for name, form in written:
        try:
            write_report(result, form, folder / name)
        except WriteFailed as why:
            refused.append(str(why))
    if refused:
        raise WriteFailed("; ".join(refused))


def _cure_the_rest(diagnosis: Diagnosis, first: Fix, folder: Path) -> None:
    """What else is surely wrong with the first cure in place is cured on top of it."""
    from ddp_assist.app import prove

    cured = first
    for _ in range(MOST_AT_ONCE):
        words = ("bash", str(folder / "launch.sh"))
        again = diagnose(replace(diagnosis.question, launch=words, logs=(), job=None, script=None))
        cures = [
            fix
            for ranked in again.causes
            if ranked.cause in cured.left
            for fix in prove.for_cause(again, ranked)
            if fix.safety in ("command", "edit") and (fix.launch is not None or fix.files)
        ]
        if not cures:
            return
        cured = prove.prove(again, cures[0], None)
        write_launch(again, cured, folder)
        if not cured.left:
            return


@contextmanager
def corrected(fix: Fix, diagnosis: Diagnosis) -> Iterator[Sequence[str]]:
    """The corrected launch as words, with its copies in a folder that goes away again."""
    shelter = Shelter()  # swept by the next start where even this one was killed
    try:
        script = write_launch(diagnosis, fix, shelter.path)
        launch = fix.launch or diagnosis.target.launch
        yield () if launch is None else (*started_by(launch), str(script))
    finally:
        shelter.release()


def launch_line(fix: Fix) -> str | None:
    """The launch as the report shows it."""
    if fix.launch is None:
        return None
    return fix.launch.text


def as_fix(fix: Fix) -> Mapping[str, object]:
    nodes = [{"node": name, "launch": launch.text} for name, launch in fix.nodes.items()]
    return {
        **({"nodes": nodes} if nodes else {}),
        "cause": fix.cause,
        "title": fix.title,
        "safety": fix.safety,
        "launch": launch_line(fix),
        "files": [{"path": str(edit.path), "diff": edit.diff} for edit in fix.files if edit.diff],
        "steps": list(fix.steps),
        "does_not": fix.does_not,
        "badge": fix.badge,
        "why": fix.why,
    }
