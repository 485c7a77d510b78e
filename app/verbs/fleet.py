"""`ddp-assist fleet`: every node asked and compared, who reaches whom, a trial between them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ddp_assist.app.cli import UNREADABLE, USAGE, Wrong
from ddp_assist.app.diagnose import Question, target_of
from ddp_assist.app.export import write_all
from ddp_assist.app.files import WriteFailed, write_private
from ddp_assist.app.fleet import NodesUnclear, ask, node_launch, nodes_of
from ddp_assist.app.options import launch_of, parser, split
from ddp_assist.app.saying import as_text
from ddp_assist.app.verbs.diagnose import exit_code
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.model import Target


def run(verb: str, words: list[str]) -> int:
    ours, launch = split(words)
    p = parser(verb, "Ask every node, compare them, and let them meet.")
    which = p.add_mutually_exclusive_group()
    which.add_argument("-w", metavar="NODES", help="a node set, e.g. node[01-64] or @rack1")
    which.add_argument("--hostfile", type=Path, metavar="F", help="one host a line")
    which.add_argument("--slurm", action="store_true", help="the nodes of this allocation, by srun")
    p.add_argument("--python", default="python3", metavar="PY", help="the interpreter on the nodes")
    p.add_argument("--no-trial", action="store_true", help="try no rendezvous between them")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--out", type=Path, metavar="DIR", help="write reports and each node's command")
    given = p.parse_args(ours)
    question = Question(launch=tuple(launch_of(launch)))
    target = _target(question)
    try:
        names = nodes_of(given.w, given.hostfile, given.slurm, target)
    except NodesUnclear as why:
        raise Wrong(str(why), UNREADABLE if why.unreadable else USAGE) from why
    diagnosis, fixes, result = ask(
        names, question, target, given.python, given.slurm, not given.no_trial
    )
    if given.out is not None:
        try:
            write_all(given.out, diagnosis, fixes, result)
            for rank, name in enumerate(names):
                write_private(given.out / f"launch-{name}.sh", node_launch(name, rank, target))
        except WriteFailed as why:
            raise Wrong(f"--out {given.out} can't be written: {why}") from why
    if given.json:
        json.dump(result, sys.stdout, allow_nan=False, indent=1)
        print()
    else:
        print("\n".join(table(result)))
    return exit_code(diagnosis)


def _target(question: Question) -> Target:
    try:
        return target_of(question)
    except LaunchError as why:
        raise Wrong(str(why)) from why


def table(result: dict[str, Any]) -> list[str]:
    """Nodes in groups, the odd one out first; then what is shut; then the diagnosis."""
    from ClusterShell.NodeSet import NodeSet

    rows: dict[tuple[str, str, str], list[str]] = {}
    for node in result["nodes"]:
        key = (node["group"] or "-", node["state"], node["why"])
        rows.setdefault(key, []).append(node["node"])
    lines = ["NODES"]
    for (group, state, why), names in sorted(rows.items(), key=lambda row: len(row[1])):
        lines.append(f"  {group:<2} {state:<17} {NodeSet.fromlist(names)}  {why}".rstrip())
    shut: dict[tuple[str, str, str], list[str]] = {}
    for link in result["links"]:
        if link["outcome"] != "reached":
            shut.setdefault((link["to"], link["kind"], link["outcome"]), []).append(link["from"])
    tried = len(result["links"])
    lines += ["", f"LINKS  {tried} connections tried" if tried else "LINKS  none tried"]
    for (to, kind, outcome), names in sorted(shut.items()):
        lines.append(f"  {NodeSet.fromlist(names)} -> {to} ({kind}): {outcome}")
    said = [f["sentence"] for f in result["findings"] if f["probe"] == "fleet"]
    lines += ["", "SIDE BY SIDE", *(f"  {sentence}" for sentence in said)]
    return [*lines, "", as_text(result)]
