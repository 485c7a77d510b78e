"""One connect() told apart, and the filters in front of it: real sockets, namespaces and rules."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from asking import AS_NOBODY

from ddp_assist.probes.model import Finding
from ddp_assist.probes.network import endpoint, firewall
from ddp_assist.probes.network.endpoint import DATA_PORTS, ENDPOINT, FIREWALL, knock
from ddp_assist.probes.network.firewall import Rules, parse

Ask = Callable[..., dict[str, Finding]]
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
MODULES = ("network.names", "network.endpoint")
NODE0, GONE, AWAY = "10.66.0.1", "10.66.0.9", "10.99.0.1"


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Listens on loopback and does with each connection what it is told."""
    listeners: list[socket.socket] = []

    def serve(do: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    do(connection)

        threading.Thread(target=loop, daemon=True).start()
        return int(listener.getsockname()[1])

    yield serve
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def as_store(connection: socket.socket) -> None:
    connection.recv(6)
    connection.sendall(struct.pack("<q", 3))


def as_other(connection: socket.socket) -> None:
    connection.recv(6)
    connection.sendall(b"SSH-2.0-something\r\n")


def hang_up(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(64):
        pass


def test_a_server_that_says_nothing(
    ask: Ask, server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.3)
    assert set(ask(ENDPOINT, at=[("127.0.0.1", server(say_nothing))])) == {"endpoint.silent"}


def test_a_store_and_another_server(ask: Ask, server: Callable[..., int]) -> None:
    for do, outcome in ((as_store, "store"), (as_other, "other"), (hang_up, "reset")):
        found = ask(ENDPOINT, at=[("127.0.0.1", server(do))])
        assert set(found) == {f"endpoint.{outcome}"}


def test_nobody_listens_here_yet(ask: Ask) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        found = ask(ENDPOINT, FIREWALL, DATA_PORTS, at=[("127.0.0.1", port)])
    assert set(found) - {"data-ports.open", "data-ports.unknown"} == {"endpoint.not-yet"}


def test_ports_that_are_none_are_not_connected_to(ask: Ask) -> None:
    assert ask(ENDPOINT, at=[("127.0.0.1", 0), ("127.0.0.1", 70000), ("127.0.0.1", None)]) == {}
    assert ask(ENDPOINT) == {}


def test_knocking_tells_answers_apart(server: Callable[..., int]) -> None:
    port = server(as_store)
    open_, refused = knock(ip_address("127.0.0.1"), [port, 1])
    assert (open_.reached, refused.reached) == ("connected", "refused")
    assert open_.answered and refused.answered


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces on one wire: 10.66.0.1 and 10.66.0.2."""
    one, two = f"ddpa{os.getpid()}a", f"ddpa{os.getpid()}b"
    commands = [
        f"netns add {one}",
        f"netns add {two}",
        f"-n {one} link add eth0 type veth peer name eth0 netns {two}",
        f"-n {one} addr add {NODE0}/24 dev eth0",
        f"-n {two} addr add 10.66.0.2/24 dev eth0",
        *(f"-n {name} link set {dev} up" for name in (one, two) for dev in ("lo", "eth0")),
    ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield one, two
    finally:
        for name in (one, two):
            subprocess.run(["ip", "netns", "del", name], check=False)


def rules(name: str, text: str) -> None:
    subprocess.run(
        ["ip", "netns", "exec", name, "nft", "-f", "-"], input=text, text=True, check=True
    )


def chain(*lines: str, policy: str = "accept") -> str:
    body = "\n".join(lines)
    return (
        "table inet t {\n chain in {\n type filter hook input priority 0; "
        f"policy {policy};\n{body}\n}}\n}}\n"
    )


@pytest.mark.as_root
@pytest.mark.needs("namespaces", "ip", "nft")
@pytest.mark.parametrize(
    ("ruleset", "host", "expected"),
    [
        ("", NODE0, {"endpoint.refused", "firewall.open", "data-ports.open"}),
        ("", GONE, {"endpoint.nobody-there"}),
        ("", AWAY, {"endpoint.no-route"}),
        (chain("tcp dport 29500 drop"), NODE0, {"endpoint.no-answer", "firewall.drops"}),
        (
            chain("tcp dport 29500 reject with icmpx type admin-prohibited"),
            NODE0,
            {"endpoint.unreachable", "firewall.rejects"},
        ),
        (
            chain("tcp dport { 22, 29500 } accept", policy="drop"),
            NODE0,
            {"endpoint.refused", "firewall.open", "data-ports.blocked"},
        ),
        (
            chain("ct state established accept", policy="drop"),
            NODE0,
            {"endpoint.no-answer", "firewall.drops"},
        ),
    ],
)
def test_from_another_host(
    two_hosts: tuple[str, str],
    ask_elsewhere: Elsewhere,
    ruleset: str,
    host: str,
    expected: set[str],
) -> None:
    one, two = two_hosts
    if ruleset:
        rules(one, ruleset)
    found = ask_elsewhere(["ip", "netns", "exec", two], *MODULES, at=((host, 29500),))
    seen = {key for key in found if key.startswith(("endpoint.", "firewall.", "data-ports."))}
    # What this host's own rules say is another question; here it has none.
    own = (
        {"data-ports.open"}
        if found.get("data-ports.open", ("", {"side": ""}))[1]["side"] == "here"
        else set()
    )
    assert seen - own == expected - own


@pytest.mark.needs("namespaces", "ip", "setpriv")
def test_the_meeting_place_of_others(two_hosts: tuple[str, str], ask_elsewhere: Elsewhere) -> None:
    """A host that starts no rank judges by the network that it shares with those that do."""
    two = two_hosts[1]

    def told(*hosts: str, at: str) -> str:
        lines = [f"ssh {host} 'RANK={rank} python t.py'" for rank, host in enumerate(hosts)]
        launch = ["bash", "-c", " & ".join(lines)]
        before = ["ip", "netns", "exec", two]
        found = ask_elsewhere(before, "network.aside", at=((at, 29500),), launch=launch)
        return " ".join(found)

    assert told(NODE0, at=GONE) == "aside.nobody-there"
    # It may be the place of one that is only down, of this host, or on a network beyond.
    assert told(NODE0, GONE, at=GONE) == "aside.not-judged"
    assert told(NODE0, at=NODE0) == "aside.not-judged"
    assert told(NODE0, at="10.66.0.2") == "aside.not-judged"
    assert told(NODE0, at=AWAY) == "aside.not-judged"
    assert told(AWAY, at=GONE) == "aside.not-judged"
    assert told(NODE0, "nowhere.invalid", at=GONE) == "aside.not-judged"
    # Here as well a rank is started: what is reached from here counts then.
    assert told(NODE0, "10.66.0.2", at=GONE) == ""


@pytest.mark.as_root
@pytest.mark.needs("namespaces", "ip", "nft")
@pytest.mark.parametrize(
    ("ruleset", "port_verdict", "data_verdict"),
    [
        ("", "open", "open"),
        (chain('iifname "lo" accept', "tcp dport 29500 drop"), "drops", "open"),
        (chain("tcp dport 29000-29999 reject"), "rejects", "open"),
        (chain("tcp dport { 22, 29500 } accept", policy="drop"), "open", "blocked"),
        (
            chain(
                "ct state { established, related } accept", "udp dport 29500 accept", policy="drop"
            ),
            "drops",
            "blocked",
        ),
        (chain("ip saddr 10.0.0.0/8 accept", "tcp dport 29500 drop"), "drops", "open"),
        (chain("ip saddr 10.1.2.3 tcp dport 29500 drop"), "perhaps", "open"),
        (chain("tcp dport 29500 accept", "tcp flags syn drop"), "open", "blocked"),
        (chain("tcp flags & (fin|syn|rst|ack) == syn drop"), "drops", "blocked"),
    ],
)
def test_rules_of_this_host(
    two_hosts: tuple[str, str],
    ask_elsewhere: Elsewhere,
    ruleset: str,
    port_verdict: str,
    data_verdict: str,
) -> None:
    one, _ = two_hosts
    if ruleset:
        rules(one, ruleset)
    env = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    found = ask_elsewhere(["ip", "netns", "exec", one], *MODULES, at=((NODE0, 29500),), env=env)
    seen = {key for key in found if key.startswith(("firewall.", "data-ports."))}
    assert seen == {f"firewall.{port_verdict}", f"data-ports.{data_verdict}"}


@pytest.mark.as_root
@pytest.mark.needs("namespaces", "ip", "nft", "setpriv")
def test_from_another_host_without_any_right(
    two_hosts: tuple[str, str], ask_elsewhere: Elsewhere
) -> None:
    """What a connect() tells needs no right: one look at several endpoints."""
    one, two = two_hosts
    rules(
        one, chain("tcp dport 1024-65535 drop", "tcp dport 81 reject with icmpx admin-prohibited")
    )
    at = ((NODE0, 80), (NODE0, 81), (NODE0, 29500), (GONE, 29500), (AWAY, 29500))
    found = ask_elsewhere(["ip", "netns", "exec", two, *AS_NOBODY], *MODULES, at=at)
    seen = {key for key in found if key.startswith(("endpoint.", "firewall.", "data-ports."))}
    assert seen == {
        "endpoint.refused", "endpoint.unreachable", "endpoint.no-answer", "endpoint.no-route",
        "endpoint.nobody-there",
        "firewall.open", "firewall.rejects", "firewall.drops", "data-ports.blocked",
        "data-ports.unknown",
    }  # fmt: skip


@pytest.mark.needs("namespaces", "ip", "setpriv")
def test_rules_that_may_not_be_read(two_hosts: tuple[str, str], ask_elsewhere: Elsewhere) -> None:
    user = ["setpriv", "--reuid", "65534", "--clear-groups"]
    found = ask_elsewhere(
        ["ip", "netns", "exec", two_hosts[0], *user], *MODULES, at=((NODE0, 29500),)
    )
    assert "firewall.unknown" in found and "endpoint.not-yet" in found


def test_no_tool_to_read_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firewall, "TOOLS", "/nowhere")
    with pytest.raises(firewall.Unreadable, match="no nft"):
        firewall.read_rules()


def judged(*exprs: list[dict[str, Any]], policy: str = "accept", port: int = 29500) -> str:
    key = {"family": "inet", "table": "t"}
    base = {
        "chain": {
            **key,
            "name": "in",
            "hook": "input",
            "type": "filter",
            "prio": 0,
            "policy": policy,
        }
    }
    entries = [base, {"chain": {**key, "name": "sub"}}]
    entries += [{"rule": {**key, "chain": "in", "expr": list(e)}} for e in exprs]
    entries.append({"rule": {**key, "chain": "sub", "expr": [dport(29500), {"drop": None}]}})
    entries.append({"set": {**key, "name": "mine", "elem": [{"range": [29000, 30000]}]}})
    return parse({"nftables": entries}).judge(port).verdict


def dport(right: Any, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    return {"match": {"op": op, "left": left, "right": right}}


DROP: dict[str, Any] = {"drop": None}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (judged(), "open"),
        (judged(policy="drop"), "drops"),
        (judged([dport(29500), DROP]), "drops"),
        (judged([dport(29500, "!="), DROP]), "open"),
        (judged([dport("@mine"), DROP]), "drops"),
        (judged([dport("@mine"), DROP], port=22), "open"),
        (judged([{"jump": {"target": "sub"}}]), "drops"),
        (judged([{"jump": {"target": "sub"}}], port=22), "open"),
        (judged([{"jump": {"target": "none"}}]), "open"),
        (
            judged(
                [
                    {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}},
                    DROP,
                ]
            ),
            "perhaps",
        ),
        (
            judged(
                [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, DROP]
            ),
            "open",
        ),
        (judged([{"xt": None}, DROP]), "perhaps"),
        (judged([{"xt": None}, {"accept": None}], policy="drop"), "drops"),
        (judged([{"counter": {"packets": 0}}, {"reject": {"type": "tcp reset"}}]), "rejects"),
    ],
)
def test_how_rules_are_read(answer: str, verdict: str) -> None:
    assert answer == verdict


def test_a_chain_that_jumps_to_itself_ends() -> None:
    key = ("inet", "t", "in")
    loop = Rules(chains={key: [[{"jump": {"target": "in"}}]]}, bases=[(key, 0, "accept")])
    assert loop.judge(1).verdict == "open"


def test_an_endpoint_out_of_the_ordinary(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors that no machine here gives on demand: the kernel's word alone is made up."""
    for error, outcome in ((13, "failed"), (97, "failed")):
        spoken = endpoint.Spoken("denied", 0.1, error=error)
        monkeypatch.setattr(endpoint, "fingerprint", lambda *_, s=spoken: s)
        found = ask(ENDPOINT, at=[("127.0.0.1", 29500)])
        assert set(found) == {f"endpoint.{outcome}"}
        json.dumps(dict(found[f"endpoint.{outcome}"].data))
