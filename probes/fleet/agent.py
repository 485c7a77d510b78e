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
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any

from ddp_assist.probes.fleet import part, ways
from ddp_assist.probes.fleet.parcel import MARK
from ddp_assist.probes.host.modules import told_by_node
from ddp_assist.probes.host.python import interpreter
from ddp_assist.probes.model import Finding, Probe, Target
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
    "host.place",
    "host.leftovers",
    "gpu.gpus",
)
COMPARED = ("NCCL_", "GLOO_", "TORCH_", "MASTER_", "UCX_", "FI_")
Reply = dict[str, Any]


def look(asked: dict[str, Any]) -> Reply:
    """The probes of this host, and what only makes sense beside the others' answers."""
    env = part.environment(asked)
    target, trouble = part.target(asked, env)
    findings = _findings(target, asked["seconds"])
    names = resolve(asked["names"])
    told = target.plan.environment(env) if target.plan else env
    return {
        "host": os.uname().nodename,
        "machine": os.uname().machine,
        "python": sys.version.split()[0],
        "interpreter": interpreter(target),
        "time": time.time(),
        "env": {k: v[:500] for k, v in sorted(told.items()) if k.startswith(COMPARED)},
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
        "plans": part.plans(target, env),
        "endpoints": [[e.host, e.port] for e in target.endpoints],
        "trouble": trouble,
        "findings": [asdict(f) for f in findings],
        "modules": told_by_node(target, asked.get("modules"), os.uname().nodename),
    }


def _findings(target: Target, seconds: float) -> tuple[Finding, ...]:
    every: list[Probe] = []
    for module in MODULES:
        every += import_module(f"ddp_assist.probes.{module}").PROBES
    first = [p for p in every if p.id not in ("torch", "gpu")]
    found = run(first, target, deadline=seconds)
    # Without the launch torch is not imported, which takes seconds; its files tell enough.
    named = interpreter(target) if target.plan else target.python
    bare = replace(target, python=named, plan=None, launch=None, script=None)
    torch = run([p for p in every if p.id == "torch"], bare, deadline=seconds)
    seen = (*found, *torch)
    gpus = run([p for p in every if p.id == "gpu"], replace(target, seen=seen), deadline=seconds)
    return (*seen, *gpus)


def trial(asked: dict[str, Any]) -> Reply:
    """This node's ranks of a trial whose other ranks are on other nodes."""
    from ddp_assist.probes.trial.spec import TrialSpec
    from ddp_assist.probes.trial.warm import WarmTorch

    global WARM
    TRIED.set()
    ways.close()
    env = part.environment(asked)
    target, _ = part.target(asked, env)
    told = target.plan.environment(env) if target.plan else env
    steered = {n: told.get(n) for n in {*env, *told} if n.startswith(part.STEERING)}
    python = interpreter(target)
    spec = TrialSpec(**{**asked["spec"], "ranks": tuple(asked["spec"]["ranks"]), "python": python,
                        "env": {**steered, **asked["spec"].get("env", {})}})  # fmt: skip
    if WARM is None or WARM.python != python:
        WARM = WarmTorch(python)
    result = WARM.run_trial(spec, cancel=GONE)
    return {**result.as_json(), "kind": result.kind, "took": sorted(steered)}


WARM: Any = None
GONE = threading.Event()
TRIED = threading.Event()
"""Set before the first trial makes anything that is to be taken away again."""
DOES = {"look": look, "listen": ways.listen, "connect": ways.connect, "trial": trial}


def main() -> None:
    token = sys.argv[1]
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(_swept(1)))
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def lifeline() -> None:
        for line in sys.stdin.buffer:
            requests.put(line)
        GONE.set()
        if not TRIED.is_set():
            os._exit(_swept(0))
        _swept(0)  # at once: whoever ends this node's processes next must find nothing to leave
        requests.put(b"")
        time.sleep(3)  # for a trial in progress to end its ranks
        os._exit(_swept(0))

    # Lent: the node's own pynvml comes first, where there is one.
    own = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{own}{os.pathsep if own else ''}{sys.path[0]}/lent"
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
    if WARM is not None:
        WARM.close()


def _swept(code: int) -> int:
    shutil.rmtree(os.path.dirname(sys.path[0]), ignore_errors=True)
    return code


if __name__ == "__main__":
    main()
