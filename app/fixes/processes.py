"""Cures that end one named process. They are only described here; `app/actions.py` ends it."""

from __future__ import annotations

from collections.abc import Mapping

from ddp_assist.app.fixes.model import Builder, Fix, Situation
from ddp_assist.probes.model import Finding


def end_process(situation: Situation) -> Fix | None:
    """Offered for left-overs of the user's own, each ended by itself."""
    seen = next((f for f in situation.speaks_for if _pids(f)), None)
    if seen is None:
        return None
    pids, port = _pids(seen), seen.data.get("port")
    named = seen.data.get("command") or "the process"
    arguments = f"--yes-end {pids[0]}" + (f" --port {port}" if port else "")
    listed = ",".join(map(str, pids))
    ours = f"let ddp-assist end it (SIGTERM first, then it asks): ddp-assist diagnose {arguments}"
    return Fix(
        situation.cause,
        f"end pid {listed}, which is left over from an earlier run",
        "ends-process",
        launch=situation.target.launch,
        steps=(
            f"look at it once more: ps -o pid,ppid,user,lstart,args -p {listed}",
            *((ours,) if port and len(pids) == 1 else ()),
            f"or end it yourself: kill {' '.join(map(str, pids))}",
        ),
        does_not=f"what {str(named)[:60]} was doing is lost",
        why="not tried: ending a process needs your yes",
        ends=tuple(pids),
        frees=port,
    )


def _pids(finding: Finding) -> list[int]:
    """The processes that a finding is about; one that only the kernel log names is gone."""
    if finding.probe == "memory":
        return []
    one = finding.data.get("pid")
    return [int(pid) for pid in finding.data.get("pids") or ([one] if one else [])][:8]


BUILDERS: Mapping[str, Builder] = {"end-process": end_process}
