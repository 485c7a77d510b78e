"""Which pairs are tried, and what it means that some can't reach others."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddp_assist.probes.fleet.compare import folded
from ddp_assist.probes.fleet.engine import Node
from ddp_assist.probes.model import Evidence, Finding

FULL = 32
SAMPLED = 4
BLOCKED = ("silent", "refused", "reset", "unreachable", "no-route", "stranger", "failed")


def pairs(names: Sequence[str], hub: str) -> list[tuple[str, str]]:
    """Full mesh of a small fleet; of a large one a hub, a ring and random pairs."""
    if len(names) <= FULL:
        return [(one, other) for one in names for other in names if one != other]
    chosen = {(name, hub) for name in names} | {(hub, name) for name in names}
    chosen |= set(zip(names, [*names[1:], names[0]], strict=True))
    draw = random.Random(len(names))  # the same pairs when asked again
    chosen |= {(name, draw.choice(names)) for name in names for _ in range(SAMPLED)}
    return sorted(pair for pair in chosen if pair[0] != pair[1])


def main_address(node: Node, resolved: Mapping[str, str]) -> str:
    """Where the others will connect to: the named interface, the own name, or where ssh went."""
    look = node.answers["look"]
    links = [i for i in look["links"] if i["up"] and not i["virtual"]]
    wanted = look["env"].get("GLOO_SOCKET_IFNAME") or look["env"].get("NCCL_SOCKET_IFNAME") or ""
    named = [i for i in links if i["name"] in wanted.lstrip("^=").split(",")]
    own = [a for i in (named or links) for a in i["addresses"]]
    for address in ([] if named else [resolved.get(node.name, ""), *look["reached-at"]]):
        if address in own:
            return str(address)
    return str(own[0]) if own else ""


def judge(
    ways: Sequence[Mapping[str, Any]], mains: Mapping[str, str], hub: str | None
) -> Iterator[Finding]:
    """Per node reached for: what of it is shut for whom. Only addresses that a job would use."""
    for name, address in mains.items():
        to_main = [w for w in ways if w["to"] == name and w["address"] == address]
        data = [w for w in to_main if w["kind"] == "data"]
        port = [w for w in to_main if w["kind"] == "port" and hub in (None, name)]
        yield from _shut(name, address, port, data, "firewall-blocks-port", "port")
        yield from _shut(name, address, data, port, "firewall-blocks-data", "data")
        lost = [w for w in to_main if w["outcome"] == "large-lost"]
        if lost:
            who = folded({w["from"] for w in lost})
            sentence = f"from {name} to {who} small packets pass and large ones do not (MTU)"
            yield _said("mtu-black-hole", sentence, name, address, lost)
    mine = set(mains.values())
    for address in sorted({w["address"] for w in ways} - mine):
        tried = [w for w in ways if w["address"] == address]
        bad = [w for w in tried if w["outcome"] in BLOCKED]
        if bad and len(bad) == len(tried):
            sentence = f"{address} ({bad[0]['link']} of {bad[0]['to']}) is reached by nobody"
            yield _said("interface-unreachable", sentence, bad[0]["to"], address, bad)


def _shut(
    name: str,
    address: str,
    ways: Sequence[Mapping[str, Any]],
    others: Sequence[Mapping[str, Any]],
    outcome: str,
    kind: str,
) -> Iterator[Finding]:
    bad = [w for w in ways if w["outcome"] in BLOCKED]
    if not bad:
        return
    who = {w["from"] for w in bad}
    how = "/".join(sorted({w["outcome"] for w in bad}))
    what = f"port {bad[0]['port']}" if kind == "port" else "every data port tried"
    open_too = [w for w in others if w["from"] in who and w["outcome"] not in BLOCKED]
    # Nothing at all from a pair whose packets find no host is a matter of the address or route.
    if not open_too and how in ("unreachable", "no-route"):
        outcome = "unreachable"
    rest = "; other ports are reached" if open_too else ""
    sentence = f"{folded(who)} can't reach {what} of {name} ({address}): {how}{rest}"
    yield _said(outcome, sentence, name, address, bad)


def _said(
    outcome: str, sentence: str, name: str, address: str, ways: Sequence[Mapping[str, Any]]
) -> Finding:
    first = ways[0]
    see = ("ssh", first["from"], "nc", "-vz", "-w", "4", address, str(first["port"]))
    data = {"node": name, "address": address, "port": first["port"], "interface": first["link"],
            "from": sorted({w["from"] for w in ways})}  # fmt: skip
    lines = tuple(f"{w['from']} -> {w['to']}:{w['port']} {w['outcome']}" for w in ways[:16])
    return Finding("fleet", outcome, sentence, data, (Evidence("our own listeners", lines, see),))
