"""Processes that are started alike get a rank each, and the store's host is chosen by it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddp_assist.app.fixes.launch_words import PLAIN, before, edited, set_variable
from ddp_assist.app.fixes.model import Builder, Fix, Situation
from ddp_assist.app.fixes.script_text import Text, append_argument, argument
from ddp_assist.probes.launch.plan import Launch, LaunchPlan
from ddp_assist.probes.script.read import ScriptError

_LOOP = re.compile(r"\bfor\s+(\w+)\s+in\s+([^;\n]+?)\s*[;\n]\s*do\b")


def host_by_rank(situation: Situation) -> Fix | None:
    """Only where nothing tells the processes apart yet: their lines are the same words."""
    plans = [p for p in situation.target.plans if p.launcher in PLAIN and not p.scheduler]
    alike = {(p.script_path, p.script_args, p.cwd) for p in plans}
    if len(plans) < 2 or len(alike) != 1 or any(p.conditional for p in plans):
        return None
    found = next((f for f in situation.speaks_for if f.data.get("col") is not None), None)
    if found is None or found.data.get("rank") or found.data.get("agent"):
        return None
    try:
        text = Text.of(Path(str(found.data["file"])))
        place = [int(found.data[k]) for k in ("line", "col", "end_line", "end_col")]
        call = text.node_at(place, ast.Call)
        if not isinstance(call, ast.Call):
            return None
        text.add_import("import os")
        chosen = 'os.environ["RANK"] == "0"'
        given = argument(call, "is_master", 3)
        if given is not None:
            text.replace(text.place(given), chosen)
        else:
            append_argument(text, call, f"is_master={chosen}")
        edit = text.corrected()
    except (ScriptError, OSError, KeyError, ValueError):
        return None
    if edit is None:
        return None
    launch = _numbered(situation, plans)
    if launch is None:
        return None
    title = "a rank for each process, and rank 0 hosts the store"
    return Fix(situation.cause, title, "edit", launch=launch, files=(edit,))


def _numbered(situation: Situation, plans: Sequence[LaunchPlan]) -> Launch | None:
    """The launch with RANK=0 and on for its lines, or with the loop's counter for its one line."""
    number = {id(plan): str(rank) for rank, plan in enumerate(plans)}
    if {p.env.get("RANK") for p in plans} == set(number.values()):
        return situation.target.launch
    spans = {p.span for p in plans}
    if len(spans) == len(plans) and not any(p.repeated for p in plans):
        return edited(
            situation,
            lambda launch, plan: (
                [set_variable(launch, plan, "RANK", number[id(plan)])] if id(plan) in number else []
            ),
        )
    counter = _counter(situation.target.launch, plans)
    if len(spans) != 1 or counter is None or plans[0].assignment("RANK"):
        return None
    return edited(situation, lambda _, plan: [before(plan, f"env RANK=${counter}")])


def _counter(launch: Launch | None, plans: Sequence[LaunchPlan]) -> str | None:
    """What the loop around the plans' one line calls its turns, where it counts them from 0."""
    heads = list(_LOOP.finditer(launch.text, 0, plans[0].span[0])) if launch is not None else []
    last = len(plans) - 1
    counted = (" ".join(map(str, range(len(plans)))), f"{{0..{last}}}", f"$(seq 0 {last})")
    return heads[-1][1] if heads and " ".join(heads[-1][2].split()) in counted else None


BUILDERS: Mapping[str, Builder] = {"host-by-rank": host_by_rank}
