"""Can the rendezvous port be bound here, and if not, who has it?"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.launch.accelerate import steps_aside
from ddp_assist.probes.model import Endpoint, Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network import store
from ddp_assist.probes.network.endpoints import DEFAULT_PORT, launch_user, to_host
from ddp_assist.probes.network.holder import Holder, identify, is_ours, user_name
from ddp_assist.probes.network.sockets import Socket, on_port

DEFAULT_EPHEMERAL = (32768, 60999)
KNOWN = frozenset({25999, 28028, 29400, 29500})
"""Ports that torch and NCCL take by default: a free one of these is no lasting choice."""


def ephemeral_range() -> tuple[int, int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as setting:
            low, high = setting.read().split()[:2]
            return int(low), int(high)
    except (OSError, ValueError):
        return DEFAULT_EPHEMERAL


def unprivileged_start() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as setting:
            return int(setting.read())
    except (OSError, ValueError):
        return 1024


def bind_error(port: int) -> int:
    """0 when a store could be hosted on this port now, else the errno.

    Bound as torch binds it (all addresses, SO_REUSEADDR) but never listened on, so nobody can
    connect meanwhile.
    """
    for family, host in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):  # noqa: S104
        try:
            with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind((host, port))
                if any(s.state == "listen" for s in on_port(port)):
                    return errno.EADDRINUSE
                return 0
        except OSError as why:
            if why.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return why.errno or errno.EINVAL
    return errno.EADDRNOTAVAIL


def free_port(avoid: frozenset[int] = frozenset()) -> int | None:
    """A port that is free on all addresses and that the kernel gives to no outgoing connection."""
    low, high = ephemeral_range()
    start = max(1024, unprivileged_start())
    pool = [*range(max(start, 20000), min(low, 32000)), *range(high + 1, 65001)]
    pool = pool or [*range(max(start, 10000), 65001)]
    choice = random.Random().sample(pool, min(64, len(pool)))  # two users at once get two answers
    taken = avoid | KNOWN
    return next((p for p in choice if p not in taken and bind_error(p) == 0), None)


def look(target: Target) -> Iterator[Finding]:
    if _is_bare(target):
        yield _default(target)
        return
    seen: set[int | None] = set()
    for endpoint in target.endpoints:
        if endpoint.port in seen or not to_host(target, endpoint):
            continue
        seen.add(endpoint.port)
        found = _port(target, endpoint)
        if found.outcome.startswith("held-by-") and steps_aside(target.plan, target.env):
            sentence = f"{found.sentence}; accelerate takes another port by itself"
            found = replace(found, outcome="default-taken", sentence=sentence)
        yield found


def _port(target: Target, endpoint: Endpoint) -> Finding:
    port = endpoint.port
    assert port is not None
    if not 0 < port < 65536:
        return Finding(
            "port",
            "out-of-range",
            f"port {port} ({endpoint.origin}) is outside 1 to 65535",
            {"port": port, "origin": endpoint.origin},
        )
    user = launch_user(target)
    low = port < unprivileged_start()
    if low and user != 0 and not _may_bind_low(user):
        return _privileged(port, user)
    code = bind_error(port)
    if low and code == errno.EACCES:  # a root that was left without the right
        return _privileged(port, user)
    sockets = on_port(port)
    if code == 0:
        return _free(port, endpoint)
    if code != errno.EADDRINUSE:
        return unknown("port", f"binding port {port} failed: {os.strerror(code)}", port=port)
    return _taken(target, port, sockets)


def _privileged(port: int, user: int) -> Finding:
    start = unprivileged_start()
    return Finding(
        "port",
        "privileged",
        f"port {port} is below {start}, and {user_name(user)} may not bind it",
        {"port": port, "start": start, "user": user_name(user)},
        (Evidence("/proc/sys/net/ipv4/ip_unprivileged_port_start", (str(start),)),),
    )


def _is_bare(target: Target) -> bool:
    """Nothing was given, so the port of interest is the one that torch takes by default."""
    given = target.endpoints or target.plans or target.script or target.logs
    return not given and target.job is None


def _default(target: Target) -> Finding:
    found = _port(target, Endpoint("", DEFAULT_PORT, "the default of torch"))
    if found.outcome in ("free", "held-by-orphan", "unknown"):
        return found
    return replace(found, outcome="default-taken")


def _may_bind_low(user: int) -> bool:
    """CAP_NET_BIND_SERVICE is bit 10 of the effective set; only our own set can be read."""
    if user != os.geteuid():
        return False
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            line = next(text for text in status if text.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(line.split()[1], 16) & (1 << 10))


def _free(port: int, endpoint: Endpoint) -> Finding:
    low, high = ephemeral_range()
    evidence = Evidence("bind", (), ("ss", "-tan", f"sport = :{port}"))
    if low <= port <= high:
        return Finding(
            "port",
            "ephemeral",
            f"port {port} is free now, but lies in the range {low}-{high} that the kernel gives to"
            " outgoing connections",
            {"port": port, "low": low, "high": high},
            (evidence,),
        )
    return Finding(
        "port",
        "free",
        f"port {port} ({endpoint.origin}) can be bound here",
        {"port": port, "origin": endpoint.origin},
        (evidence,),
    )


def _taken(target: Target, port: int, sockets: list[Socket]) -> Finding:
    see = ("ss", "-tanp", f"sport = :{port}")
    lines = tuple(
        f"{s.state} {s.host}:{s.port} peer {s.peer}:{s.peer_port} uid {s.uid}" for s in sockets
    )
    evidence = Evidence("sock_diag", lines[:6], see)
    listener = next((s for s in sockets if s.state == "listen"), None)
    if listener is not None:
        return _held(target, identify(listener), evidence)
    waiting = [s for s in sockets if s.state == "time-wait"]
    alive = [s for s in sockets if s.state not in ("time-wait", "bound")]
    bound = [s for s in sockets if s.state == "bound"]
    if alive:
        holder = identify(alive[0])
        who = _who(holder)
        return Finding(
            "port",
            "taken-by-connection",
            f"nobody listens on port {port}; {who} has an outgoing connection from it to"
            f" {alive[0].peer}:{alive[0].peer_port}",
            {**holder.data(), "peer": f"{alive[0].peer}:{alive[0].peer_port}"},
            (evidence,),
        )
    if waiting and not bound:
        return Finding(
            "port",
            "time-wait-blocks",
            f"connections on port {port} are in TIME_WAIT and were left by a server without"
            " SO_REUSEADDR, so the port is free in a minute",
            {"port": port},
            (evidence,),
        )
    sitter = identify(bound[0]) if bound else None
    return Finding(
        "port",
        "bound-not-listening",
        f"port {port} is bound by {_who(sitter) if sitter else 'a socket that is not shown'},"
        " which does not listen",
        {**(sitter.data() if sitter else {"port": port})},
        (evidence,),
    )


def _who(holder: Holder) -> str:
    if holder.pid is None:
        return f"a process of {holder.user} that is hidden from you"
    return f"pid {holder.pid} ({holder.command[:60]})"


def _held(target: Target, holder: Holder, evidence: Evidence) -> Finding:
    port = holder.socket.port
    data = holder.data()
    if holder.socket.waiting > holder.socket.backlog > 0:
        data["hung"] = True
    if holder.process is not None and target.job is not None and _same_job(target.job, holder):
        return Finding(
            "port",
            "held-by-this-job",
            f"port {port} is held by {_who(holder)}, which belongs to the job looked at",
            data,
            (evidence,),
        )
    if not is_ours(holder):
        spoken = store.fingerprint(_dial(holder.socket), port, 0.5)
        data["speaks"] = spoken.answer
        if spoken.answer == "http" and holder.socket.uid < 1000:
            return _service(holder, data, evidence)
        return Finding(
            "port",
            "held-by-other-user",
            f"port {port} is held by {_who(holder)}, which belongs to {holder.user}",
            data,
            (evidence,),
        )
    if not holder.is_torch:
        spoken = store.fingerprint(_dial(holder.socket), port, 0.5)
        data["speaks"] = spoken.answer
        if spoken.answer != "store":
            return _service(holder, data, evidence)
    if holder.launcher_gone and (not holder.busy or _is_lost_rank(holder)):
        return Finding(
            "port",
            "held-by-orphan",
            f"port {port} is held by {_who(holder)}, left over from an earlier run: its parent is"
            f" now {holder.parent}",
            data,
            (evidence,),
        )
    return Finding(
        "port",
        "held-by-own-job",
        f"port {port} is held by {_who(holder)}, a live job of yours (parent {holder.parent})",
        data,
        (evidence,),
    )


def _is_lost_rank(holder: Holder) -> bool:
    env = holder.process.environ if holder.process else None
    return bool(env and "TORCHELASTIC_RUN_ID" in env)


def _service(holder: Holder, data: dict[str, object], evidence: Evidence) -> Finding:
    return Finding(
        "port",
        "held-by-service",
        f"port {holder.socket.port} is held by {_who(holder)}, a server that is no torch store",
        data,
        (evidence,),
    )


def _dial(sock: Socket) -> str:
    if sock.is_wildcard:
        return "127.0.0.1" if sock.host == "0.0.0.0" else "::1"  # noqa: S104
    return sock.host


def _same_job(pid: int, holder: Holder) -> bool:
    """Whether the holder is a rank of the job looked at, or above it; a shell may start each."""
    if pid == holder.pid or pid in holder.ancestors or _shares_launcher(pid, holder):
        return True
    from ddp_assist.probes.jobs.job import job_of  # stays here: nodes are asked about no job

    job = job_of(pid)
    return job is not None and holder.pid in job.pids


def _shares_launcher(pid: int, holder: Holder) -> bool:
    above = {p.pid for p in snapshot().ancestors(pid)} - {1}
    return holder.pid in above or any(
        a in above for a in holder.ancestors[:1] if a != 1 and holder.is_torch
    )


def _applies(target: Target) -> bool:
    return _is_bare(target) or any(to_host(target, endpoint) for endpoint in target.endpoints)


PROBES = (
    Probe(
        "port",
        "Can the rendezvous port be bound here, and who has it?",
        {
            "free": "ok",
            "ephemeral": "info",
            "default-taken": "info",
            "held-by-orphan": "bad",
            "held-by-own-job": "bad",
            "held-by-other-user": "bad",
            "held-by-service": "bad",
            "held-by-this-job": "info",
            "taken-by-connection": "bad",
            "bound-not-listening": "bad",
            "time-wait-blocks": "bad",
            "privileged": "bad",
            "out-of-range": "bad",
        },
        look,
        _applies,
        deadline=6.0,
    ),
)
