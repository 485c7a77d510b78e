"""`ddp-assist trial`: ranks meet here for a moment and do one all_reduce."""

from __future__ import annotations

import argparse
import json
import os
import sys

from ddp_assist.app.cli import FOUND, OK, UNREADABLE, Wrong
from ddp_assist.app.options import count, interpreter, parser, seconds
from ddp_assist.probes.trial.nccl import gpus_here
from ddp_assist.probes.trial.picture import line, render
from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import Stage, TrialSpec


def tell(stage: Stage) -> None:
    """Each stage as it is passed, on stderr; the picture of the whole comes on stdout."""
    say(line(stage))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 0,1") from None


def run(verb: str, words: list[str]) -> int:
    p = parser(verb, "Let ranks meet here and do one all_reduce.")
    p.add_argument("--backend", choices=("gloo", "nccl", "store"), default="gloo")
    p.add_argument("--nproc", type=count, metavar="N", help="ranks, 1 to 64 (2, or one per GPU)")
    p.add_argument("--gpus", type=numbers, default=(), metavar="0,1", help="the GPU of each rank")
    p.add_argument("--addr", default="127.0.0.1", metavar="A", help="the address to meet at")
    p.add_argument("--port", type=count, default=0, metavar="P", help="0 lets the kernel choose")
    p.add_argument("--interface", metavar="IF", help="the interface the backend must take")
    p.add_argument("--python", metavar="PY", help="the interpreter whose torch is tried")
    p.add_argument("--timeout", type=seconds, default=30.0, metavar="S", help="at most 60")
    p.add_argument("--init", choices=("env", "tcp", "file"), default="env", help="how they meet")
    p.add_argument("--full", action="store_true", help="under the real torchrun, c10d rendezvous")
    p.add_argument("--keep-log", action="store_true", help="keep what the ranks printed")
    p.add_argument("--json", action="store_true", help="print JSON")
    given = p.parse_args(words)
    if not 0 <= given.port < 65536:
        raise Wrong(f"{given.port} is no port (0 to 65535)")
    nproc = given.nproc
    if nproc is None:
        nproc = len(given.gpus) or 2
        if given.backend == "nccl" and not given.gpus:
            nproc = max(1, gpus_here(os.environ))
    try:
        spec = TrialSpec(
            backend=given.backend,
            nproc=nproc,
            gpus=given.gpus,
            addr=given.addr,
            port=given.port,
            python=given.python or interpreter(),
            interface=given.interface,
            deadline=given.timeout,
            keep_log=given.keep_log,
            init=given.init,
            torchrun=("--standalone", f"--nproc-per-node={nproc}") if given.full else (),
        )
        if spec.cost:
            say(spec.cost)
        result = run_trial(spec, None if given.json else tell, say=say)
    except ValueError as why:
        raise Wrong(str(why)) from why
    if given.json:
        json.dump(result.as_json(), sys.stdout, allow_nan=False, indent=1)
        print()
    else:
        print(render(result))
    if result.outcome == "joined":
        return OK
    return UNREADABLE if result.outcome == "python" else FOUND
