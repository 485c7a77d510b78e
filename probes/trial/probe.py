"""The trial as a probe: asked only when somebody asks for it, since it takes a second or more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ddp_assist.probes.model import Evidence, Finding, Probe, Target, Weight, unknown
from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import LONGEST, STAGES, SpecError, TrialResult, TrialSpec

OUTCOMES: Mapping[str, Weight] = {"joined": "ok", **dict.fromkeys(STAGES, "bad")}


def finding(result: TrialResult) -> Finding:
    """A trial's result in the words of the house."""
    data = result.as_json() | {"kind": result.kind, "host": result.address}
    see = ["ddp-assist", "trial", "--backend", result.backend, "--nproc", str(result.nproc)]
    if result.port:
        see += ["--addr", result.address, "--port", str(result.port)]
    lines = (*result.errors, *result.log.splitlines()[-20:])
    evidence = Evidence("a trial rendezvous on this host", lines, tuple(see))
    return Finding("trial", result.outcome, result.sentence, data, (evidence,), result.seconds)


def spec_for(target: Target) -> TrialSpec:
    """Two ranks with the target's interpreter and backend, on this host."""
    backend = target.backend if target.backend in ("gloo", "nccl") else "gloo"
    return TrialSpec(backend=backend, python=target.python)


def look(target: Target) -> Iterable[Finding]:
    try:
        yield finding(run_trial(spec_for(target)))
    except SpecError as problem:
        yield unknown("trial", str(problem))


PROBES = [
    Probe(
        id="trial",
        question="Do ranks join here, and does their first all_reduce come to the right sum?",
        outcomes=OUTCOMES,
        look=look,
        applies=lambda target: False,
        deadline=LONGEST,
        needs=frozenset({"torch"}),
    )
]
