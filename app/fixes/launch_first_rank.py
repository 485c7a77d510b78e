"""A launch that sends every rank but the first to other hosts: rank 0 started here, met here."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from ddp_assist.app.fixes.launch_words import (
    PLAIN,
    as_fix,
    edited,
    meeting,
    option_name,
    placed,
    set_option,
    set_variable,
)
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.judging import is_static, rank
from ddp_assist.probes.launch.launchers import ELASTIC, whole
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan, Span
from ddp_assist.probes.launch.write import Edit, fitting


def first_rank_here(situation: Situation) -> Fix | None:
    """Only where the launch leaves rank 0 to whoever starts it, and nobody is where they meet."""
    own = next((f.data.get("own") for f in situation.speaks_for if f.probe == "aside"), None)
    plans = situation.target.plans
    if not own or not _all_but_the_first(situation, plans):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan is plans[0]:
            yield _first(launch, plan, own)
        if plan.launcher not in PLAIN:
            yield set_option(launch, plan, "master-addr", own)
        elif plan.assignment("MASTER_ADDR") is not None:
            yield set_variable(launch, plan, "MASTER_ADDR", own)

    launch = edited(situation, rule)
    return as_fix(
        situation, f"meet at {own}, this host, and start rank 0 here", launch,
        does_not="where another command starts rank 0, take its address, and leave this line out",
        trial=launch and meeting(situation, launch),
    )  # fmt: skip


def _all_but_the_first(situation: Situation, plans: Sequence[LaunchPlan]) -> bool:
    sizes = {
        whole(p.environment(situation.target.env).get("WORLD_SIZE"))
        if p.launcher in PLAIN
        else (p.nnodes or (1, 1))[1]
        for p in plans
    }
    size = sizes.pop() if len(sizes) == 1 else None
    numbers = [rank(p) if p.launcher in PLAIN else p.node_rank for p in plans]
    known = all(p.launcher in PLAIN or (p.launcher in ELASTIC and is_static(p)) for p in plans)
    sent = all(p.host and not p.scheduler for p in plans)
    sure = not any(p.repeated or p.conditional for p in plans)
    return known and sent and sure and size is not None and numbers == [*range(1, size)]


def _first(launch: Launch, plan: LaunchPlan, own: str) -> Edit:
    """The line of another rank, sent to this host by the same words."""
    start, end = plan.span
    if start > 0 and launch.text[start - 1] != "\n":
        raise LaunchError("the line of a rank can't be taken apart")
    changes = {_number(plan): "0", _sender(launch, plan): socket.gethostname()}
    if (address := _address(plan)) is not None and start <= address[0] < end:
        changes[address] = own
    text = launch.text[start:end]
    for (first, last), new in sorted(changes.items(), reverse=True):
        if not start <= first <= last <= end:
            raise LaunchError("the number of a rank does not stand in its own line")
        word = fitting(launch, (first, last), new)
        text = text[: first - start] + word + text[last - start :]
    return Edit((start, start), f"{text} &\ntrap wait EXIT\n")


def _number(plan: LaunchPlan) -> Span:
    name = option_name(plan, "node-rank")
    given = plan.assignment("RANK") if plan.launcher in PLAIN else plan.option(name)
    span = given.value_span if given is not None else None
    if span is None:
        raise LaunchError("the number of a rank can't be replaced")
    return span


def _address(plan: LaunchPlan) -> Span | None:
    if plan.launcher in PLAIN:
        given = plan.assignment("MASTER_ADDR")
        return given.value_span if given is not None else None
    option = plan.option(option_name(plan, "master-addr"))
    return option.value_span if option is not None else None


def _sender(launch: Launch, plan: LaunchPlan) -> Span:
    """The name of the host in the words that send a rank there."""
    at = placed(plan, plan.launcher_span[0])
    before = launch.text[plan.span[0] : at].rstrip()
    if plan.host is None or plan.prefix[-1:] != (plan.host,) or not before.endswith(plan.host):
        raise LaunchError("what sends a rank to its host can't be told from the rest of its line")
    end = plan.span[0] + len(before)
    return end - len(plan.host), end
