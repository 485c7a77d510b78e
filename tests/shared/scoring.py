"""A text diagnosed as a pasted log, as the CLI does it, and whether what it says is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddp_assist.app.diagnose import Diagnosis, Question, diagnose

FIRST_FEW = 3


def told(text: str, folder: Path) -> Diagnosis:
    log = folder / "pasted.log"
    log.write_text(text, "utf-8")
    return diagnose(Question(logs=(str(log),), env={}, cwd=folder))


def right(case: dict[str, Any], causes: list[str]) -> tuple[bool, bool]:
    """Whether the first cause is acceptable, and whether the true one is among the first few."""
    if case["cause"] == "benign":
        fits = not causes or causes[0] in case.get("accept", ())
        return fits, fits
    wanted = {case["cause"], *case.get("accept", ())}
    return bool(causes) and causes[0] in wanted, case["cause"] in causes[:FIRST_FEW]
