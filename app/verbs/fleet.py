"""`ddp-assist fleet`: every node asked and compared, who reaches whom, a trial between them."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

from ddp_assist.app.cli import UNREADABLE, USAGE, Wrong
from ddp_assist.app.diagnose import Diagnosis, Question, target_of
from ddp_assist.app.export import write_all
from ddp_assist.app.files import WriteFailed
from ddp_assist.app.fleet import Hosts, sentences
from ddp_assist.app.hosts_drawn import summary
from ddp_assist.app.hosts_written import write_for_nodes
from ddp_assist.app.nodes import NodesUnclear, by_srun, nodes_of
from ddp_assist.app.options import interpreter, launch_of, parser, split
from ddp_assist.app.saying import as_text
from ddp_assist.app.verbs.diagnose import exit_code
from ddp_assist.probes.launch.plan import LaunchError


def run(verb: str, words: list[str]) -> int:
    ours, launch = split(words)
    p = parser(verb, "Ask every node, compare them, and let them meet.")
    which = p.add_mutually_exclusive_group()
    which.add_argument("-w", metavar="NODES", help="a node set, e.g. node[01-64] or @rack1")
    which.add_argument("--hostfile", type=Path, metavar="F", help="one host a line")
    which.add_argument(
        "--slurm", nargs="?", const="", metavar="JOB",
        help="the nodes of this allocation, or of a running job of yours, by srun",
    )  # fmt: skip
    p.add_argument("--python", metavar="PY", help="the interpreter on the nodes")
    p.add_argument("--no-trial", action="store_true", help="try no rendezvous between them")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--out", type=Path, metavar="DIR", help="write reports and each node's command")
    given = p.parse_args(ours)
    # --python names one that is on the nodes: here it need not exist.
    question = Question(launch=tuple(launch_of(launch)), python=interpreter())
    try:
        names = nodes_of(given.w, given.hostfile, given.slurm, target_of(question))
        slurm = by_srun(names) if given.slurm is None else given.slurm
        hosts = Hosts(question, names, slurm, given.python, not given.no_trial)
    except LaunchError as why:
        raise Wrong(str(why)) from why
    except NodesUnclear as why:
        raise Wrong(str(why), UNREADABLE if why.unreadable else USAGE) from why
    return answer(hosts, given.json, given.out)


def answer(hosts: Hosts, want_json: bool, out: Path | None) -> int:
    """Asks, prints and writes; returns the exit code."""
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        hosts.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    diagnosis = hosts.ask()
    if stopped:
        return 128 + stopped[0]
    if out is not None:
        write(out, diagnosis, hosts)
    if want_json:
        json.dump(hosts.result, sys.stdout, allow_nan=False, indent=1)
        print()
    else:
        print("\n".join(text(hosts.result)))
    return exit_code(diagnosis)


def write(out: Path, diagnosis: Diagnosis, hosts: Hosts) -> None:
    try:
        write_all(out, diagnosis, hosts.fixes, hosts.result)
        write_for_nodes(out, hosts.fixes, hosts.target.launch, hosts.names)
    except WriteFailed as why:
        raise Wrong(f"--out {out} can't be written: {why}") from why


def text(result: dict[str, Any]) -> list[str]:
    """Nodes in groups, the odd one out first; then what is shut; then the diagnosis."""
    lines = summary(result["nodes"], result["links"])
    said = [f"  {sentence}" for sentence in sentences(result)]
    return [*lines, "", "SIDE BY SIDE", *said, "", as_text(result)]
