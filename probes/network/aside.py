"""The meeting place of ranks that all run on other hosts, as far as this host can judge it.

What is reached from here says nothing of their ways. But where nobody answers to an address of the
network that this host shares with them, nobody answers to them either.
"""

from __future__ import annotations

from collections.abc import Iterator

from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.model import Evidence, Finding, Probe, Target
from ddp_assist.probes.network.endpoint import PATIENCE, QUIET_PORT, asked_for, knock
from ddp_assist.probes.network.endpoints import from_hosts_file
from ddp_assist.probes.network.links import Address, is_ours, plain, way_to
from ddp_assist.probes.network.names import resolve
from ddp_assist.probes.network.scope import runs_elsewhere


def _look(target: Target) -> Iterator[Finding]:
    hosts = runs_elsewhere(target)
    known = [_addresses(host) for host in hosts]
    theirs = [address for addresses in known for address in addresses]
    for endpoint in target.endpoints if all(known) else ():  # else it may be the unknown one's
        for place in _addresses(endpoint.host):
            if endpoint.port is None or not 0 < endpoint.port < 65536:
                continue
            if place in theirs or place.is_loopback or is_ours(place):
                continue
            shared = _shared_link(place, theirs, endpoint.port)
            if shared is None:
                continue
            link, near = shared
            own = way_to(near)
            sentence = (
                f"{brief(endpoint.host)}:{endpoint.port} is no address of this host or of"
                f" {several(hosts)}, and nobody answers to it on the network that this host shares"
                f" with {near}"
            )
            see = Evidence("neighbours", see=("ip", "neigh", "show", str(place)))
            data = {
                "host": brief(endpoint.host, 253), "port": endpoint.port, "address": str(place),
                "link": brief(link), "neighbour": False, "hosts": [brief(h, 253) for h in hosts],
                "own": str(own) if own else None,
            }  # fmt: skip
            yield Finding("aside", "nobody-there", sentence, data, (see,))
            return
    yield Finding("aside", "not-judged", "where ranks on other hosts meet is judged there")


def _addresses(host: str) -> list[Address]:
    """The addresses of a name or address; IPv4 only, for neighbours are told by ARP."""
    texts = [host] if plain(host) else sorted(from_hosts_file(host))
    if not texts and host:
        texts = resolve([host]).answers.get(host, {}).get("addresses", [])
    return [a for a in map(plain, texts) if a is not None and a.version == 4]


def _shared_link(place: Address, theirs: list[Address], port: int) -> tuple[str, Address] | None:
    """The link on which nobody answers for `place`, and a host of the launch that does answer."""
    if any(k.answered for k in knock(place, [port, QUIET_PORT], PATIENCE)):
        return None
    there = asked_for(place)
    if there is None or there[1]:
        return None
    for near in theirs:
        knock(near, [QUIET_PORT], PATIENCE)
        if asked_for(near) == (there[0], True):
            return there[0], near
    return None


ASIDE = Probe(
    "aside",
    "Is there anybody at the place where ranks on other hosts are to meet?",
    {"nobody-there": "bad", "not-judged": "info"},
    _look,
    applies=lambda target: bool(target.endpoints and runs_elsewhere(target)),
    deadline=2 * PATIENCE + 6,
)
PROBES: tuple[Probe, ...] = (ASIDE,)
