"""Names: the endpoint's, this host's own, and the reverse ones that every connection waits for."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddp_assist.probes.child import ask
from ddp_assist.probes.host.processes import read
from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.model import Endpoint, Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.network.links import Address, interfaces, is_ours, plain
from ddp_assist.probes.network.scope import environment, spans_hosts

RESOLVE = Path(__file__).with_name("resolve_child.py")
DEADLINE = 6.0
SLOW = 0.9
"""Seconds, less than the shortest time-out of a resolver; torch asks once for each connection, on
the one thread that serves all ranks."""

# Shapes that only documentation uses: <MASTER_IP>, ${ADDR}, xxx.xxx.xxx.xxx, your-master, 10.x.x.x
PLACEHOLDER = re.compile(
    r"[<>{}$]|^x+([.-]x+)+$|^\d+(\.\d+)*(\.[xX*]+)+$|\b(your|my)[-_. ]?(master|node|host|ip|server)"
    r"|(master|node|host|server|rank)[-_]?\d?[-_]?(ip|addr|address)$|^(ip|addr|address|hostname)$"
    r"|placeholder|change[-_]?me|^todo$|^none$|^null$",
    re.I,
)
EXAMPLE_NETS = re.compile(r"^(192\.0\.2|198\.51\.100|203\.0\.113)\.\d+$")
# Values of netdb.h: the server did not answer, against: there is no such name.
TRY_AGAIN = -3


@dataclass(frozen=True, slots=True)
class Resolved:
    """The resolver's answers by word, and why a word may have none."""

    answers: Mapping[str, dict[str, Any]]
    late: bool
    because: str

    def get(self, word: str) -> dict[str, Any] | None:
        return self.answers.get(word)


def resolve(names: Sequence[str], reverse: Sequence[str] = ()) -> Resolved:
    """Asks the resolver, which can hang, in a child."""
    if not names and not reverse:
        return Resolved({}, False, "")
    answer = ask(RESOLVE, {"names": names, "reverse": reverse}, deadline=DEADLINE - 1)
    by_word = {v["word"]: v for v in answer.values if isinstance(v, dict) and "word" in v}
    return Resolved(by_word, answer.ended == "deadline", answer.because)


def hosts(endpoints: Iterable[Endpoint]) -> dict[str, Endpoint]:
    return {e.host: e for e in reversed(list(endpoints)) if e.host}


def _look_name(target: Target) -> Iterator[Finding]:
    several_hosts = spans_hosts(target)
    wanted = hosts(target.endpoints)
    asked = [h for h in wanted if plain(h) is None and not _malformed(h)]
    answers = resolve(asked)
    for host, endpoint in wanted.items():
        data: dict[str, Any] = {"host": brief(host, 253), "origin": brief(endpoint.origin)}
        shown = f"{brief(host)} ({brief(endpoint.origin)})"
        see = (Evidence("resolver", see=("getent", "ahosts", brief(host, 253))),)
        if bad := _malformed(host):
            yield Finding("name", bad[0], f"{shown} {bad[1]}", data, see)
            continue
        literal = plain(host)
        answer: dict[str, Any] | None = (
            {"addresses": [str(literal)], "seconds": 0.0} if literal else answers.get(host)
        )
        if answer is None:
            yield unknown("name", f"nothing was learnt of {shown}: {answers.because}", *see, **data)
            continue
        data["seconds"] = round(answer["seconds"], 3)
        if "addresses" not in answer:
            if PLACEHOLDER.search(host):
                yield Finding(
                    "name", "placeholder", f"{shown} is a placeholder, not a host", data, see
                )
                continue
            data |= {"code": answer["code"], "servers": name_servers()}
            reason = brief(answer["error"])
            if answer["code"] == TRY_AGAIN:
                reason += "; the name service gave no answer"
            yield Finding(
                "name", "unresolvable", f"{shown} does not resolve here: {reason}", data, see
            )
            continue
        found = [a for a in map(plain, answer["addresses"]) if a]
        data["addresses"] = [str(a) for a in found]
        if host.isdecimal():
            sentence = f"{shown} is only digits, so it is read as the address {found[0]}"
            yield Finding("name", "digits", sentence, data, see)
            continue
        if EXAMPLE_NETS.match(host) and not any(map(is_ours, found)):
            yield Finding(
                "name", "placeholder", f"{shown} is an address kept for examples", data, see
            )
            continue
        where = several(map(str, found))
        yield Finding("name", "resolves", f"{shown} is {where}", data, see)
        yield from _whose(found, shown, data, several_hosts)


def _whose(
    found: list[Address], shown: str, data: dict[str, Any], several_hosts: bool | None
) -> Iterator[Finding]:
    if several_hosts and all(a.is_loopback for a in found):
        sentence = f"{shown} is the loopback address {found[0]}, but the job spans several hosts"
        yield Finding("name", "loopback-for-several-hosts", sentence, data)
    elif any(map(is_ours, found)):
        yield Finding("name", "ours", f"{shown} is this host", data)
    else:
        yield Finding("name", "not-ours", f"{shown} is another host", data)


def _malformed(host: str) -> tuple[str, str] | None:
    """What can be said against a host's text without asking anybody."""
    if re.search(r"[<>{}$]", host) or re.fullmatch(r"x+([.-]x+)+", host, re.I):
        return "placeholder", "is a placeholder, not a host"
    if len(host) > 253:
        return "malformed", f"is {len(host)} characters long; no host name is longer than 253"
    if not host.isprintable() or host != host.strip():
        return "malformed", "holds characters that no host name has"
    if "://" in host or "/" in host:
        return "malformed", "is a URL or a path; a host name or an address is wanted"
    if "@" in host:
        return "malformed", "names a user; a host name or an address is wanted"
    if plain(host) is None and re.fullmatch(r"\[?[^\s:]+\]?:\d+", host):
        return "malformed", "holds a port, which belongs into a variable of its own"
    if re.search(r"[\s,;]", host):
        return "malformed", "holds a blank or a comma: one host is wanted"
    if re.fullmatch(r"\d+(\.\d+){3}", host) and plain(host) is None:
        return "malformed", "looks like an address, but is none"
    return None


def name_servers() -> list[str]:
    lines = (read("/etc/resolv.conf", 65536) or b"").decode("utf-8", "replace").splitlines()
    return [brief(w[1]) for w in map(str.split, lines) if len(w) > 1 and w[0] == "nameserver"][:3]


def _look_own_name(target: Target) -> Iterator[Finding]:
    own = socket.gethostname()
    shown = brief(own)
    data: dict[str, Any] = {"hostname": brief(own, 253)}
    resolved = resolve([own])
    answer = resolved.get(own)
    see = (Evidence("resolver", see=("getent", "ahosts", brief(own, 253))),)
    if answer is None:
        yield unknown(
            "own-name", f"nothing was learnt of {shown}: {resolved.because}", *see, **data
        )
        return
    # With an interface named gloo does not ask for its own name, and NCCL never does.
    matters = spans_hosts(target) and target.backend != "nccl"
    matters = matters and not environment(target).get("GLOO_SOCKET_IFNAME")
    alone = "" if matters else "-alone"
    data["seconds"] = round(answer["seconds"], 3)
    found = [a for a in map(plain, answer.get("addresses", ())) if a]
    data["addresses"] = [str(a) for a in found]
    first = next(filter(is_ours, found), None)
    data["gloo_takes"] = str(first) if first else "127.0.0.1"
    if not found:
        data["code"] = answer.get("code")
        reason = brief(str(answer.get("error")))
        sentence = f"this host's own name {shown} does not resolve: {reason}"
        yield Finding("own-name", "unresolvable" + alone, sentence, data, see)
    elif first is None:
        where = several(map(str, found))
        sentence = f"this host's own name {shown} is {where}, which this host does not have"
        yield Finding("own-name", "wrong-address" + alone, sentence, data, see)
    elif first.is_loopback:
        sentence = f"this host's own name {shown} is the loopback address {first}"
        yield Finding("own-name", "loopback" + alone, sentence, data, see)
    else:
        yield Finding("own-name", "fine", f"this host's own name {shown} is {first}", data, see)


def _look_reverse(target: Target) -> Iterator[Finding]:
    ours = [a for i in interfaces() if i.up and not i.loopback for a in i.usable if a.version == 4]
    known = [plain(a) for f in target.found("name.not-ours") for a in f.data.get("addresses", ())]
    asked = [str(a) for a in [*ours[:2], *[a for a in known if a][:2]]]
    if not asked:
        yield Finding("reverse-dns", "nothing-to-ask", "there is no address to look up in reverse")
        return
    answers = resolve([], asked)
    for address in asked:
        see = (Evidence("resolver", see=("getent", "hosts", address)),)
        answer = answers.get(address)
        if answer is None and not answers.late:
            yield unknown("reverse-dns", f"{address} was not looked up: {answers.because}", *see)
            return
        seconds = round(answer["seconds"], 3) if answer else DEADLINE - 1
        data = {"address": address, "seconds": seconds, "servers": name_servers()}
        if answer is None or seconds > SLOW:
            took = f"{seconds:g} s" if answer else f"more than {seconds:g} s"
            sentence = (
                f"the reverse look-up of {address} takes {took}; each connection waits for one"
            )
            yield Finding("reverse-dns", "slow", sentence, data, see)
            return
    quick = max(answer["seconds"] for answer in answers.answers.values())
    sentence = f"reverse look-ups are answered within {quick:.3f} s"
    yield Finding(
        "reverse-dns", "fast", sentence, {"address": asked[0], "seconds": round(quick, 3)}
    )


NAME = Probe(
    "name",
    "What is the endpoint's name, and whose address is it?",
    {
        "resolves": "ok",
        "ours": "info",
        "not-ours": "info",
        "unresolvable": "bad",
        "loopback-for-several-hosts": "bad",
        "placeholder": "bad",
        "malformed": "bad",
        "digits": "bad",
    },
    _look_name,
    applies=lambda target: any(e.host for e in target.endpoints),
    deadline=DEADLINE + 1,
    after=("env",),
)
OWN_NAME = Probe(
    "own-name",
    "Does this host's own name lead to an address that others can reach?",
    {
        "fine": "ok",
        "loopback": "bad",
        "unresolvable": "bad",
        "wrong-address": "bad",
        "loopback-alone": "info",
        "unresolvable-alone": "info",
        "wrong-address-alone": "info",
    },
    _look_own_name,
    deadline=DEADLINE + 1,
    after=("env", "name"),
)
REVERSE = Probe(
    "reverse-dns",
    "How long does a connection wait for the name of the other side?",
    {"fast": "ok", "slow": "bad", "nothing-to-ask": "info"},
    _look_reverse,
    deadline=DEADLINE + 1,
    after=("env", "name"),
)
PROBES: tuple[Probe, ...] = (NAME, OWN_NAME, REVERSE)
