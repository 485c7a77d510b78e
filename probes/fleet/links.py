"""Which pairs are tried, and what it means that some can't reach others."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddp_assist.probes.fleet.compare import folded
from ddp_assist.probes.fleet.engine import Node
from ddp_assist.probes.model import Evidence, Finding

FULL = 32
SAMPLED = 4
FEW = 4
"""So many are named one by one, where all that tried failed."""
BLOCKED = ("silent", "refused", "reset", "unreachable", "no-route", "stranger", "failed")
Way = Mapping[str, Any]


def pairs(names: Sequence[str], hub: str) -> list[tuple[str, str]]:
    """Full mesh of a small fleet; of a large one a hub, a ring and random pairs."""
    if len(names) <= FULL:
        return [(one, other) for one in names for other in names if one != other]
    chosen = {(name, hub) for name in names} | {(hub, name) for name in names}
    chosen |= set(zip(names, [*names[1:], names[0]], strict=True))
    draw = random.Random(len(names))  # the same pairs when asked again
    chosen |= {(name, draw.choice(names)) for name in names for _ in range(SAMPLED)}
    return sorted(pair for pair in chosen if pair[0] != pair[1])


def addresses(look: Mapping[str, Any]) -> list[str]:
    """Where a node can be reached, by its own word: interfaces that are up and are no bridge."""
    links = [i for i in look["links"] if i["up"] and not i["virtual"]]
    return [address for link in links for address in link["addresses"]]


def named_links(look: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The interfaces that the launch or the node's variables name."""
    env = look["env"]
    wanted = env.get("GLOO_SOCKET_IFNAME") or env.get("NCCL_SOCKET_IFNAME") or ""
    if wanted.startswith("^"):
        return []
    names = wanted.lstrip("=").split(",")
    return [i for i in look["links"] if i["up"] and i["name"] in names and not i["virtual"]]


def main_address(node: Node, resolved: Mapping[str, str]) -> str:
    """Where the others will connect to: the named interface, the own name, or where ssh went."""
    look = node.answers["look"]
    named = named_links(look)
    if named:
        return str(next((a for link in named for a in link["addresses"]), ""))
    own = addresses(look)
    for address in (resolved.get(node.name, ""), *look["reached-at"]):
        if address in own:
            return str(address)
    return str(own[0]) if own else ""


def judge(ways: Sequence[Way], mains: Mapping[str, str], hub: str | None) -> Iterator[Finding]:
    """Per node reached for: what of it is shut for whom. Only addresses that a job would use."""
    to: dict[tuple[str, str], list[Way]] = defaultdict(list)
    every: dict[str, list[Way]] = defaultdict(list)
    for way in ways:
        to[way["to"], way["address"]].append(way)
        every[way["to"]].append(way)
    for name, address in mains.items():
        here = to.get((name, address), [])
        data = [w for w in here if w["kind"] == "data"]
        port = [w for w in here if w["kind"] == "port" and hub in (None, name)]
        others = [w for w in every[name] if w["address"] != address]
        wrong = list(_wrong_interface(name, address, data, others))
        yield from wrong
        if not wrong:
            yield from _shut(name, address, port, data, "firewall-blocks-port", "port")
            yield from _shut(name, address, data, port, "firewall-blocks-data", "data")
        lost = [w for w in here if w["outcome"] == "large-lost"]
        if lost:
            who = folded({w["from"] for w in lost})
            sentence = f"from {name} to {who} small packets pass and large ones do not (MTU)"
            yield _said("mtu-black-hole", sentence, name, address, lost)
    mine = set(mains.items())
    for (name, address), tried in sorted(to.items()):
        bad = [w for w in tried if w["outcome"] in BLOCKED]
        if bad and len(bad) == len(tried) and (name, address) not in mine:
            sentence = f"{address} ({bad[0]['link']} of {name}) is reached by nobody"
            yield _said("interface-unreachable", sentence, name, address, bad)


def _wrong_interface(
    name: str, address: str, data: Sequence[Way], others: Sequence[Way]
) -> Iterator[Finding]:
    """Nobody reaches the address that a job would use, while another of the same node is open."""
    reached = [w for w in others if w["kind"] == "data" and w["outcome"] == "reached"]
    bad = [w for w in data if w["outcome"] in ("unreachable", "no-route", "silent", "failed")]
    if not data or len(bad) < len(data) or not reached:
        return
    who = {w["from"] for w in bad}
    if not who <= {w["from"] for w in reached}:
        return
    better = reached[0]
    sentence = (
        f"{folded(who)} can't reach {name} on {bad[0]['link']} ({address}): "
        f"{'/'.join(sorted({w['outcome'] for w in bad}))}; on {better['link']} "
        f"({better['address']}) it is reached"
    )
    found = _said("interface-wrong", sentence, name, address, bad)
    data_ = {**found.data, "better": better["link"], "better_address": better["address"]}
    yield Finding("fleet", found.outcome, sentence, data_, found.evidence)


def _shut(
    name: str, address: str, ways: Sequence[Way], others: Sequence[Way], outcome: str, kind: str
) -> Iterator[Finding]:
    bad = [w for w in ways if w["outcome"] in BLOCKED]
    if not bad:
        return
    who = {w["from"] for w in bad}
    how = "/".join(sorted({w["outcome"] for w in bad}))
    what = f"port {bad[0]['port']}" if kind == "port" else "any data port tried"
    open_too = [w for w in others if w["from"] in who and w["outcome"] not in BLOCKED]
    # Nothing at all from a pair whose packets find no host is a matter of the address or route.
    if not open_too and how in ("unreachable", "no-route"):
        outcome = "unreachable"
    rest = "; other ports are reached" if open_too else ""
    none = who == {w["from"] for w in ways} and len(who) > FEW
    whom = f"none of the {len(who)} nodes that tried can" if none else f"{folded(who)} can't"
    sentence = f"{whom} reach {what} of {name} ({address}): {how}{rest}"
    yield _said(outcome, sentence, name, address, bad)


def _said(outcome: str, sentence: str, name: str, address: str, ways: Sequence[Way]) -> Finding:
    first = ways[0]
    see = ("ssh", first["from"], "nc", "-vz", "-w", "4", address, str(first["port"]))
    data = {"node": name, "address": address, "port": first["port"], "interface": first["link"],
            "from": sorted({w["from"] for w in ways}),
            "outcome": first["outcome"]}  # fmt: skip
    lines = tuple(f"{w['from']} -> {w['to']}:{w['port']} {w['outcome']}" for w in ways[:16])
    return Finding("fleet", outcome, sentence, data, (Evidence("our own listeners", lines, see),))
