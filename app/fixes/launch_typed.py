"""A command put together again that an editor or a web page had broken."""

from __future__ import annotations

from collections.abc import Iterator

from ddp_assist.app.fixes.launch_words import as_fix, edited
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.check_typed import LONG_DASH
from ddp_assist.probes.launch.plan import Launch, LaunchPlan
from ddp_assist.probes.launch.write import Edit


def as_meant(situation: Situation) -> Fix | None:
    kind, at, there = (situation.value(name) for name in ("typed", "typed_at", "typed_as"))
    if not isinstance(kind, str) or not isinstance(at, int) or not isinstance(there, str):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if not plan.span[0] <= at <= len(launch.text):
            return
        if kind == "blank-behind":
            yield Edit((at, at + len(there)), "")
        elif kind == "left-behind":
            yield Edit((at, at), " \\")
        else:
            for dash in LONG_DASH.finditer(launch.text, *plan.span):
                yield Edit(dash.span(), "--")

    return as_fix(situation, "the command in one piece, as it was meant", edited(situation, rule))
