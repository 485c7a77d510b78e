"""Corrections of where and how the ranks are told to meet."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable, Iterator

from ddp_assist.app.fixes.launch_words import (
    PLAIN,
    add_flag,
    as_fix,
    drop_option,
    edited,
    is_single,
    meeting,
    option_name,
    set_option,
    set_part,
    set_variable,
)
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.app.fixes.script_meeting import with_scheme
from ddp_assist.probes.launch.launchers import ELASTIC
from ddp_assist.probes.launch.plan import Launch, LaunchPlan
from ddp_assist.probes.launch.write import Edit
from ddp_assist.probes.network.endpoints import is_here
from ddp_assist.probes.network.links import plain, way_to
from ddp_assist.probes.network.ports import free_port

PLACEHOLDERS = re.compile(r"[<>{}]|^(your|master|head|node|host)[-_]?(ip|addr|address|name)", re.I)
ALONE = ("master-addr", "master-port", "rdzv-backend", "rdzv-endpoint", "rdzv-id", "node-rank")


def another_port(situation: Situation) -> Fix | None:
    """Every command of the launch told the same port, one that is free on this host."""
    if any(finding.key == "plan.launcher-flag-ignored" for finding in situation.speaks_for):
        return None  # which option does not arrive is known
    opened = situation.value("open_port")
    port = opened if isinstance(opened, int) else free_port()
    if port is None:
        return None
    launch = edited(situation, lambda launch, plan: _port(situation, launch, plan, str(port)))
    holder = next((f for f in situation.speaks_for if f.key.startswith("port.held")), None)
    left = f"whoever has port {holder.data.get('port')} keeps it" if holder else ""
    return as_fix(
        situation, f"meet on port {port}, which is free here", launch, does_not=left,
        trial=launch and meeting(situation, launch, port),
        why="free on all addresses of this host, and outside the range of outgoing connections",
    )  # fmt: skip


def open_port(situation: Situation) -> Fix | None:
    """Another port, which a filter was seen to let through. A trial here would not cross it."""
    port = situation.value("open_port")
    if not isinstance(port, int):
        return None
    launch = edited(situation, lambda launch, plan: _port(situation, launch, plan, str(port)))
    return as_fix(
        situation, f"meet on port {port}, which the filter lets through", launch,
        does_not="Other ports may be shut too; for good, let the nodes' network in",
    )  # fmt: skip


def _port(situation: Situation, launch: Launch, plan: LaunchPlan, port: str) -> Iterator[Edit]:
    if plan.launcher in PLAIN:
        set_here = plan.assignment("MASTER_PORT") is not None
        if set_here or plan.environment(situation.target.env).get("MASTER_PORT"):
            yield set_variable(launch, plan, "MASTER_PORT", port)
    elif plan.rdzv_endpoint:
        host, colon, old = plan.rdzv_endpoint.rpartition(":")
        if colon and plan.option("rdzv-endpoint") is not None:
            start = len(host) + 1
            yield set_part(launch, plan, "rdzv-endpoint", (start, start + len(old)), port)
        else:
            whole = f"{plan.rdzv_endpoint if not colon else host}:{port}"
            yield set_option(launch, plan, "rdzv-endpoint", whole)
    elif not plan.standalone:
        yield set_option(launch, plan, "master-port", port)


def standalone(situation: Situation) -> Fix | None:
    """On one host torchrun can pick a free port itself."""

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher not in ELASTIC or plan.standalone or not is_single(plan):
            return
        for name in ALONE:
            yield from drop_option(launch, plan, name)
        yield add_flag(plan, "standalone")

    plans = situation.target.plans
    apart = len(plans) == 1 or situation.cause == "port-shared-by-jobs"
    launch = edited(situation, rule) if apart else None
    return as_fix(
        situation, "let torchrun pick a free port itself (--standalone, one host)", launch,
        trial=launch and meeting(situation, launch),
    )  # fmt: skip


def master_addr(situation: Situation) -> Fix | None:
    """The address replaced by the one that rank 0 is known to be reached at."""
    right = _right_address(situation)
    if right is None:
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher in PLAIN:
            if plan.environment(situation.target.env).get("MASTER_ADDR") is not None:
                yield set_variable(launch, plan, "MASTER_ADDR", right)
        elif plan.rdzv_endpoint:
            host, colon, _ = plan.rdzv_endpoint.rpartition(":")
            end = len(host) if colon else len(plan.rdzv_endpoint)
            yield set_part(launch, plan, "rdzv-endpoint", (0, end), right)
        else:
            yield set_option(launch, plan, "master-addr", right)

    launch = edited(situation, rule)
    return as_fix(
        situation, f"meet at {right}", launch, trial=launch and meeting(situation, launch)
    )


def _right_address(situation: Situation) -> str | None:
    """Only an address that something says: the same text cleaned, rank 0's host, this one host."""
    plans = situation.target.plans
    said = situation.value("suggestion")
    if isinstance(said, str) and said:
        return said
    given = next((_address(p) for p in plans if _address(p)), "") or ""
    bare = re.sub(r"^(?:\w+://)?(?:[^@/\s]*@)?", "", given.strip()).strip("/")
    bare = re.sub(r"(?<=[^:]):\d+$", "", bare)
    if bare != given and bare and not PLACEHOLDERS.search(bare):
        return bare
    addresses = [a for p in plans if (a := _address(p))]
    if len(set(addresses)) > 1 and not any(_number(p) == 0 for p in plans):
        return addresses[0]  # of equals the first is as good as any, if all are told it
    first = [p for p in plans if _number(p) == 0 and p.host]
    if len(plans) > 1 and len({p.host for p in first}) == 1 and first[0].host != given:
        return first[0].host
    hosts = {p.host for p in plans}
    local = all(is_single(p) for p in plans) and len(hosts) == 1 and not any(p.tasks for p in plans)
    alone = all(p.launcher in ELASTIC or p.launcher in ("accelerate", "deepspeed") for p in plans)
    return "127.0.0.1" if plans and local and alone and given not in ("127.0.0.1", "") else None


def _address(plan: LaunchPlan) -> str | None:
    if plan.rdzv_endpoint and not plan.master_addr:
        return plan.rdzv_endpoint.rpartition(":")[0]
    return plan.master_addr


def _number(plan: LaunchPlan) -> int | None:
    """Which node, or which rank, this command is."""
    rank = plan.env.get("RANK", "")
    if plan.launcher in PLAIN and rank.isdigit():
        return int(rank)
    return plan.node_rank


def endpoint_with_port(situation: Situation) -> Fix | None:
    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        endpoint = plan.rdzv_endpoint
        if endpoint and not re.search(r":\d+$", endpoint):
            yield set_option(launch, plan, "rdzv-endpoint", f"{endpoint.rstrip(':')}:29400")

    return as_fix(situation, "name the port of the endpoint", edited(situation, rule))


def init_method(situation: Situation) -> Fix | None:
    """The scheme put in front of a meeting place that is an argument of the script."""
    value = str(situation.value("init_method") or "")
    right = with_scheme(value) if value else None
    if right is None:
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.script_span is None or plan.script_span[0] < 0:
            return
        start, end = plan.script_span[1], plan.span[1]
        word = re.compile(rf"(?<=[\s='\"]){re.escape(value)}(?=[\s'\"]|$)")
        for match in word.finditer(launch.text[start:end]):
            yield Edit((start + match.start(), start + match.end()), right)

    return as_fix(situation, f"an address with its scheme: {right}", edited(situation, rule))


def same_rdzv_id(situation: Situation) -> Fix | None:
    """One id for all nodes: the first one's, or a plain new one where it can't be known."""
    plans = [p for p in situation.target.plans if p.launcher in ELASTIC]
    known = next(
        (p.rdzv_id for p in plans if p.rdzv_id and re.fullmatch(r"[\w.-]+", p.rdzv_id)), ""
    )
    return _with_id(situation, known or f"job-{secrets.token_hex(3)}", "one rendezvous id for all")


def fresh_rdzv_id(situation: Situation) -> Fix | None:
    return _with_id(situation, f"job-{secrets.token_hex(3)}", "a rendezvous id never used before")


def _with_id(situation: Situation, name: str, what: str) -> Fix | None:
    def rule(launch: Launch, plan: LaunchPlan) -> Iterable[Edit]:
        elastic = plan.launcher in ELASTIC and not plan.standalone
        if not elastic or (plan.rdzv_id == name and plan.option("rdzv-id")):
            return []
        return [set_option(launch, plan, "rdzv-id", name)]

    return as_fix(situation, f"{what}: {name}", edited(situation, rule))


def local_addr(situation: Situation) -> Fix | None:
    """The address that others reach this host at, said outright."""

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        ours = _reached_at(plan)
        if plan.launcher in ELASTIC and ours is not None and len(launch.plans) == 1:
            yield set_option(launch, plan, "local-addr", ours)

    return as_fix(situation, "tell torchrun this host's own address", edited(situation, rule))


def _reached_at(plan: LaunchPlan) -> str | None:
    far = plain((_address(plan) or "").strip("[]"))
    own = way_to(far) if far is not None else None
    return None if own is None or ipaddress.ip_address(str(own)).is_loopback else str(own)


def is_host(situation: Situation) -> Fix | None:
    """Exactly one agent is told that it is the host of the rendezvous."""

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher not in ELASTIC or not plan.rdzv_endpoint:
            return
        host = plan.rdzv_endpoint.rpartition(":")[0]
        first = plan is launch.plans[0] if len(launch.plans) > 1 else is_here(host)
        if len(launch.plans) > 1 and any(p.host == host for p in launch.plans):
            first = plan.host == host
        given = plan.option(option_name(plan, "rdzv-conf"))
        kept = [c for c in ((given.value if given else "") or "").split(",") if c]
        kept = [c for c in kept if not c.startswith("is_host=")]
        if first:
            yield set_option(launch, plan, "rdzv-conf", ",".join([*kept, "is_host=1"]))

    return as_fix(
        situation, "tell exactly one agent that it hosts the rendezvous", edited(situation, rule)
    )
