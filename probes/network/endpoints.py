"""Where the ranks are told to meet, as far as launch, environment, script and log say so."""

from __future__ import annotations

import ipaddress
import os
import pwd
import socket
from collections.abc import Iterable, Iterator, Mapping

from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Endpoint, Target

LOOPBACK_NAMES = frozenset({"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})  # noqa: S104
TORCHRUN = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})
AGENT_HOSTS = TORCHRUN | {"accelerate"}
"""Launchers whose own process hosts the store: what the script sets is then never listened on."""
DEFAULT_PORT = 29500


def endpoints(target: Target, scripted: Iterable[Endpoint] = ()) -> tuple[Endpoint, ...]:
    """Every endpoint once, the launch's own word first, then what the script itself sets."""
    found: dict[tuple[str, int | None], Endpoint] = {}
    for endpoint in _all(target, scripted):
        found.setdefault((endpoint.host, endpoint.port), endpoint)
    return tuple(found.values())


def _all(target: Target, scripted: Iterable[Endpoint]) -> Iterator[Endpoint]:
    for plan in target.plans:
        yield from of_plan(plan, plan.environment(target.env), target)
    if not target.plans and target.script is not None:
        yield from _environment(target.env)
    if not any(plan.launcher in AGENT_HOSTS for plan in target.plans):
        yield from scripted
    if not target.plans:
        for finding in target.seen:
            if finding.probe == "log" and str(finding.data.get("port", "")).isdigit():
                host = str(finding.data.get("host") or "")
                yield Endpoint(host, int(finding.data["port"]), "the log")


def of_plan(plan: LaunchPlan, env: Mapping[str, str], target: Target) -> Iterator[Endpoint]:
    if plan.launcher not in TORCHRUN:
        if plan.master_port is not None:
            yield Endpoint(plan.master_addr or "", _port(plan.master_port), "the launch")
        elif plan.launcher in ("accelerate", "deepspeed", "colossalai"):
            yield Endpoint(plan.master_addr or "", DEFAULT_PORT, f"the default of {plan.launcher}")
        else:
            yield from _environment(env)
        return
    if plan.standalone:
        return
    if plan.rdzv_endpoint:
        host, _, port = plan.rdzv_endpoint.rpartition(":")
        if host:
            yield Endpoint(host.strip("[]"), _port(port), "--rdzv-endpoint")
        elif plan.rdzv_backend == "c10d":
            yield Endpoint(plan.rdzv_endpoint, 29400, "the default of c10d")
    elif plan.master_port is not None:
        yield Endpoint(plan.master_addr or "", _port(plan.master_port), "--master-port")
    elif (plan.nnodes or (1, 1))[1] > 1 or _picks_no_port(target):
        yield Endpoint(plan.master_addr or "", DEFAULT_PORT, "the default of torchrun")


def _picks_no_port(target: Target) -> bool:
    """Before 2.12 a torchrun without a port took 29500; later ones pick a free one."""
    for finding in target.found("torch.*"):
        version = str(finding.data.get("version") or "").split(".")
        if len(version) > 1 and version[0].isdigit() and version[1].isdigit():
            return (int(version[0]), int(version[1])) < (2, 12)
    return False


def _environment(env: Mapping[str, str]) -> Iterator[Endpoint]:
    if env.get("MASTER_PORT"):
        yield Endpoint(env.get("MASTER_ADDR", ""), _port(env["MASTER_PORT"]), "MASTER_PORT")


def _port(text: object) -> int | None:
    try:
        return int(str(text))
    except ValueError:
        return None


def to_host(target: Target, endpoint: Endpoint) -> bool:
    """Whether this launch would open the port on this host, so that it must be free here."""
    if endpoint.port is None or endpoint.port == 0:
        return False
    if endpoint.host not in LOOPBACK_NAMES and not is_here(endpoint.host):
        return False
    firsts = [plan.hosts[0] for plan in target.plans if plan.starts_all and plan.hosts]
    if firsts and not any(map(is_here, firsts)):
        return False
    ranks = [plan.environment(target.env).get("RANK") for plan in target.plans]
    nodes = [plan.node_rank for plan in target.plans]
    if nodes and all(node not in (None, 0) for node in nodes):
        return False
    return not (ranks and all(rank not in (None, "", "0") for rank in ranks))


def own_addresses() -> frozenset[str]:
    """Addresses of this host's interfaces, read where no resolver is asked."""
    found = {"127.0.0.1", "::1"}
    try:
        with open("/proc/net/fib_trie", encoding="ascii") as trie:
            last = ""
            for line in trie:
                words = line.split()
                if len(words) > 1 and words[0] == "|--":
                    last = words[1]
                elif "/32 host LOCAL" in line:
                    found.add(last)
    except OSError:
        pass
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            for line in table:
                found.add(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    except (OSError, ValueError):
        pass
    return frozenset(found)


def is_here(host: str) -> bool:
    """Whether a name or address is this host; no resolver is asked."""
    if host in LOOPBACK_NAMES or host == socket.gethostname():
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return from_hosts_file(host) & own_addresses() != frozenset()
    return address.is_loopback or host in own_addresses()


def from_hosts_file(name: str) -> frozenset[str]:
    """The addresses of a name, where no resolver need be asked."""
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as table:
            lines = [line.partition("#")[0].split() for line in table]
    except OSError:
        return frozenset()
    return frozenset(words[0] for words in lines if name in words[1:])


def launch_user(target: Target) -> int:
    """The uid the launch will run as: ours, unless `su`, `sudo -u` or `runuser` change it."""
    for plan in target.plans:
        name = _other_user(plan.prefix)
        if name is not None:
            try:
                return pwd.getpwnam(name).pw_uid
            except KeyError:
                continue
    return os.geteuid()


def _other_user(prefix: tuple[str, ...]) -> str | None:
    for at, word in enumerate(prefix):
        rest = prefix[at + 1 :]
        if word in ("su", "runuser"):
            named = [w for w in rest if not w.startswith("-")]
            return named[0] if named else "root"
        if word == "sudo":
            for flag, value in zip(rest, rest[1:], strict=False):
                if flag in ("-u", "--user"):
                    return value
            return "root"
    return None
