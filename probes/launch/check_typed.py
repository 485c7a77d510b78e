"""What an editor or a web page breaks in a command: continued lines, and the dashes of options."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ddp_assist.probes.launch.judging import say
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target

BLANK_BEHIND = re.compile(r"(?<=\\)[ \t]+$")
LEFT_BEHIND = re.compile(r"[^\n\\;&|#]*(?P<end>)\n[ \t]*(?P<word>--?[A-Za-z][\w-]*)")
LONG_DASH = re.compile(r"(?:(?<=\s)|^)[\u2012-\u2015](?=[A-Za-z])")


def typed(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        if target.launch is not None and plan.editable and plan.span[0] >= 0:
            yield from _broken(target, plan, target.launch.text)


def _broken(target: Target, plan: LaunchPlan, text: str) -> Iterator[Finding]:
    start, end = plan.span
    close = text.find("\n", max(start, end - 1))
    line = text[start : close if close >= 0 else len(text)]
    if blank := BLANK_BEHIND.search(line):
        number = text.count("\n", 0, start + blank.start()) + 1
        sentence = (
            f"there is a blank behind the backslash at the end of line {number} of the launch, so "
            "the command ends there"
        )
        yield _lost(target, plan, sentence, "blank-behind", start + blank.start(), blank[0])
    elif left := LEFT_BEHIND.match(text, end):
        sentence = (
            f"the line before {left['word'][:60]} ends without a backslash, so the shell takes it "
            "for a command of its own"
        )
        yield _lost(target, plan, sentence, "left-behind", left.start("end"), "")
    if dash := LONG_DASH.search(line):
        word = line[dash.start() :].split()[0]
        sentence = f"{word[:60]} begins with a long dash, which no launcher takes for an option"
        yield _lost(target, plan, sentence, "long-dash", start + dash.start(), dash[0])


def _lost(
    target: Target, plan: LaunchPlan, sentence: str, kind: str, at: int, there: str
) -> Finding:
    known = {"typed": kind, "typed_at": at, "typed_as": there}
    return say(target, plan, "launcher-flag-ignored", sentence, **known)
