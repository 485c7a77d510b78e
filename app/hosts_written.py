"""What a folder holds for all nodes: a launch and a configuration for each, or the one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddp_assist.app.files import ReadFailed, WriteFailed, read_limited, write_private
from ddp_assist.app.fixes.config_files import configs
from ddp_assist.app.fixes.for_nodes import in_one_piece, scripts
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.nodes import host_on, hosts_file
from ddp_assist.probes.launch.plan import Launch


def write_for_nodes(
    out: Path, fixes: Sequence[Fix], launch: Launch | None, names: Sequence[str]
) -> None:
    """Over what was written for one host. Where nothing cures them all, the launch as given."""
    nodes = next((fix.nodes for fix in fixes if fix.nodes), {})
    if not nodes and launch is not None:
        nodes = dict.fromkeys(names, launch)
    for name, content in files(nodes, names, bool(nodes)).items():
        write_private(out / name, content)


def files(
    nodes: Mapping[str, Launch], names: Sequence[str], corrected: bool = True
) -> dict[str, str]:
    """By name. A launch in one piece stands in `launch.sh` already, as on one host."""
    launch = next(iter(nodes.values()), None)
    found = {"hostfile": _hostfile(launch, names)}
    if launch is None or in_one_piece(launch):
        return found
    found |= {f"launch-{name}.sh": text for name, text in scripts(nodes).items()}
    found["launch.sh"] = ON_EACH.format(nodes=" ".join(names))
    return found | (configs(nodes) if corrected else {})


def _hostfile(launch: Launch | None, names: Sequence[str]) -> str:
    """The user's own lines of these nodes, with their slots; a line like them for the others."""
    plan = launch.main if launch is not None else None
    file = hosts_file(plan) if plan is not None else None
    lines = _lines(file) if file is not None else []
    kept = [line for line in lines if host_on(line) is None or host_on(line) in names]
    known = {host_on(line) for line in kept}
    each = next((line.split(None, 1)[1:] for line in kept if host_on(line)), [])
    if not each and plan is not None and plan.launcher == "deepspeed" and plan.nproc:
        each = [f"slots={plan.nproc}"]
    kept += [" ".join([name, *each]) for name in names if name not in known]
    return "".join(f"{line}\n" for line in kept)


def _lines(file: Path) -> list[str]:
    try:
        return read_limited(file).decode("utf-8", "replace").splitlines()
    except ReadFailed as why:
        raise WriteFailed(str(why)) from why


ON_EACH = """#!/usr/bin/env bash
# On a node of the job: its part. Elsewhere, or with DDP_ASSIST_ALL=1: every part on its node.
set -o pipefail
here=$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)
for node in {nodes}; do
  case "$(hostname)" in "$node"|"${{node%%.*}}"|"$node".*)
    if [ -z "$DDP_ASSIST_ALL" ]; then exec bash "$here/launch-$node.sh"; fi ;;
  esac
done
on() {{
  if [ -n "$SLURM_JOB_ID" ] && command -v srun >/dev/null; then
    srun --overlap -N1 -n1 -w "$1" bash -s
  else
    ssh "$1" bash -s
  fi
}}
started=()
for node in {nodes}; do
  on "$node" <"$here/launch-$node.sh" 2>&1 | sed "s/^/$node: /" &
  started+=($!)
done
code=0
for one in "${{started[@]}}"; do wait "$one" || code=1; done
exit $code
"""
