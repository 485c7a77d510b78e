"""The hosts that one command is to start, in their order, against the nodes that were asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ddp_assist.app.fixes.for_nodes import in_one_piece, spread
from ddp_assist.app.nodes import planned
from ddp_assist.probes.fleet.compare import folded
from ddp_assist.probes.fleet.links import addresses
from ddp_assist.probes.fleet.meeting import Meeting
from ddp_assist.probes.fleet.part import alike
from ddp_assist.probes.launch.check_words import hostfile
from ddp_assist.probes.launch.hosts import listed
from ddp_assist.probes.launch.judging import is_static, say
from ddp_assist.probes.model import Finding, Target


def as_started_here(
    found: Iterable[Finding], target: Target, meeting: Meeting,
    texts: Mapping[Path, str] | None = None,
) -> tuple[Finding, ...]:  # fmt: skip
    """A hostfile is read where the job is started: what lies on the nodes themselves says nothing.
    `texts` are files as they are to be."""
    others = (f for f in found if f.key != "plan.hostfile-invalid")
    mine = (*hostfile(target, texts), *_strangers(target, meeting, texts or {}))
    return (*others, *mine[:1], *_rank_0(target, meeting))


def first_node(target: Target, meeting: Meeting) -> str | None:
    """Where rank 0 is started, if one command starts the nodes in an order that is known."""
    launch = target.launch
    if launch is None or spread(launch) or not in_one_piece(launch):
        return None
    names = [*planned(target), *(meeting.names if meeting.env else ())]
    return next((name for name in names if name in meeting.names), None)


def _rank_0(target: Target, meeting: Meeting) -> Iterator[Finding]:
    """Agents that agree on the ranks meet anywhere; a step of one node may be any of several."""
    first, hub = first_node(target, meeting), meeting.hub
    plan = target.plans[0] if len(target.plans) == 1 else None
    if plan is None or plan.repeated or plan.tasks == 1 or plan.option("srun-relative"):
        return
    if first is not None and hub not in (None, first) and is_static(plan):
        sentence = f"the ranks are to meet on {hub}, but rank 0 is started on {first}"
        yield Finding("fleet", "master-elsewhere", sentence, {"node": first, "host": hub})


def _strangers(target: Target, meeting: Meeting, texts: Mapping[Path, str]) -> Iterator[Finding]:
    """Where some of them are among the nodes, the others may just not have been asked."""
    looks = [meeting.look_at(name) for name in meeting.seen]
    known = {*meeting.names, *(look["host"] for look in looks)}
    known |= {address for look in looks for address in addresses(look)}
    for plan in target.plans:
        text = texts.get(plan.cwd / (plan.hostfile or "hostfile"))
        hosts = listed(text) if text is not None else plan.hosts
        is_known = any(alike(host, *known) for host in hosts)
        if plan.starts_all and hosts and not is_known:
            sentence = f"{folded(hosts)} are to be started, and none of the nodes {folded(known)}"
            yield say(target, plan, "hostfile-invalid", sentence, hosts=list(hosts)[:64])
