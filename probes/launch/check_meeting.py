"""Checks of where and how the ranks are told to meet."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from ddp_assist.probes.launch.judging import (
    LOOPBACK,
    PLAIN,
    groups,
    here_alone,
    meets_at,
    node_rank,
    nodes,
    option,
    origin,
    rank,
    raw,
    say,
)
from ddp_assist.probes.launch.launchers import ELASTIC, whole
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.network.endpoints import from_hosts_file
from ddp_assist.probes.network.ports import ephemeral_range, unprivileged_start

PLACEHOLDER = re.compile(
    r"[<>{}$]|\A(your|my|the)[-_.]?\w*(ip|addr|address|host|node|master)\w*\Z"
    r"|\A(master|head|host|node|server|rank_?0|main)[-_]?(node)?[-_]?(ip|addr|address)\w*\Z"
    r"|\A(x{1,3}\.){3}x{1,3}\Z|\A(ip|host|hostname|address|master_host|todo|fixme|changeme)\Z"
    r"|\Aip[-_]?of\b|\.{3}|example\.(com|org|net)\Z",
    re.I,
)
EXAMPLES = tuple(
    ipaddress.ip_network(n) for n in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
)
METHODS = ("--dist-url", "--dist_url", "--init-method", "--init_method", "--dist-init-method")
ANEW = re.compile(
    r"\$\{?RANDOM\b|\$\$|uuidgen|\bdate\b|\$\{?HOSTNAME\b|\bhostname\b|/proc/sys/kernel/random"
)
PORT_ANEW = re.compile(
    r"\$\{?RANDOM\b|\bRANDOM(?=\s*%)|\$\$|\bshuf\b|\bdate\b|\.bind\(|free_?port|find_?port"
)


def port(target: Target) -> Iterator[Finding]:
    low, high = ephemeral_range()
    for plan in target.plans:
        where, text = meets_at(plan)
        if not text or plan.standalone:
            continue
        number = whole(text)
        zero_is_free = plan.launcher not in PLAIN
        if number is None or not (0 < number < 65536 or (number == 0 and zero_is_free)):
            shown = text if number is None or number != 0 else "0, which only a launcher may give"
            sentence = (
                f"the port the ranks are told to meet at is {shown[:40]!r}: no port from 1 to 65535"
            )
            yield say(target, plan, "port-out-of-range", sentence, port=text[:40], host=where)
        elif 0 < number < unprivileged_start():
            sentence = f"port {number} is one that only a privileged user may bind"
            yield say(target, plan, "port-privileged", sentence, port=number, host=where)
        elif low <= number <= high:
            sentence = f"port {number} lies in the range {low}-{high} of outgoing connections"
            yield say(target, plan, "port-ephemeral", sentence, port=number, host=where)


def address(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        host, _ = meets_at(plan)
        given = plan.rdzv_endpoint or plan.master_addr
        wrong = malformed(host) if host else None
        if wrong is None and plan.rdzv_endpoint and "://" in plan.rdzv_endpoint:
            wrong = "it holds a scheme such as tcp://, where only HOST:PORT is meant"
        empty = plan.launcher in PLAIN and plan.env.get("MASTER_ADDR") == "" and plan.master_port
        if wrong is None and empty:
            wrong = "it is empty"
        if wrong is not None:
            sentence = f"the address the ranks are told to meet at is {str(given)[:80]!r}: {wrong}"
            yield say(target, plan, "master-addr-malformed", sentence, host=str(given)[:200])


def malformed(host: str) -> str | None:
    """Why a text can't be the address of a host, if it can't."""
    if "://" in host or "/" in host:
        return "it holds a scheme or a path, where only a host is meant"
    if "@" in host:
        return "it names a user, where only a host is meant"
    if PLACEHOLDER.search(host):
        return "it is a placeholder that was never filled in"
    if host != host.strip() or re.search(r"\s", host):
        return "it holds a blank"
    if "," in host or "[" in host.strip("[]"):
        return "it is a list of hosts, where one host is meant"
    if re.fullmatch(r"[^:]+:\d*", host):
        return "it holds a port, which belongs into MASTER_PORT"
    try:
        number = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        digits = re.fullmatch(r"[\d.]+", host)
        return "it is no complete IPv4 address" if digits else None
    if any(number in net for net in EXAMPLES) or host == "1.2.3.4":
        return "it is an address that only stands in examples"
    return None


def loopback(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        host, _ = meets_at(plan)
        several = (nodes(plan) or 1) > 1
        if plan.launcher in PLAIN:
            hosts = {p.host for p in target.plans if p.launcher in PLAIN and p.host}
            several = len(hosts) > 1 or _tasks_nodes(plan) > 1
        if not several or plan.standalone or here_alone(target, plan):
            continue
        if host and LOOPBACK.match(host):
            sentence = (
                f"the ranks on several hosts are told to meet at {host}, which each is itself"
            )
            yield say(target, plan, "master-addr-is-loopback", sentence, host=host)
        elif not host and plan.launcher in ELASTIC and not _told(plan):
            sentence = "several nodes are asked for, but no address to meet at: each takes itself"
            yield say(target, plan, "master-addr-is-loopback", sentence, host="localhost")


def _told(plan: LaunchPlan) -> bool:
    """An address is given, though it may not be known before it runs."""
    return any(option(plan, name) for name in ("master-addr", "rdzv-endpoint")) or bool(
        {"PET_MASTER_ADDR", "PET_RDZV_ENDPOINT"} & (set(plan.env) | plan.unclear)
    )


def _tasks_nodes(plan: LaunchPlan) -> int:
    given = plan.option("srun-nodes")
    return whole((given.value or "").partition("-")[0]) or 1 if given else 1


def endpoint(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        where = plan.rdzv_endpoint or ""
        static = plan.launcher in ELASTIC and plan.rdzv_backend in (None, "static")
        if where and static and not plan.standalone and not re.search(r":\d+\Z", where):
            sentence = f"--rdzv-endpoint={where[:80]} has no port, which static rendezvous needs"
            yield say(target, plan, "rdzv-endpoint-without-port", sentence, host=where)


def init_method(target: Target) -> Iterator[Finding]:
    """`--dist-url` and its like, which many scripts hand on to init_process_group."""
    for plan in target.plans:
        for at, word in enumerate(plan.script_args):
            name, equals, value = word.partition("=")
            if name not in METHODS:
                continue
            if not equals:
                value = plan.script_args[at + 1] if at + 1 < len(plan.script_args) else ""
            if "$" in value or "`" in value:
                continue
            why = _method(value)
            if why is not None:
                sentence = f"{name} {value[:80]!r}: {why}"
                yield say(target, plan, "init-method-malformed", sentence, init_method=value[:200])


def _method(value: str) -> str | None:
    scheme, sep, rest = value.partition("://")
    if not value or value.startswith("--"):
        return "it is empty"
    if not sep or scheme not in ("tcp", "env", "file"):
        return "it does not start with env://, tcp:// or file://"
    if scheme == "tcp" and not re.search(r":\d+(/|\?|\Z)", rest):
        return "tcp:// needs HOST:PORT"
    if scheme == "file" and not rest.startswith("/"):
        return "file:// needs an absolute path, so three slashes"
    return None


def rdzv_id(target: Target) -> Iterator[Finding]:
    for group in groups(target):
        mine = [p for p in group if p.launcher in ELASTIC and (nodes(p) or 1) > 1]
        ids = {p.rdzv_id for p in mine if p.rdzv_id is not None}
        if len(ids) > 1:
            shown = " and ".join(sorted(map(str, ids))[:4])
            sentence = f"the nodes use different rendezvous ids: {shown}"
            yield say(target, mine[-1], "rdzv-id-differs", sentence, ids=sorted(map(str, ids))[:16])
    for plan in target.plans:
        written = raw(target, plan.option("rdzv-id"))
        each = plan.launcher in ELASTIC and (nodes(plan) or 1) > 1 and plan.scheduler is None
        if each and is_for_each_node(target, plan):
            written = origin(target, written)
        if each and ANEW.search(written) and not plan.standalone:
            sentence = f"{written[:80]} is worked out anew on each node, so the nodes never agree"
            yield say(target, plan, "rdzv-id-differs", sentence, ids=[written[:80]])


def is_for_each_node(target: Target, plan: LaunchPlan) -> bool:
    """Whether the launch starts one node of several: somebody runs it again on the others."""
    alone = len(target.plans) == 1 and plan.host is None and not plan.repeated
    submitted = target.launch is not None and target.launch.is_submitted
    return alone and plan.scheduler is None and not submitted and (nodes(plan) or 1) > 1


def port_of_each(target: Target) -> Iterator[Finding]:
    """A port that every node draws for itself."""
    for plan in target.plans:
        given = plan.option("rdzv-endpoint") or option(plan, "master-port")
        if plan.launcher in PLAIN or plan.standalone or not is_for_each_node(target, plan):
            continue
        drawn = PORT_ANEW.search(origin(target, raw(target, given)))
        if drawn is not None and given is not None:
            sentence = (
                f"the port of {given.spelling} is drawn anew on each node ({drawn[0]}), so the "
                "nodes never meet"
            )
            yield say(target, plan, "port-differs-per-rank", sentence, drawn=drawn[0])


def together(target: Target) -> Iterator[Finding]:
    """Commands that run at the same time, compared with each other."""
    for group in groups(target):
        if len(group) < 2:
            continue
        ranked = [p for p in group if p.launcher in PLAIN and rank(p) is not None]
        noded = [p for p in group if p.launcher not in PLAIN and (nodes(p) or 1) > 1]
        for one in (ranked, noded):
            yield from _same_place(target, one)
        singles = [p for p in group if p.launcher in ELASTIC and (nodes(p) or 1) == 1]
        seen: dict[tuple[str | None, str], LaunchPlan] = {}
        for plan in singles:
            at = meets_at(plan)[1]
            if at in ("", "0") or plan.standalone:
                continue
            if (plan.host, at) in seen:
                sentence = f"two jobs of this launch both want port {at} on the same host"
                yield say(target, plan, "port-shared-by-jobs", sentence, port=whole(at))
            seen[plan.host, at] = plan


def _same_place(target: Target, plans: list[LaunchPlan]) -> Iterator[Finding]:
    places = [meets_at(p) for p in plans]
    ports = {at for _, at in places if at}
    hosts = {host for host, _ in places if host}
    if len(ports) > 1:
        shown = ", ".join(sorted(ports)[:6])
        sentence = f"the commands of one job are told different ports: {shown}"
        yield say(target, plans[-1], "port-differs-per-rank", sentence, ports=sorted(ports)[:32])
    if len(hosts) > 1 and not all(LOOPBACK.match(h) for h in hosts):
        shown = ", ".join(sorted(hosts)[:6])
        sentence = f"the commands of one job are told different addresses: {shown}"
        yield say(target, plans[-1], "master-addr-not-rank0", sentence, hosts=sorted(hosts)[:32])
        return
    first = [p for p in plans if (rank(p) if p.launcher in PLAIN else node_rank(p)) == 0]
    known = {p.host for p in plans if p.host}
    static = all(p.launcher in PLAIN or p.rdzv_backend in (None, "static") for p in plans)
    if static and len(first) == 1 and first[0].host and hosts:
        told = next(iter(hosts))
        named = {name for name in known if told in (name, *from_hosts_file(name))}
        if named and first[0].host not in named:
            sentence = f"the address is {told}, but rank 0 is started on {first[0].host}"
            yield say(
                target, first[0], "master-addr-not-rank0", sentence,
                host=told, suggestion=first[0].host,
            )  # fmt: skip
