"""A launch corrected for each node of a fleet: its rank, where all meet, what it is told to use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddp_assist.app.fixes.hostfile import is_in_words
from ddp_assist.app.fixes.launch_started import one_for_each_node, read_on_the_node
from ddp_assist.app.fixes.launch_tasks import own_variables
from ddp_assist.app.fixes.launch_words import (
    PLAIN,
    option_name,
    set_option,
    set_part,
    set_variable,
)
from ddp_assist.probes.fleet.part import alike
from ddp_assist.probes.launch.hosts import hosts_option, is_everywhere
from ddp_assist.probes.launch.launchers import ELASTIC, whole
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan
from ddp_assist.probes.launch.write import Edit, rewritten

NUMBERED = ELASTIC | {"accelerate", "deepspeed", "colossalai", "lightning"}
"""Launchers that are told of their node, and where to meet, by options."""
PASSED_ON = ("NCCL", "UCX", "PYTHON")
"""How the variables begin that DeepSpeed exports to the nodes it logs in to."""
AGREED = ("c10d", "etcd", "etcd-v2")
"""Rendezvous backends that give out the node ranks themselves."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What all nodes of one job must be told. None leaves what the launch says."""

    nodes: Sequence[str]
    """In the order of their ranks; the first hosts the rendezvous."""
    address: str | None = None
    port: int | None = None
    rdzv_id: str | None = None
    count: int | None = None
    ranks: bool = False
    """Whether node ranks are given out by the order of `nodes`: where they are wrong, and where the
    launch is one line with the rank of one node."""
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Variables for each node, e.g. the name of its interface."""
    hostfile: bool = False
    """Whether the hosts that the launch lists are to be the nodes."""
    called: Mapping[str, str] = field(default_factory=dict)
    """What a node calls itself, where that is not the name by which it was asked."""

    def place(self, host: str | None) -> int | None:
        """The rank of the node that a launch calls `host`."""
        found = (at for at, name in enumerate(self.nodes) if host and alike(host, name))
        return next(found, None)


def spread(launch: Launch) -> bool:
    """Whether one text starts the commands of several nodes."""
    return len({plan.host for plan in launch.plans if plan.host}) > 1


def in_one_piece(launch: Launch) -> bool:
    """Whether it is started once for all nodes: by a scheduler, or since it logs in itself."""
    by_itself = any(p.scheduler or p.starts_all or is_everywhere(p) for p in launch.plans)
    return spread(launch) or by_itself or launch.is_submitted


def for_all(launch: Launch, agreed: Agreement) -> dict[str, Launch]:
    """Each node's launch. Where one text starts all nodes, it is the same for all."""
    if spread(launch):
        edits = {
            e for p in launch.plans for e in _edits(launch, p, agreed, agreed.place(p.host))
        }
        return dict.fromkeys(agreed.nodes, rewritten(launch, edits) if edits else launch)
    if in_one_piece(launch):
        edits = {e for p in launch.plans for e in _in_one(launch, p, agreed)}
        return dict.fromkeys(agreed.nodes, rewritten(launch, edits) if edits else launch)
    found: dict[str, Launch] = {}
    known: dict[frozenset[Edit], Launch] = {frozenset(): launch}
    for rank, name in enumerate(agreed.nodes):
        same = frozenset(e for p in launch.plans for e in _edits(launch, p, agreed, rank))
        if same not in known:
            known[same] = rewritten(launch, same)
        found[name] = known[same]
    return found


def _in_one(launch: Launch, plan: LaunchPlan, agreed: Agreement) -> Iterator[Edit]:
    """What all nodes are told in the same words, and variables that differ in words for each."""
    own = {name: agreed.env.get(name, {}) for name in agreed.nodes}
    if any(env != own[agreed.nodes[0]] for env in own.values()):
        yield from own_variables(launch, plan, own, agreed.called)
        agreed = replace(agreed, env={})
    yield from _edits(launch, plan, agreed, 0)


def _edits(
    launch: Launch, plan: LaunchPlan, agreed: Agreement, rank: int | None
) -> Iterator[Edit]:
    node = agreed.nodes[rank] if rank is not None else ""
    for name, value in agreed.env.get(node, {}).items():
        alone = plan.launcher == "deepspeed" and plan.starts_all
        if alone and not name.startswith(PASSED_ON):
            raise LaunchError(f"deepspeed does not pass {name} on to the nodes")
        if plan.env.get(name) != value:
            yield set_variable(launch, plan, name, value)
    if plan.launcher in PLAIN:
        yield from _variables(launch, plan, agreed, rank)
    elif not plan.standalone and plan.launcher in NUMBERED:
        yield from _options(launch, plan, agreed, rank)


def _variables(
    launch: Launch, plan: LaunchPlan, agreed: Agreement, rank: int | None
) -> Iterator[Edit]:
    seen = plan.environment(launch.env)
    if agreed.ranks and not plan.scheduler and is_everywhere(plan):
        raise LaunchError(f"{plan.prefix[0]} starts the same words on each node")
    wanted = {"MASTER_ADDR": agreed.address, "MASTER_PORT": agreed.port}
    if agreed.ranks and not plan.scheduler and rank is not None and whole(seen.get("RANK")) != rank:
        yield set_variable(launch, plan, "RANK", str(rank))
    if agreed.count is not None and not plan.scheduler and "WORLD_SIZE" in seen:
        wanted["WORLD_SIZE"] = agreed.count
    for name, value in wanted.items():
        if value is not None and seen.get(name) != str(value):
            yield set_variable(launch, plan, name, str(value))


def _options(
    launch: Launch, plan: LaunchPlan, agreed: Agreement, rank: int | None
) -> Iterator[Edit]:
    if agreed.hostfile and is_in_words(plan):
        yield set_option(launch, plan, "host", ",".join(agreed.nodes))
    elif agreed.hostfile and plan.starts_all and hosts_option(plan) is None:
        name = "deepspeed-hostfile" if plan.launcher == "accelerate" else "hostfile"
        yield set_option(launch, plan, name, plan.hostfile or "hostfile")
    if plan.starts_all:
        agreed = replace(agreed, count=None, ranks=False)
    if agreed.count is not None and plan.nnodes and plan.nnodes[1] != agreed.count:
        yield set_option(launch, plan, "nnodes", str(agreed.count))
        if plan.launcher == "accelerate" and isinstance(plan.nproc, int):
            # It counts the processes of all machines: each keeps as many as it has.
            yield set_option(launch, plan, "nproc-per-node", str(plan.nproc * agreed.count))
    if agreed.ranks and plan.rdzv_backend not in AGREED and in_one_piece(launch) and not plan.host:
        yield from one_for_each_node(launch, plan, agreed.address, agreed.port)
        if plan.launcher in ELASTIC and not read_on_the_node(launch, plan):
            return
    elif agreed.ranks and plan.rdzv_backend not in AGREED and rank is not None:
        given = plan.option(option_name(plan, "node-rank"))
        if (plan.node_rank or 0) != rank or (given is not None and given.value is None):
            yield set_option(launch, plan, "node-rank", str(rank))
    if plan.rdzv_endpoint:
        yield from _endpoint(launch, plan, agreed)
    else:
        if agreed.address is not None and plan.master_addr != agreed.address:
            yield set_option(launch, plan, "master-addr", agreed.address)
        if agreed.port is not None and plan.master_port != str(agreed.port):
            yield set_option(launch, plan, "master-port", str(agreed.port))
    elastic = plan.launcher in ELASTIC and plan.rdzv_backend in AGREED
    if agreed.rdzv_id is not None and elastic and plan.rdzv_id != agreed.rdzv_id:
        yield set_option(launch, plan, "rdzv-id", agreed.rdzv_id)


def _endpoint(launch: Launch, plan: LaunchPlan, agreed: Agreement) -> Iterator[Edit]:
    endpoint = plan.rdzv_endpoint or ""
    host, colon, port = endpoint.rpartition(":")
    host, port = (host, port) if colon else (endpoint, "")
    new_host = agreed.address if agreed.address is not None else host
    new_port = str(agreed.port) if agreed.port is not None else port
    if (new_host, new_port) == (host, port):
        return
    if new_host == host and port:
        yield set_part(launch, plan, "rdzv-endpoint", (len(host) + 1, len(endpoint)), new_port)
    else:
        new_host = f"[{new_host}]" if re.search(r":.*:", new_host) else new_host
        word = f"{new_host}:{new_port}" if new_port else new_host
        yield set_option(launch, plan, "rdzv-endpoint", word)


def scripts(launches: Mapping[str, Launch]) -> dict[str, str]:
    """Each node's launch as a script that runs from anywhere on it."""
    found = {}
    for name, launch in launches.items():
        try:
            found[name] = launch.shell()
        except LaunchError as why:
            said = f"# the launch can't be written down: {why}"
            found[name] = f"#!/usr/bin/env bash\n{said}\nexit 2\n"
    return found
