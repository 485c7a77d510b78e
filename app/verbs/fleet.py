"""`ddp-assist fleet`: every node asked and compared, who reaches whom, a trial between them."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from ddp_assist.app import prove
from ddp_assist.app.cli import UNREADABLE, Wrong
from ddp_assist.app.diagnose import Diagnosis, Question, conclude, target_of
from ddp_assist.app.export import write_all
from ddp_assist.app.files import ReadFailed, WriteFailed, read_limited, write_private
from ddp_assist.app.options import launch_of, parser, split
from ddp_assist.app.saying import as_json, as_text, cleaned
from ddp_assist.app.verbs.diagnose import exit_code
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.model import Target

SCHEMA = "ddp-assist/fleet/1"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*\Z")


def run(verb: str, words: list[str]) -> int:
    from ddp_assist.probes.fleet.meeting import Meeting

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
    begun = time.monotonic()
    question = Question(launch=tuple(launch_of(launch)))
    target = _target(question)
    names = nodes_of(given.w, given.hostfile, given.slurm, target)
    meeting = Meeting(
        names, question.launch, str(question.cwd), shlex.quote(given.python), given.slurm,
        not given.no_trial,
    )  # fmt: skip
    findings = meeting.hold()
    asked = frozenset(f.probe for f in findings) | {"fleet"}
    diagnosis = conclude(Diagnosis(question, target, findings, asked=asked))
    diagnosis.seconds = round(time.monotonic() - begun, 3)
    fixes = prove.fixes(diagnosis)
    result = as_json(diagnosis, fixes)
    result |= cleaned({"schema": SCHEMA, "nodes": meeting.table(), "links": meeting.links()})
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


def nodes_of(given: str | None, hostfile: Path | None, slurm: bool, target: Target) -> list[str]:
    """The nodes in the order given; a name that is no host name never reaches a command line."""
    from ClusterShell.NodeSet import NodeSet, NodeSetException

    try:
        if given is not None:
            names = list(NodeSet(given))
        elif hostfile is not None:
            text = read_limited(hostfile).decode("utf-8", "replace")
            lines = [line.partition("#")[0].split() for line in text.splitlines()]
            names = [name for words in lines if words for name in NodeSet(words[0])]
        elif os.environ.get("SLURM_JOB_NODELIST"):
            names = list(NodeSet(os.environ["SLURM_JOB_NODELIST"]))
        elif slurm:
            raise Wrong("there is no allocation: SLURM_JOB_NODELIST is not set")
        else:
            names = [plan.host for plan in target.plans if plan.host]
    except NodeSetException as why:
        raise Wrong(f"that is no node set: {why}") from why
    except ReadFailed as why:
        raise Wrong(str(why), UNREADABLE) from why
    names = list(dict.fromkeys(names))
    if not names:
        raise Wrong("no nodes are named: give -w NODES, --hostfile F, or a launch that names them")
    for name in names:
        if not NAME.match(name):
            raise Wrong(f"{name!r} is no host name")
    return names


def node_launch(name: str, rank: int, target: Target) -> str:
    """What to run on that node: the launch as given, with the node rank of its place."""
    head = f"#!/usr/bin/env bash\n# on {name}\n"
    launch = target.launch
    if launch is None or launch.main is None:
        return head + "# no launch was given\n"
    text, plan = launch.text, launch.main
    option = plan.option("node-rank")
    if launch.path is None and plan.nnodes and plan.nnodes[1] > 1 and "$" not in text:
        if option is not None and option.value_span is not None:
            start, end = option.value_span
            text = f"{text[:start]}{rank}{text[end:]}"
        elif plan.launcher_span[1] and not plan.rdzv_backend:
            at = plan.launcher_span[1]
            text = f"{text[:at]} --node-rank {rank}{text[at:]}"
    return f"{head}cd {shlex.quote(str(launch.cwd))}\n{text}\n"


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
