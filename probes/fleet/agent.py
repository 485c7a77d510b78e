"""Runs on a node: answers requests on stdin, one JSON line each, until stdin closes.

Whoever started us is the other end of stdin: when it goes, by whatever death, we go too.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ddp_assist.probes.fleet import ways
from ddp_assist.probes.fleet.parcel import MARK
from ddp_assist.probes.host.python import interpreter
from ddp_assist.probes.launch.plan import LaunchError, LaunchPlan
from ddp_assist.probes.launch.read import from_process, read_launch
from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.network.endpoints import endpoints
from ddp_assist.probes.network.links import interfaces
from ddp_assist.probes.network.names import resolve
from ddp_assist.probes.runner import run

MODULES = (
    "network.ports",
    "network.names",
    "network.interface",
    "network.endpoint",
    "network.capacity",
    "host.environment",
    "host.torch_build",
    "host.limits",
    "host.memory",
    "host.leftovers",
)
COMPARED = ("NCCL_", "GLOO_", "TORCH_", "MASTER_", "UCX_", "FI_")
Reply = dict[str, Any]


def look(asked: dict[str, Any]) -> Reply:
    """The probes of this host, and what only makes sense beside the others' answers."""
    env = dict(os.environ)
    target, trouble = _target(asked, env)
    every = [p for m in MODULES for p in import_module(f"ddp_assist.probes.{m}").PROBES]
    findings = run([p for p in every if p.id != "torch"], target, deadline=asked["seconds"])
    torch = run(
        [p for p in every if p.id == "torch"],
        _only_its_python(target),
        deadline=asked["seconds"],
    )
    names = resolve(asked["names"])
    return {
        "host": os.uname().nodename,
        "machine": os.uname().machine,
        "python": sys.version.split()[0],
        "time": time.time(),
        "env": {k: v[:500] for k, v in sorted(env.items()) if k.startswith(COMPARED)},
        "links": [
            {
                "name": i.name,
                "up": i.up and i.running,
                "mtu": i.mtu,
                "virtual": i.virtual or i.loopback,
                "addresses": [str(a) for a in i.usable],
            }
            for i in interfaces()
        ],
        "reached-at": env.get("SSH_CONNECTION", "").split()[2:3],
        "names": {name: answer.get("addresses", []) for name, answer in names.answers.items()},
        "plans": [_told(p, env, _is_template(target)) for p in target.plans]
        + [_told(p, env) for p in _live()],
        "endpoints": [[e.host, e.port] for e in target.endpoints],
        "trouble": trouble,
        "findings": [asdict(f) for f in (*findings, *torch)],
    }


def _target(asked: dict[str, Any], env: dict[str, str]) -> tuple[Target, str]:
    """The launch read with this node's own variables and its own copy of a launch script."""
    cwd = Path(asked["cwd"]) if os.path.isdir(asked["cwd"]) else Path.home()
    target = Target(python=asked["python"] or None, env=env, cwd=cwd)
    trouble = ""
    if asked["launch"]:
        try:
            launch = read_launch(asked["launch"], env, cwd)
            target = replace(target, launch=launch, plan=launch.main)
        except LaunchError as why:
            trouble = str(why)
    found = endpoints(target)
    if not found and env.get("MASTER_ADDR"):
        port = env.get("MASTER_PORT", "")
        found = (Endpoint(env["MASTER_ADDR"], int(port) if port.isdigit() else None, "env"),)
    return replace(target, endpoints=found), trouble


def _only_its_python(target: Target) -> Target:
    """Without the launch torch is not imported, which would take seconds; its files tell enough."""
    named = interpreter(target) if target.plan else target.python
    return replace(target, python=named, plan=None, launch=None, script=None)


def _live() -> Iterator[LaunchPlan]:
    """Launchers of ours that run on this node now."""
    for name in os.listdir("/proc"):
        try:
            if not name.isdigit() or os.stat(f"/proc/{name}").st_uid != os.getuid():
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = os.fsdecode(file.read(1 << 16)).split("\0")[:-1]
            if not any(w.endswith(("/torchrun", "torch.distributed.run")) for w in words[:6]):
                continue
            plan = from_process(words, {}, Path("/"))
        except (OSError, LaunchError):
            continue
        if plan.nnodes is not None:
            yield plan


def _is_template(target: Target) -> bool:
    """One line for all nodes whose rank is a plain number: it was written for one of them."""
    launch = target.launch
    return launch is not None and launch.path is None and "$" not in launch.text


def _told(plan: LaunchPlan, env: dict[str, str], template: bool = False) -> Reply:
    seen = plan.environment(env)
    rank = plan.node_rank
    for name in () if rank is not None else ("PET_NODE_RANK", "NODE_RANK", "GROUP_RANK"):
        if seen.get(name, "").isdigit():
            rank = int(seen[name])
            break
    return {
        "host": plan.host,
        "nnodes": list(plan.nnodes) if plan.nnodes else None,
        "node_rank": rank,
        "rank_of_another": template and plan.node_rank is not None,
        "backend": plan.rdzv_backend,
        "rdzv_id": plan.rdzv_id,
        "endpoint": plan.rdzv_endpoint or f"{plan.master_addr or ''}:{plan.master_port or ''}",
    }


def trial(asked: dict[str, Any]) -> Reply:
    """This node's ranks of a trial whose other ranks are on other nodes."""
    from ddp_assist.probes.trial.run import run_trial
    from ddp_assist.probes.trial.spec import TrialSpec

    spec = TrialSpec(**{**asked["spec"], "ranks": tuple(asked["spec"]["ranks"])})
    result = run_trial(spec, cancel=GONE)
    return {**result.as_json(), "kind": result.kind}


GONE = threading.Event()
DOES = {"look": look, "listen": ways.listen, "connect": ways.connect, "trial": trial}


def main() -> None:
    token = sys.argv[1]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(_swept(1)))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def lifeline() -> None:
        for line in sys.stdin.buffer:
            requests.put(line)
        _swept(0)  # at once: whoever ends this node's processes next must find nothing to leave
        GONE.set()
        requests.put(b"")
        time.sleep(3)  # for a trial in progress to end its ranks
        os._exit(_swept(0))

    threading.Thread(target=lifeline, daemon=True).start()
    tell = {"did": "hello", "python": sys.version.split()[0], "time": time.time()}
    print(f"\n{MARK}{token} {json.dumps(tell)}", flush=True)
    while line := requests.get():
        asked = json.loads(line)
        try:
            answer = DOES[asked["do"]](asked)
        except Exception as fault:  # noqa: BLE001 - a node that stumbles says so, in its one line
            answer = {"error": f"{type(fault).__name__}: {fault}"}
        answer["did"] = asked["do"]
        print(f"\n{MARK}{token} {json.dumps(answer, default=str)}", flush=True)


def _swept(code: int) -> int:
    shutil.rmtree(sys.path[0], ignore_errors=True)
    return code


if __name__ == "__main__":
    main()
