"""The full thing: ranks started by the real torchrun with the options of the launch (`--full`)."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

from ddp_assist.probes.trial.guarded import CHILDREN, Guard
from ddp_assist.probes.trial.spec import GPU_MIB, Stage, TrialSpec
from ddp_assist.probes.trial.verdict import Course

WILDCARD = (
    "torchrun opens its own store, which listens on every interface while the trial runs"
)  # fmt: skip
OWN_PROC = "CUDA looks its own process up in /proc, where a namespace has another number for it"
NO_NAMESPACE = (
    "no PID namespace could be had ({why}): if ddp-assist and its guard are both killed, ranks end "
    "by their own lifeline"
)


def run_under_torchrun(
    spec: TrialSpec, python: str, env: dict[str, str | None], course: Course, until: float,
    cancel: threading.Event | None,
) -> str:  # fmt: skip
    """Hear the course of it; returns the log."""

    def command(shelter: Path) -> tuple[str, ...]:
        os.mkfifo(shelter / "events", 0o600)
        plan = {"backend": spec.backend, "until": until, "events": str(shelter / "events"),
                "shelter": str(shelter), "gpu_mib": GPU_MIB}
        (shelter / "plan.json").write_text(json.dumps(plan))
        run = ("-m", "torch.distributed.run", *spec.torchrun)
        return (*run, str(CHILDREN / "rank.py"), str(shelter / "plan.json"))

    course.note(WILDCARD)
    inside = spec.backend != "nccl"
    if not inside:
        course.note(NO_NAMESPACE.format(why=OWN_PROC))
    guard = Guard(python, env, spec.cwd, spec.deadline + 1.0, command, namespace=inside)
    log = ""
    try:
        # Opened for writing too, so that it never reads as ended while ranks come and go.
        events = os.open(guard.shelter.path / "events", os.O_RDWR | os.O_NONBLOCK)
        guard.listen(events)
        try:
            _hear(guard, course, until, cancel)
        finally:
            guard.forget(events)
            os.close(events)
    finally:
        log = guard.end()
    if ("rendezvous", None) not in course.stages and not (cancel and cancel.is_set()):
        late = time.monotonic() >= until
        said = "it waited for other nodes until the end" if late else last_error(log)
        kind = "left" if late else "no-rank"
        course.fail("rendezvous", f"torchrun started no rank: {said}", kind)
    return log


def _hear(guard: Guard, course: Course, until: float, cancel: threading.Event | None) -> None:
    for event in guard.events(until + 0.5, cancel):
        if event["event"] != "noise" and ("python", None) not in course.stages:
            course.tell(Stage("python"))  # it runs the guard, which speaks, or a rank
        if event["event"] == "ended":
            return
        if event["event"] == "namespace" and not event.get("have"):
            course.note(NO_NAMESPACE.format(why=str(event.get("why"))[:100]))
        if event["event"] == "stage" and ("rendezvous", None) not in course.stages:
            course.tell(Stage("rendezvous"))  # the agents have met, for a rank speaks
        course.hear(event)


def last_error(log: str) -> str:
    """The line of a traceback or warning that says what was wrong, as far down as there is one."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        head = line.split(":", 1)[0]
        if head.endswith(("Error", "Exception", "error")) and " " not in head:
            return line[:400]
    return lines[-1][:400] if lines else "it said nothing"
