"""The endpoint itself: one connect(), told apart, and what stands between us and it."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ddp_assist.probes.host.processes import look as process_of
from ddp_assist.probes.host.processes import read
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Endpoint, Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network import firewall
from ddp_assist.probes.network.links import Address, is_ours, plain, way_to
from ddp_assist.probes.network.ports import bind_error
from ddp_assist.probes.network.scope import spans_hosts
from ddp_assist.probes.network.sockets import owner, tcp
from ddp_assist.probes.network.store import Spoken, fingerprint

PATIENCE = 4.0
"""Longer than the three seconds in which the kernel asks for a neighbour's address."""
AT_ONCE = 1.0
QUIET_PORT = 1
"""tcpmux: a port that nobody uses, so that a host that is up answers with a reset."""

CANDIDATES = (29400, 29501, 29600, 12355, 23456)
"""Ports that jobs often meet at, where the one that was asked for is shut."""

Reached = Literal["connected", "refused", "reset", "no-answer", "unreachable", "no-route", "failed"]


@dataclass(frozen=True, slots=True)
class Knock:
    """How one connect() went."""

    port: int
    reached: Reached
    seconds: float
    code: int = 0

    @property
    def answered(self) -> bool:
        """Whether the host itself answered, with yes or no."""
        return self.reached in ("connected", "refused", "reset")


def knock(address: Address, ports: Sequence[int], patience: float = PATIENCE) -> list[Knock]:
    """Connect to some ports of one host side by side, send nothing, and hang up."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    began = time.monotonic()
    done: dict[int, Knock] = {}
    with selectors.DefaultSelector() as waiting:
        for port in ports:
            trial = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            code = trial.connect_ex((str(address), port))
            if code in (errno.EINPROGRESS, errno.EAGAIN):
                waiting.register(trial, selectors.EVENT_WRITE, port)
            else:
                done[port] = Knock(port, _reached(code), time.monotonic() - began, code)
                trial.close()
        while waiting.get_map() and (left := began + patience - time.monotonic()) > 0:
            for key, _ in waiting.select(left):
                trial = key.fileobj  # type: ignore[assignment]
                code = trial.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                waiting.unregister(trial)
                trial.close()
                done[key.data] = Knock(key.data, _reached(code), time.monotonic() - began, code)
        for key in list(waiting.get_map().values()):
            trial = key.fileobj  # type: ignore[assignment]
            trial.close()
            done[key.data] = Knock(key.data, "no-answer", time.monotonic() - began)
    return [done[port] for port in ports]


def _reached(code: int) -> Reached:
    known: dict[int, Reached] = {
        0: "connected",
        errno.ECONNREFUSED: "refused",
        errno.ECONNRESET: "reset",
        errno.ETIMEDOUT: "no-answer",
        errno.EHOSTUNREACH: "unreachable",
        errno.ENETUNREACH: "no-route",
    }
    return known.get(code, "failed")


def neighbour(address: Address) -> bool | None:
    """Whether the host answers on our own network; None where it is not a neighbour (or IPv6)."""
    asked = asked_for(address)
    return asked and asked[1]


def asked_for(address: Address) -> tuple[str, bool] | None:
    """The link on which the kernel asked for a neighbour, and whether there was an answer."""
    for line in (read("/proc/net/arp", 1 << 20) or b"").decode("ascii", "replace").splitlines()[1:]:
        fields = line.split()
        if len(fields) > 5 and fields[0] == str(address):
            return fields[5], bool(int(fields[2], 16) & 0x2)
    return None


def _places(target: Target) -> Iterator[tuple[Endpoint, list[Address]]]:
    """Each endpoint with the addresses that the name probe found for it."""
    by_host = {
        f.data.get("host"): f.data.get("addresses", ()) for f in target.found("name.resolves")
    }
    seen: set[tuple[str, int]] = set()
    for endpoint in target.endpoints:
        port = endpoint.port
        if port is None or not 0 < port < 65536 or (endpoint.host, port) in seen:
            continue
        seen.add((endpoint.host, port))
        texts = by_host.get(brief(endpoint.host, 253), (endpoint.host,))
        addresses = [a for a in map(plain, texts) if a]
        if addresses:
            yield endpoint, addresses


def _look(target: Target) -> Iterator[Finding]:
    for endpoint, addresses in _places(target):
        assert endpoint.port is not None
        address = next((a for a in addresses if a.version == 4), addresses[0])
        ours = is_ours(address)
        spoken = _known(target, address, endpoint.port, ours) or fingerprint(
            str(address), endpoint.port, PATIENCE
        )
        others: list[Knock] = []
        if not ours and spoken.answer not in ("store", "http", "other", "silent"):
            others = knock(address, [QUIET_PORT])
        shown = f"{brief(endpoint.host)}:{endpoint.port}"
        data: dict[str, Any] = {
            "host": brief(endpoint.host, 253),
            "port": endpoint.port,
            "address": str(address),
            "ours": ours,
            "errno": errno.errorcode.get(spoken.error) if spoken.error else None,
            "seconds": spoken.seconds,
            "speaks": spoken.answer,
            "other_port_answers": any(o.answered for o in others) if others else None,
            "neighbour": None if ours else neighbour(address),
        }
        see = (
            Evidence("connect()", see=("nc", "-vz", "-w", "4", str(address), str(endpoint.port))),
        )
        outcome, so = _judged(spoken, ours)
        if outcome == "unreachable" and data["neighbour"] is False:
            outcome, so = "nobody-there", "has an address of our own network that nobody answers to"
        yield Finding("endpoint", outcome, f"{shown} {so}", data, see)


def _known(target: Target, address: Address, port: int, ours: bool) -> Spoken | None:
    """What the kernel shows of a live job's store, which is not to be touched without a yes.

    While all ranks still try to meet, a connection of theirs proves no store at its other end.
    """
    if target.may_touch or (target.job is None and target.beside is None):
        return None
    meeting = bool(target.found("job.meeting"))
    for found in tcp():
        at_it = (found.peer, found.peer_port) == (str(address), port)
        if found.state == "established" and at_it and not meeting:
            return Spoken("store", 0.0)
        if ours and found.state == "listen" and found.port == port:
            holder = owner(found.inode)
            process = process_of(holder) if holder else None
            names = (process.thread_names if process else None) or ()
            stores = any(name.startswith("pt_tcpstore") for name in names)
            return Spoken("store" if stores else "silent", 0.0)
    return None


def _judged(spoken: Spoken, ours: bool) -> tuple[str, str]:
    reason = os.strerror(spoken.error) if spoken.error else "for no known reason"
    if spoken.answer == "refused" and ours:
        return "not-yet", "is on this host, and nothing listens there yet"
    # A table, and no match: a node of a fleet may have nothing newer than Python 3.9.
    known = {
        "store": ("store", "is answered by a torch store"),
        "http": ("other", "is answered by a web server, no torch store"),
        "other": ("other", "is answered, but by no torch store"),
        "silent": ("silent", "takes connections, but says nothing"),
        "refused": ("refused", "answers, but nothing listens on that port"),
        "reset": ("reset", "hangs up at once"),
        "no-answer": ("no-answer", f"gave no answer within {spoken.seconds:.0f} s"),
        "unreachable": (
            "unreachable", f"can't be reached after {spoken.seconds:.1f} s: {reason}"
        ),
        "no-route": ("no-route", f"can't be reached, because there is no route: {reason}"),
    }  # fmt: skip
    return known.get(spoken.answer, ("failed", f"can't be connected to: {reason}"))


def _look_firewall(target: Target) -> Iterator[Finding]:
    """From outside what the knocks say; at home what the rules say."""
    answers: list[Finding] = []
    for found in target.found("endpoint.*"):
        if not found.data.get("ours") and "port" in found.data:
            answers += _from_outside(found)
    if (rules_say := _at_home(target)) is not None:
        answers += rules_say
    yield from answers


def _from_outside(found: Finding) -> Iterator[Finding]:
    port, address = found.data["port"], found.data["address"]
    alive = found.data.get("other_port_answers") or found.data.get("neighbour")
    data = {"port": port, "address": address, "side": "outside"}
    where = f"port {port} of {address}"
    if found.outcome == "no-answer" and alive:
        why = (
            "another port answers"
            if found.data.get("other_port_answers")
            else "it is on the network"
        )
        sentence = f"{where} gives no answer although the host is up ({why}): packets are dropped"
        data["open_port"] = _let_through(address)
        yield Finding("firewall", "drops", sentence, data, found.evidence)
    elif found.outcome in ("unreachable", "failed") and found.data["seconds"] < AT_ONCE and alive:
        sentence = f"{where} is refused by a filter ({found.data['errno']}) although the host is up"
        data["open_port"] = _let_through(address)
        yield Finding("firewall", "rejects", sentence, data, found.evidence)
    elif found.outcome in ("store", "other", "silent", "refused"):
        yield Finding("firewall", "open", f"{where} is reached", data, found.evidence)


def _let_through(address: str) -> int | None:
    """A port of that host that is free and reached, if data ports are reached too."""
    host = plain(address)
    if host is None:
        return None
    knocks = knock(host, [*CANDIDATES, *_high_ports()], AT_ONCE)
    if not any(k.answered for k in knocks[len(CANDIDATES) :]):
        return None
    return next((k.port for k in knocks[: len(CANDIDATES)] if k.reached == "refused"), None)


def _let_in(rules: firewall.Rules) -> int | None:
    """The same of this host, by its rules."""
    verdicts = {p: rules.judge(p).verdict for p in (*CANDIDATES, *_high_ports())}
    if all(verdicts[p] != "open" for p in _high_ports()):
        return None
    free = (p for p in CANDIDATES if verdicts[p] == "open" and bind_error(p) == 0)
    return next(free, None)


def _at_home(target: Target) -> list[Finding] | None:
    ports = {
        endpoint.port
        for endpoint, addresses in _places(target)
        if any(is_ours(a) and not a.is_loopback for a in addresses) and endpoint.port
    }
    if not ports:
        return None
    see = (Evidence("nftables", see=("sudo", "nft", "list", "ruleset")),)
    try:
        rules = firewall.read_rules()
    except firewall.Unreadable as why:
        return [unknown("firewall", f"the rules can't be read: {brief(str(why))}", *see)]
    found = []
    old = list(firewall.old_tables())
    for port in sorted(ports):
        answer = rules.judge(port)
        rule = brief(answer.rule, 300)
        data = {"port": port, "side": "here", "rule": rule}
        evidence = (Evidence("nftables", (rule,) if rule else (), see[0].see),)
        if answer.verdict in ("drops", "rejects"):
            sentence = f"a rule of this host {answer.verdict} connections to port {port}"
            data["open_port"] = None if old else _let_in(rules)
            found.append(Finding("firewall", answer.verdict, sentence, data, evidence))
        elif answer.verdict == "perhaps" or old:
            by = rule or "tables of the older iptables"
            sentence = f"this host filters, and perhaps port {port} too: {by}"
            found.append(Finding("firewall", "perhaps", sentence, data, evidence))
        else:
            sentence = f"no rule of this host keeps others from port {port}"
            found.append(Finding("firewall", "open", sentence, data, evidence))
    return found


def _look_data_ports(target: Target) -> Iterator[Finding]:
    """Ranks connect to each other on ephemeral ports, which a filter may block although it lets
    the rendezvous through."""
    trials = _high_ports()
    for found in target.found(
        "endpoint.store", "endpoint.other", "endpoint.silent", "endpoint.refused"
    ):
        address = plain(str(found.data.get("address", "")))
        if address is None or found.data.get("ours"):
            continue
        knocks = knock(address, trials, 2.0)
        data = {"address": str(address), "ports": trials, "side": "outside"}
        see = (Evidence("connect()", see=("nc", "-vz", "-w", "2", str(address), str(trials[0]))),)
        if any(k.answered for k in knocks):
            yield Finding("data-ports", "open", f"high ports of {address} are reached", data, see)
        else:
            sentence = (
                f"the high ports of {address} are blocked, though port {found.data['port']} is open"
            )
            yield Finding("data-ports", "blocked", sentence, data, see)
    if not spans_hosts(target) or not any(way_to(a) for _, each in _places(target) for a in each):
        return
    try:
        rules = firewall.read_rules()
    except firewall.Unreadable as why:
        yield unknown("data-ports", f"the rules of this host can't be read: {brief(str(why))}")
        return
    answers = [rules.judge(port) for port in trials]
    shut = [a for a in answers if a.verdict in ("drops", "rejects")]
    data = {"ports": trials, "side": "here", "rule": brief(shut[0].rule, 300) if shut else ""}
    if len(shut) == len(answers):
        sentence = f"a rule of this host {shut[0].verdict} connections to ports like {trials[0]}"
        yield Finding("data-ports", "blocked", sentence, data)
    elif any(a.verdict == "perhaps" for a in answers):
        yield unknown("data-ports", "a rule of this host may block them", **data)
    else:
        yield Finding("data-ports", "open", "this host lets others reach its high ports", data)


def _high_ports() -> list[int]:
    """A few of those that ranks connect to each other at."""
    low, high = ephemeral()
    return [low + (high - low) * part // 7 for part in (2, 3, 5)]


def ephemeral() -> tuple[int, int]:
    """The ports the kernel gives to whoever asks for any."""
    words = (read("/proc/sys/net/ipv4/ip_local_port_range", 64) or b"").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 else (32768, 60999)


ENDPOINT = Probe(
    "endpoint",
    "What answers at the endpoint?",
    {
        "store": "ok",
        "not-yet": "info",
        "other": "bad",
        "silent": "bad",
        "refused": "bad",
        "reset": "bad",
        "no-answer": "bad",
        "unreachable": "bad",
        "nobody-there": "bad",
        "no-route": "bad",
        "failed": "bad",
    },
    _look,
    applies=lambda target: bool(target.endpoints),
    deadline=12.0,
    needs=frozenset({"network"}),
    after=("env", "name", "job"),
)
FIREWALL = Probe(
    "firewall",
    "Does a packet filter stand in front of the endpoint?",
    {"open": "ok", "drops": "bad", "rejects": "bad", "perhaps": "info"},
    _look_firewall,
    applies=lambda target: bool(target.endpoints),
    deadline=6.0,
    after=("env", "name", "endpoint"),
)
DATA_PORTS = Probe(
    "data-ports",
    "Can ranks reach each other besides the rendezvous port?",
    {"open": "ok", "blocked": "bad"},
    _look_data_ports,
    applies=lambda target: bool(target.endpoints),
    deadline=10.0,
    needs=frozenset({"network"}),
    after=("env", "name", "endpoint"),
)
PROBES: tuple[Probe, ...] = (ENDPOINT, FIREWALL, DATA_PORTS)
