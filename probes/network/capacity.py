"""What the kernel has left for new connections, and settings of it that a start depends on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ddp_assist.probes.host.processes import read
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network.endpoint import ephemeral
from ddp_assist.probes.network.scope import environment, number

SETTINGS = Path("/proc/sys/net")
FEW = 500
NEARLY = 0.95
LISTENING, TIME_WAIT = "0A", "06"


def setting(name: str) -> str | None:
    """One kernel setting of the network, None where this kernel or namespace lacks it."""
    raw = read(str(SETTINGS / name), 1 << 16)
    return None if raw is None else raw.decode("ascii", "replace").strip()


def ports_in_use(low: int, high: int) -> tuple[int, int] | None:
    """Local ports of the range in use, and the most connections that go to one destination.

    Many connections may share a local port as long as they go to different places.
    """
    used: set[int] = set()
    towards: dict[str, int] = {}
    seen = False
    for table in ("tcp", "tcp6"):
        raw = read(f"/proc/self/net/{table}", 64 << 20)
        if raw is None:
            continue
        seen = True
        for line in raw.decode("ascii", "replace").splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if low <= port <= high:
                used.add(port)
                if fields[3] != LISTENING:
                    towards[fields[2]] = towards.get(fields[2], 0) + 1
    return (len(used), max(towards.values(), default=0)) if seen else None


def _look(target: Target) -> Iterator[Finding]:
    low, high = ephemeral()
    room = high - low + 1
    counted = ports_in_use(low, high)
    see = (Evidence("/proc/net/tcp", see=("ss", "-s")),)
    exhausted = False
    if counted is None:
        yield unknown("ports", "the connections of this host can't be counted", *see)
    else:
        used, towards = counted
        left = room - max(used, towards)
        data = {"used": used, "range": [low, high], "left": left}
        if left < min(FEW, room // 20 + 1):
            exhausted = True
            sentence = f"{used} of the {room} ephemeral ports ({low} to {high}) are in use"
            yield Finding("ports", "exhausted", sentence, data, see)
    count, most = (
        number(setting("netfilter/nf_conntrack_count")),
        number(setting("netfilter/nf_conntrack_max")),
    )
    if count is not None and most and count > NEARLY * most:
        exhausted = True
        sentence = f"the table of tracked connections is full: {count} of {most}"
        data = {"conntrack": count, "conntrack_max": most}
        see = (Evidence("nf_conntrack", see=("sysctl", "net.netfilter.nf_conntrack_count")),)
        yield Finding("ports", "conntrack-full", sentence, data, see)
    if counted and not exhausted:
        sentence = f"{room - counted[0]} of the {room} ephemeral ports are free"
        yield Finding("ports", "enough", sentence, {"used": counted[0], "range": [low, high]})
    yield from _settings(target)


def _settings(target: Target) -> Iterator[Finding]:
    reserved = setting("ipv4/ip_local_reserved_ports")
    if reserved:
        sentence = f"these ports are kept from ephemeral use: {brief(reserved)}"
        yield Finding("ports", "reserved", sentence, {"reserved": brief(reserved)})
    world, backlog = (
        number(environment(target).get("WORLD_SIZE")),
        number(setting("core/somaxconn")),
    )
    if world and backlog and backlog < world:
        sentence = (
            f"only {backlog} connections may wait to be taken, but {world} ranks come at once"
        )
        see = (Evidence("somaxconn", see=("sysctl", "net.core.somaxconn")),)
        data = {"somaxconn": backlog, "world_size": world}
        yield Finding("ports", "backlog-small", sentence, data, see)
    tables = "/proc/self/net"
    lacks = os.path.exists(tables) and not os.path.exists(f"{tables}/if_inet6")
    if lacks or setting("ipv6/conf/all/disable_ipv6") == "1":
        yield Finding("ports", "no-ipv6", "this host has no IPv6; torch then takes IPv4")


PORTS = Probe(
    "ports",
    "Are there ports left for new connections?",
    {
        "enough": "ok",
        "exhausted": "bad",
        "conntrack-full": "bad",
        "backlog-small": "bad",
        "reserved": "info",
        "no-ipv6": "info",
    },
    _look,
)
PROBES: tuple[Probe, ...] = (PORTS,)
