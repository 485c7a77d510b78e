"""The hosts that a launch lists, against the nodes that were asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ddp_assist.probes.fleet.compare import folded
from ddp_assist.probes.fleet.links import addresses
from ddp_assist.probes.fleet.meeting import Meeting
from ddp_assist.probes.fleet.part import alike
from ddp_assist.probes.launch.check_words import hostfile
from ddp_assist.probes.launch.hosts import listed
from ddp_assist.probes.launch.judging import say
from ddp_assist.probes.model import Finding, Target


def as_started_here(
    found: Iterable[Finding], target: Target, meeting: Meeting,
    texts: Mapping[Path, str] | None = None,
) -> tuple[Finding, ...]:  # fmt: skip
    """A hostfile is read where the job is started: what lies on the nodes themselves says nothing.
    `texts` are files as they are to be."""
    others = (f for f in found if f.key != "plan.hostfile-invalid")
    mine = (*hostfile(target, texts), *_strangers(target, meeting, texts or {}))
    return (*others, *mine[:1])


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
