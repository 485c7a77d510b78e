"""Which interface each backend takes here, and whether the named ones are what it understands."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network.links import Interface, interfaces, plain, way_to
from ddp_assist.probes.network.scope import environment, spans_hosts

SEE = ("ip", "-brief", "address")
GLOO, NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def nccl_matches(wanted: str, links: Sequence[Interface]) -> list[Interface]:
    """NCCL's rule: prefixes; `^` in front excludes them, `=` makes them exact names."""
    excludes = wanted.startswith("^")
    wanted = wanted.removeprefix("^")
    exact = wanted.startswith("=")
    names = [name for name in wanted.removeprefix("=").split(",") if name]

    def named(link: Interface) -> bool:
        return any(link.name == n if exact else link.name.startswith(n) for n in names)

    return [link for link in links if link.running and link.addresses and named(link) != excludes]


def nccl_takes(links: Sequence[Interface]) -> Interface | None:
    """The interface NCCL bootstraps over when none is named."""
    able = [
        link for link in links if link.running and any(not a.is_loopback for a in link.addresses)
    ]
    able += [link for link in links if link.running and link.loopback]
    last = ("docker", "lo", "virbr")
    infiniband = [link for link in able if link.name.startswith("ib")]
    plain_ones = [link for link in able if not link.name.startswith(last)]
    rest = [link for prefix in last for link in able if link.name.startswith(prefix)]
    return next(iter(infiniband + plain_ones + rest), None)


def _look(target: Target) -> Iterator[Finding]:
    try:
        links = interfaces()
    except OSError as error:
        yield unknown("interface", f"the kernel did not list the interfaces: {error.strerror}")
        return
    env, far = environment(target), spans_hosts(target) is True
    evidence = Evidence("interfaces", tuple(map(_line, links[:16])), SEE)
    for variable in (GLOO, NCCL):
        wanted = env.get(variable, "")
        # Both libraries ignore a name of one character without a word.
        if len(wanted) > 1:
            judge = _judge_gloo if variable == GLOO else _judge_nccl
            outcome, sentence, chosen = judge(brief(wanted), wanted, links)
            if outcome == "fine" and chosen:
                outcome, sentence = _reach(chosen, f"{variable}={brief(wanted)}", far)
            data = _data(variable, wanted, chosen, links)
            yield Finding("interface", outcome, sentence, data, (evidence,))
    if not any(link.up and not link.loopback and link.usable for link in links):
        outcome = "none" if far else "only-loopback"
        sentence = "there is no interface that is up and has an address, except loopback"
        yield Finding("interface", outcome, sentence, {}, (evidence,))
        return
    chosen = nccl_takes(links)
    if len(env.get(NCCL, "")) < 2 and chosen:
        outcome, sentence = _reach(chosen, "left alone, NCCL", far and target.backend == "nccl")
        outcome = (
            "nccl-takes" if outcome in ("fine", "virtual-alone", "loopback-alone") else outcome
        )
        data = _data(NCCL, "", chosen, links)
        yield Finding("interface", outcome, sentence, data, (evidence,))
    yield from _routes(target, links)
    for one, other in _same_subnet(links):
        sentence = f"{brief(one.name)} and {brief(other.name)} are in one subnet"
        data = {"interfaces": [brief(one.name), brief(other.name)]}
        yield Finding("interface", "two-in-one-subnet", sentence, data, (evidence,))


def _judge_gloo(
    shown: str, wanted: str, links: Sequence[Interface]
) -> tuple[str, str, Interface | None]:
    """gloo's rule: exact names, separated by commas, and nothing else."""
    by_name = {link.name: link for link in links}
    first: Interface | None = None
    for name in wanted.split(","):
        link = by_name.get(name)
        if link is None:
            if name.startswith(("^", "=")):
                return "wrong-syntax", f"{GLOO}={shown}: gloo knows no ^ and no =", None
            meant = [link.name for link in links if name and link.name.startswith(name)]
            if meant or name != name.strip():
                found = f"; there is {several(meant)}" if meant else ""
                sentence = f"{GLOO}={shown}: gloo wants the exact name{found}"
                return "wrong-syntax", sentence, None
            return "missing", f"{GLOO}={shown}, but there is no interface {brief(name)} here", None
        if not link.up or not link.running:
            return "down", f"{GLOO}={shown}, but {brief(name)} is down", link
        if not any(a.version == 4 or not a.is_link_local for a in link.addresses):
            return "no-address", f"{GLOO}={shown}, but {brief(name)} has no address", link
        first = first or link
    return "fine", "", first


def _judge_nccl(
    shown: str, wanted: str, links: Sequence[Interface]
) -> tuple[str, str, Interface | None]:
    matching = nccl_matches(wanted, links)
    if matching:
        return "fine", "", matching[0]
    every = [Interface(i.name, i.index, i.flags | 0x40, i.mtu, i.kind, i.addresses) for i in links]
    silent = nccl_matches(wanted, every)
    if silent:
        return "down", f"{NCCL}={shown}, but {brief(silent[0].name)} is down", silent[0]
    bare = [link for link in links if link.name == wanted.lstrip("^=")]
    if bare and not wanted.startswith("^"):
        return "no-address", f"{NCCL}={shown}, but {brief(bare[0].name)} has no address", bare[0]
    if any(mark in wanted[1:] for mark in "^*") or wanted != wanted.strip():
        return "wrong-syntax", f"{NCCL}={shown}: a list of prefixes, ^ or = only in front", None
    return "missing", f"{NCCL}={shown}, but no interface here matches", None


def _reach(link: Interface, who: str, far: bool) -> tuple[str, str]:
    alone = "" if far else "-alone"
    where = f"{brief(link.name)} ({several(map(str, link.addresses[:2])) or 'no address'})"
    if link.loopback:
        return "loopback" + alone, f"{who} takes {where}, which no other host can reach"
    if link.virtual:
        made = link.kind or "virtual"
        return "virtual" + alone, f"{who} takes {where}, a {made} interface of this host"
    return "fine", f"{who} takes {where}"


def _routes(target: Target, links: Sequence[Interface]) -> Iterator[Finding]:
    """Through which interface packets to a far endpoint leave."""
    for found in target.found("name.not-ours"):
        for text in found.data.get("addresses", ())[:1]:
            address = plain(text)
            source = address and way_to(address)
            link = next((i for i in links if source in i.addresses), None) if source else None
            if link:
                sentence = f"packets to {text} leave through {brief(link.name)} ({source})"
                data = {"interface": brief(link.name), "address": text, "source": str(source)}
                yield Finding("interface", "route", sentence, data)


def _same_subnet(links: Sequence[Interface]) -> Iterator[tuple[Interface, Interface]]:
    real = [i for i in links if i.up and not i.loopback and not i.virtual]
    for one, other in combinations(real, 2):
        pairs = ((a, b) for a in one.usable for b in other.usable if a.version == b.version == 4)
        if any(a.packed[:3] == b.packed[:3] for a, b in pairs):
            yield one, other


def _line(link: Interface) -> str:
    state = "up" if link.up and link.running else "down"
    kind = f" {link.kind}" if link.kind else ""
    return brief(f"{link.name} {state}{kind} mtu {link.mtu} {' '.join(map(str, link.addresses))}")


def _data(
    variable: str, value: str, chosen: Interface | None, links: Sequence[Interface]
) -> dict[str, Any]:
    good = [i for i in links if i.up and i.running and i.usable and not i.virtual]
    return {
        "variable": variable,
        "value": brief(value),
        "interface": brief(chosen.name) if chosen else None,
        "addresses": [str(a) for a in chosen.addresses] if chosen else [],
        "there_are": [brief(i.name) for i in links],
        "better": brief(good[0].name) if good else None,
    }


def _look_mtu(target: Target) -> Iterator[Finding]:
    for found in target.found("name.not-ours"):
        for text in found.data.get("addresses", ())[:1]:
            address = plain(text)
            if address is None or address.version != 4:
                continue
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
                    trial.connect((text, 9))
                    size = trial.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU, missing in socket
            except OSError as error:
                yield unknown("mtu", f"there is no way to {text}: {error.strerror}")
                continue
            outcome = "jumbo" if size > 1500 else "small" if size < 1280 else "fine"
            extra = "; each switch on the way must carry that" if size > 1500 else ""
            sentence = f"packets to {text} may be {size} bytes long{extra}"
            yield Finding("mtu", outcome, sentence, {"mtu": size, "address": text})


INTERFACE = Probe(
    "interface",
    "Which interface do gloo and NCCL take here?",
    {
        "fine": "ok",
        "missing": "bad",
        "down": "bad",
        "wrong-syntax": "bad",
        "no-address": "bad",
        "loopback": "bad",
        "virtual": "bad",
        "none": "bad",
        "loopback-alone": "info",
        "virtual-alone": "info",
        "only-loopback": "info",
        "nccl-takes": "info",
        "route": "info",
        "two-in-one-subnet": "info",
    },
    _look,
    after=("env", "name"),
)
MTU = Probe(
    "mtu",
    "How long may a packet to the endpoint be?",
    {"fine": "ok", "jumbo": "info", "small": "info"},
    _look_mtu,
    applies=lambda target: bool(target.found("name.not-ours")),
    after=("env", "name"),
)
PROBES: tuple[Probe, ...] = (INTERFACE, MTU)
