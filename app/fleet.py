"""All nodes of a launch asked, compared, concluded: for the `fleet` verb and the Hosts screen."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddp_assist.app import prove
from ddp_assist.app.diagnose import Diagnosis, Question, conclude
from ddp_assist.app.files import ReadFailed, read_limited
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.saying import as_json, cleaned
from ddp_assist.probes.model import Target

SCHEMA = "ddp-assist/fleet/1"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*\Z")


class NodesUnclear(ValueError):
    """Which nodes are meant can't be told; the message is one sentence for the user."""

    def __init__(self, sentence: str, unreadable: bool = False) -> None:
        super().__init__(sentence)
        self.unreadable = unreadable


def ask(
    names: Sequence[str],
    question: Question,
    target: Target,
    python: str = "python3",
    slurm: bool = False,
    try_it: bool = True,
) -> tuple[Diagnosis, list[Fix], dict[str, Any]]:
    """What all nodes say together: the diagnosis, its fixes, and both as JSON."""
    from ddp_assist.probes.fleet.meeting import Meeting

    begun = time.monotonic()
    meeting = Meeting(
        names, question.launch, str(question.cwd), shlex.quote(python), slurm, try_it
    )  # fmt: skip
    findings = meeting.hold()
    asked = frozenset(f.probe for f in findings) | {"fleet"}
    diagnosis = conclude(Diagnosis(question, target, findings, asked=asked))
    diagnosis.seconds = round(time.monotonic() - begun, 3)
    fixes = prove.fixes(diagnosis)
    result = as_json(diagnosis, fixes)
    result |= cleaned({"schema": SCHEMA, "nodes": meeting.table(), "links": meeting.links()})
    return diagnosis, fixes, result


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
            raise NodesUnclear("there is no allocation: SLURM_JOB_NODELIST is not set")
        else:
            names = [plan.host for plan in target.plans if plan.host]
    except NodeSetException as why:
        raise NodesUnclear(f"that is no node set: {why}") from why
    except ReadFailed as why:
        raise NodesUnclear(str(why), unreadable=True) from why
    names = list(dict.fromkeys(names))
    if not names:
        raise NodesUnclear(
            "no nodes are named: give -w NODES, --hostfile F, or a launch that names them"
        )
    for name in names:
        if not NAME.match(name):
            raise NodesUnclear(f"{name!r} is no host name")
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
