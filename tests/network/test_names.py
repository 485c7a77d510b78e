"""Names: with a hosts file, a resolver and a name server of our own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.model import Finding
from ddp_assist.probes.network import names
from ddp_assist.probes.network.names import NAME, OWN_NAME, REVERSE, resolve

Ask = Callable[..., dict[str, Finding]]
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
PATH = {"PATH": os.environ["PATH"]}
TWO_NODES = ["torchrun", "--nnodes=2", "--master-addr=m", "--master-port=29500", "t.py"]


def keys(found: dict[str, Any], probe: str) -> set[str]:
    return {key.partition(".")[2] for key in found if key.startswith(probe + ".")}


@pytest.mark.parametrize(
    ("host", "outcome"),
    [
        ("<MASTER_IP>", "placeholder"),
        ("$MASTER_ADDR", "placeholder"),
        ("{{ master }}", "placeholder"),
        ("xxx.xxx.xxx.xxx", "placeholder"),
        ("your-master-node.invalid", "placeholder"),
        ("192.0.2.17", "placeholder"),
        ("10.0.0.1:29500", "malformed"),
        ("tcp://10.0.0.1", "malformed"),
        ("10.0.0.1, 10.0.0.2", "malformed"),
        ("10.0.0.1\r", "malformed"),
        ("10.0.0.300", "malformed"),
        ("h" * 4000, "malformed"),
        ("no-such-host.invalid", "unresolvable"),
        ("29500", "digits"),
        ("x" * 70, "unresolvable"),
    ],
)
def test_hosts_that_are_none(ask: Ask, host: str, outcome: str) -> None:
    found = ask(NAME, at=[(host, 29500)])
    assert set(found) == {f"name.{outcome}"}
    told = found[f"name.{outcome}"]
    assert told.sentence.isprintable() and len(told.sentence) < 400


def test_ours_and_not_ours(ask: Ask) -> None:
    assert set(ask(NAME, at=[("localhost", 1)])) == {"name.resolves", "name.ours"}
    assert set(ask(NAME, at=[("::1", 1)])) == {"name.resolves", "name.ours"}
    assert set(ask(NAME, at=[("10.255.3.4", 1)])) == {"name.resolves", "name.not-ours"}
    assert ask(NAME) == {}


def test_loopback_for_several_hosts(ask: Ask) -> None:
    found = ask(NAME, env=PATH, launch=TWO_NODES, at=[("127.0.0.1", 29500)])
    assert "name.loopback-for-several-hosts" in found
    one = ["torchrun", "--nnodes=1", "t.py"]
    found = ask(NAME, env=PATH, launch=one, at=[("127.0.0.1", 29500)])
    assert "name.loopback-for-several-hosts" not in found


def test_a_resolver_that_hangs_is_unknown(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hanging = tmp_path / "resolve_child.py"
    hanging.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(names, "RESOLVE", hanging)
    monkeypatch.setattr(names, "DEADLINE", 2.0)
    assert set(ask(NAME, at=[("node0", 1)])) == {"name.unknown"}
    assert set(ask(OWN_NAME)) == {"own-name.unknown"}


def in_box(host: str, hosts: str, extra: str = "") -> list[str]:
    """A host of its own: name, hosts file, no name server, one address that others could reach."""
    setup = (
        f"hostname {host}; ip link set lo up; ip addr add 10.66.0.1/32 dev lo; "
        f"printf '{hosts}' > $T/hosts; mount --bind $T/hosts /etc/hosts; "
        f"printf 'options timeout:1 attempts:1\\n{extra}' > $T/resolv; "
        "mount --bind $T/resolv /etc/resolv.conf; "
    )
    inner = (
        "T=$(mktemp -d); "
        + setup
        + '"$0" "$@"; C=$?; umount /etc/hosts /etc/resolv.conf; rm -r $T; exit $C'
    )
    return ["unshare", "-n", "-m", "-u", "--propagation", "private", "bash", "-c", inner]


@pytest.mark.needs("namespaces", "ip")
@pytest.mark.parametrize(
    ("hosts", "outcome"),
    [
        ("127.0.0.1 localhost\\n127.0.1.1 box7\\n", "loopback"),
        ("127.0.0.1 localhost\\n10.66.0.1 box7\\n", "fine"),
        ("127.0.0.1 localhost\\n10.99.0.9 box7\\n", "wrong-address"),
        ("127.0.0.1 localhost\\n", "unresolvable"),
    ],
)
def test_the_own_name(ask_elsewhere: Elsewhere, hosts: str, outcome: str) -> None:
    box = in_box("box7", hosts)
    far = ask_elsewhere(box, "network.names", at=(("10.77.0.5", 29500),))
    assert keys(far, "own-name") == {outcome}
    alone = ask_elsewhere(box, "network.names")
    assert keys(alone, "own-name") == {outcome if outcome == "fine" else f"{outcome}-alone"}
    named = ask_elsewhere(
        box, "network.names", at=(("10.77.0.5", 29500),), env={"GLOO_SOCKET_IFNAME": "eth0"}
    )
    assert keys(named, "own-name") == {outcome if outcome == "fine" else f"{outcome}-alone"}


SILENT_SERVER = """
import socket, subprocess, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
sys.exit(subprocess.call(sys.argv[1:]))
"""


@pytest.mark.needs("namespaces", "ip")
def test_reverse_look_ups_that_nobody_answers(ask_elsewhere: Elsewhere, tmp_path: Path) -> None:
    """A name server takes each question and never says a word."""
    server = tmp_path / "server.py"
    server.write_text(SILENT_SERVER)
    box = in_box("box7", "127.0.0.1 localhost\\n10.66.0.1 box7\\n", "nameserver 127.0.0.1\\n")
    before = [*box, sys.executable, str(server)]
    found = ask_elsewhere(before, "network.names", at=(("10.77.0.5", 29500),))
    assert found["reverse-dns.slow"][1]["seconds"] > 0.9
    found = ask_elsewhere(before, "network.names", at=(("nobody", 29500),))
    assert found["name.unresolvable"][1]["code"] == -3
    assert "gave no answer" in found["name.unresolvable"][0]
    quick = in_box("box7", "127.0.0.1 localhost\\n10.66.0.1 box7\\n10.77.0.5 far\\n")
    assert "reverse-dns.fast" in ask_elsewhere(quick, "network.names", at=(("far", 29500),))
    assert "reverse-dns.nothing-to-ask" in ask_elsewhere(quick, "network.names")


def test_a_resolver_that_can_not_be_asked_is_not_slow(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "resolve_child.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(names, "RESOLVE", broken)
    far = Finding("name", "not-ours", "", {"addresses": ["10.99.0.1"]})
    found = ask(NAME, OWN_NAME, REVERSE, at=[("node0", 1)], seen=(far,))
    assert set(found) == {"name.unknown", "own-name.unknown", "reverse-dns.unknown"}
    assert "exit code 3" in found["reverse-dns.unknown"].sentence


def test_no_address_to_ask_about(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "interfaces", lambda: ())
    assert set(ask(REVERSE)) == {"reverse-dns.nothing-to-ask"}


def test_odd_words_do_not_stop_the_resolver() -> None:
    words = ["localhost", "a\udcffb", "x." * 200, "", "\x1b[2J"]
    answers = resolve(words, ["127.0.0.1", "nonsense"]).answers
    assert answers["localhost"]["addresses"]
    assert set(answers) == {*words, "127.0.0.1", "nonsense"}
    assert all("error" in answers[w] for w in ("a\udcffb", "x." * 200, "nonsense"))
