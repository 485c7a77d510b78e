"""What a folder holds for all nodes: a launch and a configuration for each, or the one for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddp_assist.app.files import write_private
from ddp_assist.app.fixes.config_files import configs
from ddp_assist.app.fixes.for_nodes import in_one_piece, scripts
from ddp_assist.app.fixes.hostfile import hostfile
from ddp_assist.app.fixes.model import Fix
from ddp_assist.probes.launch.plan import Launch


def write_for_nodes(
    out: Path, fixes: Sequence[Fix], launch: Launch | None, names: Sequence[str]
) -> None:
    """Over what was written for one host. Where nothing cures them all, the launch as given."""
    fix = next((fix for fix in fixes if fix.nodes), None)
    nodes = fix.nodes if fix is not None else {}
    if not nodes and launch is not None:
        nodes = dict.fromkeys(names, launch)
    listed = fix.files[0].after if fix is not None and fix.files else None
    new = out.resolve() / "hostfile" if listed is not None else None
    for name, content in files(nodes, names, fix is not None, new).items():
        write_private(out / name, listed if name == "hostfile" and listed else content)


def files(
    nodes: Mapping[str, Launch], names: Sequence[str], corrected: bool = True,
    new_hostfile: Path | None = None,
) -> dict[str, str]:  # fmt: skip
    """By name. A launch in one piece stands in `launch.sh` already, as on one host; the hosts of
    `new_hostfile` are wrong in the user's own."""
    launch = next(iter(nodes.values()), None)
    plan = launch.main if launch is not None else None
    found = {"hostfile": hostfile(plan, names, {})}
    if launch is None:
        return found
    one = in_one_piece(launch)
    if corrected and (not one or (plan is not None and plan.starts_all)):
        found |= configs(nodes, new_hostfile)
    if one:
        return found
    found |= {f"launch-{name}.sh": text for name, text in scripts(nodes).items()}
    found["launch.sh"] = ON_EACH.format(nodes=" ".join(names))
    return found


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
