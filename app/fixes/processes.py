"""Cures that end one named process. They are only described here; `app/actions.py` ends it."""

from __future__ import annotations

from collections.abc import Mapping

from ddp_assist.app.fixes.model import Builder, Fix, Situation


def end_process(situation: Situation) -> Fix | None:
    """Offered for a process of the user's own that was seen as a left-over."""
    pid = situation.value("pid")
    if pid is None:
        return None
    port = situation.value("port")
    named = situation.value("command") or "the process"
    arguments = f"--yes-end {pid}" + (f" --port {port}" if port else "")
    return Fix(
        situation.cause,
        f"end pid {pid}, which is left over from an earlier run",
        "ends-process",
        launch=situation.target.launch,
        steps=(
            f"look at it once more: ps -o pid,ppid,user,lstart,args -p {pid}",
            f"let ddp-assist end it (SIGTERM first, then it asks): ddp-assist diagnose {arguments}",
            f"or end it yourself: kill {pid}",
        ),
        does_not=f"what {str(named)[:60]} was doing is lost",
        why="not tried: ending a process needs your yes",
    )


BUILDERS: Mapping[str, Builder] = {"end-process": end_process}
