"""A trial as plain text: while it runs, one line a rank; afterwards, what came of it."""

from __future__ import annotations

from ddp_assist.probes.trial.spec import STAGES, Stage, TrialResult

_WORD = {"begun": "...", "passed": "ok", "failed": "FAILED"}


def line(stage: Stage) -> str:
    """One change, as a line of a running commentary."""
    who = "all ranks" if stage.rank is None else f"rank {stage.rank}"
    text = f"{who:<10} {stage.stage:<13} {_WORD[stage.state]}"
    if stage.state != "begun":
        text += f" {_took(stage.seconds)}"
    return f"{text}  {stage.error}" if stage.error else text


class Picture:
    """Stages as they come, as `on_stage`: `lines()` is the picture of this moment."""

    def __init__(self) -> None:
        self.stages: dict[tuple[str, int | None], Stage] = {}

    def __call__(self, stage: Stage) -> None:
        self.stages[stage.stage, stage.rank] = stage

    def lines(self) -> list[str]:
        """First what is asked once for all, then each rank and how far it is."""
        once = [s for (name, rank), s in self.stages.items() if rank is None and name in STAGES]
        drawn = [_row("all ranks", sorted(once, key=_place))] if once else []
        for rank in sorted({rank for _, rank in self.stages if rank is not None}):
            own = [s for (_, who), s in self.stages.items() if who == rank]
            drawn.append(_row(f"rank {rank}", sorted(own, key=_place)))
        return drawn


def _place(stage: Stage) -> int:
    return STAGES.index(stage.stage)


def _took(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _row(who: str, stages: list[Stage]) -> str:
    return f"{who:<10} " + "  ".join(f"{s.stage} {_WORD[s.state]}" for s in stages)


def render(result: TrialResult) -> str:
    """The whole result: picture, sentence, errors, notes."""
    picture = Picture()
    for stage in result.stages:
        picture(stage)
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [*picture.lines(), "", result.sentence]
    lines += [f"  {s.stage}{_of(s)}: {s.error}" for s in result.stages if s.error]
    lines += [f"  tried {_env(e)}: {e['outcome']}" for e in result.experiments]
    lines += [f"  note: {note}" for note in result.notes]
    lines += [f"  seen with {versions}"] if versions else []
    lines += [f"  log: {result.log_path}"] if result.log_path else []
    return "\n".join(lines)


def _of(stage: Stage) -> str:
    return "" if stage.rank is None else f", rank {stage.rank}"


def _env(experiment: object) -> str:
    env = experiment.get("env", {}) if isinstance(experiment, dict) else {}
    return " ".join(f"{name}={value}" for name, value in env.items())
