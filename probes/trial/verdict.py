"""From the events of a trial to its result: which stage failed, and which ranks are missing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from ddp_assist.probes.trial.errors import CONSEQUENCES, explain
from ddp_assist.probes.trial.spec import STAGES, Stage, TrialResult, TrialSpec

OnStage = Callable[[Stage], None]
ONCE = ("python", "torch-import", "backend", "name", "listen")
"""Stages that are asked once for all ranks; with NCCL each rank has a word about the backend."""
UNDER_TORCHRUN = (
    "python", "rendezvous", "torch-import", "backend", "group", "all-reduce", "clean-up",
)  # fmt: skip
"""There the agents meet first, and every rank is a fresh process."""


class Course:
    """What has been heard of one trial so far."""

    def __init__(self, spec: TrialSpec, on_stage: OnStage | None = None) -> None:
        self.spec = spec
        self.on_stage = on_stage
        self.began = time.monotonic()
        self.ranks = spec.ranks or tuple(range(spec.nproc))
        self.once = ("python", "rendezvous") if spec.torchrun else ONCE
        self.stages: dict[tuple[str, int | None], Stage] = {}
        self.since: dict[tuple[str, int | None], float] = {}
        self.notes: list[str] = []
        self.address, self.port = spec.addr, spec.port
        self.versions: dict[str, str] = {}

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def tell(self, stage: Stage) -> None:
        key = stage.stage, stage.rank
        self.stages[key] = stage
        if stage.state == "begun":
            self.since[key] = time.monotonic()
        if self.on_stage:
            self.on_stage(stage)

    def hear(self, event: dict[str, Any]) -> None:
        """One event of the children. They run foreign code: nothing in it is taken on trust."""
        what = event["event"]
        rank = event.get("rank")
        rank = rank if isinstance(rank, int) and rank in self.ranks else None
        if what == "stage" and event.get("stage") in STAGES:
            self._hear_stage(event["stage"], rank, event)
        elif what == "exit" and rank is not None and event.get("code") != 0:
            self.ended(rank, _ending(event.get("code")))
        elif what == "refused":
            _, sentence = explain("python", event, self.spec.addr, self.port)
            self.fail("python", sentence, "not-started")
        elif what == "left":
            self._called_off(event.get("ranks"))
        elif what == "note":
            self.note(str(event.get("note"))[:500])

    def _hear_stage(self, stage: str, rank: int | None, event: dict[str, Any]) -> None:
        state = event.get("state")
        took = event.get("seconds")
        seconds = float(took) if isinstance(took, (int, float)) else 0.0
        pid = event.get("pid")
        if state == "begun":
            pid = pid if isinstance(pid, int) else None
            self.tell(Stage(stage, rank, state="begun", pid=pid))
        elif state == "passed":
            names = ("port", "ip", "version", "file", "executable", "gpu", "index", "free_mib",
                     "took_mib", "nccl")  # fmt: skip
            facts = {n: event[n] for n in names if isinstance(event.get(n), (str, int))}
            if stage == "listen" and isinstance(facts.get("port"), int):
                self.port = facts["port"]
            if stage == "name":
                self.address = str(facts.get("ip") or self.address)
            if stage in ("python", "torch-import") and "version" in facts:
                self.versions[stage.partition("-")[0]] = str(facts["version"])
            if facts.get("nccl"):
                self.versions["NCCL"] = str(facts["nccl"])
            self.tell(Stage(stage, rank, seconds, facts=facts))
        elif state == "failed":
            kind, sentence = explain(stage, event, self.spec.addr, self.port)
            self.tell(Stage(stage, rank, seconds, sentence, "failed", kind))

    def fail(self, stage: str, error: str, kind: str, rank: int | None = None) -> None:
        now = time.monotonic()
        seconds = now - self.since.get((stage, rank), now)
        self.tell(Stage(stage, rank, seconds, error, "failed", kind))

    def ended(self, rank: int, how: str) -> None:
        """A rank's process is gone: it failed where it was, unless it has said so itself."""
        mine = [s for (_, r), s in self.stages.items() if r == rank]
        if any(s.state == "failed" for s in mine):
            return
        stage = next((s.stage for s in mine if s.state == "begun"), None) or self._next(rank)
        self.fail(stage, f"the process of rank {rank} {how}", "ended", rank)

    def _next(self, rank: int) -> str:
        """The stage after those that this rank has told of."""
        told = {stage for stage, who in self.stages if who == rank}
        own = [stage for stage in self.wanted() if stage not in self.once]
        return next((stage for stage in own if stage not in told), own[-1])

    def _called_off(self, ranks: object) -> None:
        """Ranks that still ran when the trial was over, because another had failed for good."""
        failed = {r for (_, r), s in self.stages.items() if s.state == "failed" and r is not None}
        if failed and isinstance(ranks, list):
            who = ", ".join(map(str, sorted(failed)))
            why = f"ended while it waited: rank {who} had failed"
            for (stage, rank), it in list(self.stages.items()):
                if it.state == "begun" and rank in ranks and rank not in failed:
                    self.fail(stage, why, "left", rank)

    def close(self, why: str) -> None:
        """No more will be heard: what has begun and not ended did not end in time."""
        for (stage, rank), it in list(self.stages.items()):
            if it.state == "begun":
                self.fail(stage, why, "left", rank)

    def wanted(self) -> list[str]:
        """The stages of this trial, in their order."""
        if self.spec.torchrun:
            nccl = self.spec.backend == "nccl"
            return [stage for stage in UNDER_TORCHRUN if nccl or stage != "backend"]
        skipped = {"group", "all-reduce"} if self.spec.backend == "store" else set()
        if self.spec.init == "file" or 0 not in self.ranks:
            skipped.add("listen")
        return [stage for stage in STAGES if stage not in skipped]

    def of(self, stage: str) -> dict[int | None, Stage]:
        return {rank: it for (name, rank), it in self.stages.items() if name == stage}

    def result(self, log: str) -> TrialResult:
        outcome, missing, kind, reason = self._judge()
        order = {stage: place for place, stage in enumerate(STAGES)}
        stages = sorted(
            (s for s in self.stages.values() if s.state != "begun"),
            key=lambda s: (order[s.stage], -1 if s.rank is None else s.rank),
        )
        failed = [s for s in stages if s.error]
        result = TrialResult(
            backend=self.spec.backend,
            nproc=self.spec.nproc,
            outcome=outcome,
            missing=missing,
            stages=tuple(stages),
            seconds=time.monotonic() - self.began,
            address=self.address,
            port=self.port,
            errors=tuple(dict.fromkeys(str(s.error) for s in failed)),
            notes=tuple(self.notes),
            log=log,
            kind=kind,
            versions=self.versions,
        )
        return replace(result, sentence=_sentence(result, reason))

    def _judge(self) -> tuple[str, tuple[int, ...], str, str]:
        """The stage that failed, who did not pass it, and the error that explains it.

        A rank with a trouble of its own is believed before those who only noticed it, who may be
        further behind; else it is the first stage that not all passed."""
        for own_only in (True, False):
            for stage in self.wanted():
                seen = self.of(stage)
                failed = [s for s in seen.values() if s.state == "failed"]
                own = [s for s in failed if s.kind not in CONSEQUENCES]
                if own:
                    return (stage, self._lost(own), own[0].kind, str(own[0].error))
                if not own_only and (lacking := self._lacking(stage, seen)):
                    kind, why = (failed[0].kind, str(failed[0].error)) if failed else ("left", "")
                    why = why or "it was not reached"
                    return stage, self._missing(stage, seen, failed, lacking), kind, why
        return "joined", (), "", ""

    def _lacking(self, stage: str, seen: dict[int | None, Stage]) -> list[int | None]:
        """Who did not pass: ranks, or None for all at once."""
        asked: list[int | None] = [None] if stage in self.once else list(self.ranks)
        return [who for who in asked if who not in seen or seen[who].state != "passed"]

    def _lost(self, own: list[Stage]) -> tuple[int, ...]:
        """Ranks with a trouble of their own; when all fail alike, no rank is the missing one."""
        ranks = sorted(s.rank for s in own if s.rank is not None)
        return tuple(ranks) if len(ranks) < max(self.spec.nproc, 2) else ()

    def _missing(
        self, stage: str, seen: dict[int | None, Stage], failed: list[Stage],
        lacking: list[int | None],
    ) -> tuple[int, ...]:  # fmt: skip
        """Ranks that never came to this stage, rather than those that waited there for them."""
        ranks = [who for who in lacking if who is not None]
        elsewhere = tuple(r for r in range(self.spec.nproc) if r not in self.ranks)
        together = ("rendezvous", "group", "all-reduce", "clean-up")
        return (
            _absent(failed)
            or tuple(r for r in ranks if r not in seen)
            or (elsewhere if stage in together else ())
            or (tuple(ranks) if len(ranks) < self.spec.nproc else ())  # all stand there: none lacks
        )


def _absent(failed: Iterable[Stage]) -> tuple[int, ...]:
    """Ranks that all who waited in the rendezvous name as absent."""
    named = [
        {int(n) for n in s.error.partition("ranks [")[2].partition("]")[0].split(",") if n.strip()}
        for s in failed
        if s.kind == "absent" and s.error and "ranks [" in s.error
    ]
    return tuple(sorted(set.intersection(*named))) if named else ()


def _ending(code: object) -> str:
    if isinstance(code, int) and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"was ended by {name}"
    return f"ended with code {code}"


def _sentence(result: TrialResult, reason: str) -> str:
    many = "1 rank" if result.nproc == 1 else f"{result.nproc} ranks"
    with_what = "the store" if result.backend == "store" else result.backend
    if result.joined:
        at = f" at {result.address} port {result.port}" if result.port else ""
        did = "met" if result.backend == "store" else "joined, and their all_reduce is right"
        return f"{many} of {with_what} {did}{at} ({result.seconds:.1f} s)"
    who = ""
    if result.missing:
        one = len(result.missing) == 1
        who = f"; {'rank' if one else 'ranks'} {', '.join(map(str, result.missing))} "
        if result.kind in CONSEQUENCES:
            who += "is missing" if one else "are missing"
        else:
            who += "failed there"
    return f"{many} of {with_what} did not get through {result.outcome}{who}: {reason}"
