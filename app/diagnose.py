"""The walk without a screen: what was given is read, the machine is asked, causes are ranked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from shutil import which
from typing import Any

from ddp_assist.app.question import Question as Question
from ddp_assist.app.tree import Symptom, Tree, load, recognised
from ddp_assist.app.walk import Ranked, rank
from ddp_assist.probes.catalogue import READERS, of_the_network, of_this_host, probes
from ddp_assist.probes.jobs.target import elsewhere, launch_of, logs_of
from ddp_assist.probes.launch import check
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan
from ddp_assist.probes.launch.quoted import NOWHERE, launches
from ddp_assist.probes.launch.read import read_launch, reread
from ddp_assist.probes.logs.reading import read_so_far
from ddp_assist.probes.model import Finding, Probe, Target, Weight, unknown
from ddp_assist.probes.network.endpoints import endpoints
from ddp_assist.probes.network.scope import is_submitted, runs_elsewhere
from ddp_assist.probes.runner import Told, run
from ddp_assist.probes.script.facts import collector_rests
from ddp_assist.probes.script.whereabouts import whereabouts

_MOST_QUOTED = 8
_ELSEWHERE = (
    "the job has a network namespace of its own: `nsenter -n -t PID ddp-assist ...` looks there"
)
# What the check of a launch learns from files of this host.
_LOOKS_HERE = frozenset({"hostfile-invalid", "local-rank-argument"})
COMPLAINTS = frozenset({"log", "story", "flight-recorder", "ras", "job", "store-peek"})
"""Probes that tell what went wrong; the others tell what is wrong here."""


@dataclass(slots=True)
class Diagnosis:
    """What was seen and what follows from it."""

    question: Question
    target: Target
    findings: tuple[Finding, ...] = ()
    symptom: Symptom | None = None
    ranked: list[Ranked] = field(default_factory=list)
    asked: frozenset[str] = frozenset()
    weights: Mapping[str, Weight] = field(default_factory=dict)
    seconds: float = 0.0
    trial: Mapping[str, Any] | None = None
    """What the last trial told, stage by stage."""
    changed: list[str] = field(default_factory=list)
    """What was done to this machine on the user's word."""

    @property
    def causes(self) -> list[Ranked]:
        return [r for r in self.ranked if r.hidden_by is None and r.cause != "benign"]

    @property
    def noise(self) -> list[Finding]:
        return [f for f in self.findings if self.weights.get(f.key) == "noise"]

    @property
    def unanswered(self) -> list[Finding]:
        return [f for f in self.findings if f.outcome == "unknown"]


def target_of(question: Question) -> Target:
    """What the words of the user point at."""
    launch: Launch | None = None
    if question.launch:
        launch = read_launch(list(question.launch), question.env, question.cwd)
    env = question.env
    if launch is None and question.job is not None:
        launch, env = launch_of(question.job)
        env = env or question.env
    plan = launch.main if launch else None
    script = question.script
    if script is None and plan is not None:
        script = plan.script_path
    return Target(
        plan=plan,
        launch=launch,
        script=script,
        logs=question.logs or (logs_of(question.job) if question.job is not None else ()),
        job=question.job,
        may_touch=question.may_touch,
        beside=question.beside,
        python=question.python,
        env=env,
        cwd=plan.cwd if plan else question.cwd,
    )


def is_here(target: Target) -> bool:
    """Whether what was given belongs to this machine, so that looking at it can tell anything.

    A log may come from anywhere: it is from here when what it belongs to is here.
    """
    if target.job is not None or not target.logs:
        return True
    if target.script is not None and target.script.exists():
        return True
    return any(_starts_here(plan) for plan in target.plans)


def _starts_here(plan: LaunchPlan) -> bool:
    """Whether this command could have been started here: its script, or its launcher, is there."""
    if plan.script_path is not None:
        return plan.script_path.exists()
    program = plan.words[0] if plan.words else plan.launcher
    return which(program, path=plan.environment(os.environ).get("PATH")) is not None


def _quoted(target: Target) -> Iterator[Launch]:
    """The launches that the logs quote."""
    texts = [line.text for log in read_so_far(target.logs) for line in log.lines()]
    yield from islice(launches(texts), _MOST_QUOTED)


def _by_its_words(launch: Launch) -> Iterator[Finding]:
    """What is wrong with a launch of some other host, as far as its words alone can tell."""
    elsewhere = reread(replace(launch, env={}, cwd=NOWHERE), launch.text)
    target = Target(plan=elsewhere.main, launch=elsewhere, env={}, cwd=NOWHERE)
    for finding in check.look(target):
        if check.OUTCOMES[finding.outcome] == "bad" and finding.outcome not in _LOOKS_HERE:
            yield finding


def look(
    target: Target,
    told: Told | None = None,
    cancel: threading.Event | None = None,
    deadline: float | None = None,
    choose: Callable[[Probe], bool] = lambda probe: True,
) -> tuple[Target, tuple[Finding, ...], frozenset[str]]:
    """Reads what was given first, then asks the machine where that points."""
    chosen = [p for p in probes() if choose(p) and (target.may_touch or not p.disturbs)]
    readers = [p for p in chosen if p.id in READERS]
    begun = time.monotonic()
    seen = run(readers, target, told, cancel, deadline)
    here = is_here(target)
    if not here or target.launch is None:
        for launch in [target.launch] if target.launch else _quoted(target):
            seen += tuple(_by_its_words(launch))
    target = replace(target, seen=seen)
    scripted, backend = whereabouts(target)
    target = replace(target, endpoints=endpoints(target, scripted), backend=backend)
    others = [p for p in chosen if p.id not in READERS] if here else []
    if runs_elsewhere(target) or is_submitted(target):
        others = [p for p in others if p.id not in of_this_host()]
    if target.job is not None and elsewhere(target.job) is not None:
        blind = of_the_network()
        seen += tuple(unknown(p.id, _ELSEWHERE) for p in others if p.id in blind)
        others = [p for p in others if p.id not in blind]
    left = None if deadline is None else max(0.1, deadline - (time.monotonic() - begun))
    seen += run(others, target, told, cancel, left)
    asked = frozenset(p.id for p in (*readers, *others) if p.applies(replace(target, seen=seen)))
    return replace(target, seen=seen), seen, asked


@cache
def weights() -> Mapping[str, Weight]:
    """What each answer weighs, by its key."""
    return {f"{p.id}.{name}": weight for p in probes() for name, weight in p.outcomes.items()}


def conclude(diagnosis: Diagnosis, tree: Tree | None = None) -> Diagnosis:
    """Ranks the causes from what is known now; nothing is asked again."""
    tree = tree or load()
    picked = tree.symptoms.get(diagnosis.question.symptom or "")
    complaints = [f for f in diagnosis.findings if f.probe in COMPLAINTS]
    complained = [picked] if picked else recognised(tree, complaints)
    diagnosis.symptom = (
        complained[0] if complained else next(iter(recognised(tree, diagnosis.findings)), None)
    )
    diagnosis.weights = weights()
    diagnosis.ranked = rank(
        tree, diagnosis.findings, complained, diagnosis.asked, diagnosis.weights
    )
    return diagnosis


@collector_rests()
def diagnose(
    question: Question,
    told: Told | None = None,
    cancel: threading.Event | None = None,
    deadline: float | None = None,
) -> Diagnosis:
    begun = time.monotonic()
    unread: tuple[Finding, ...] = ()
    try:
        target = target_of(question)
    except LaunchError as why:
        if not question.logs:
            raise
        # A log of another host often comes with words about its launch that are no command here.
        target = target_of(replace(question, launch=()))
        unread = (unknown("plan", str(why)),)
    target, findings, asked = look(target, told, cancel, deadline)
    diagnosis = conclude(Diagnosis(question, target, (*unread, *findings), asked=asked))
    diagnosis.seconds = round(time.monotonic() - begun, 3)
    return diagnosis
