"""Interfaces as the kernel lists them, and which of them gloo and NCCL take."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import psutil
import pytest

from ddp_assist.probes.model import Finding
from ddp_assist.probes.network import interface
from ddp_assist.probes.network.interface import INTERFACE, MTU, nccl_matches, nccl_takes
from ddp_assist.probes.network.links import Interface, interfaces, is_ours, plain, way_to

Ask = Callable[..., dict[str, Finding]]
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
PATH = {"PATH": os.environ["PATH"]}
UP, RUNNING, LOOPBACK = 0x1, 0x40, 0x8


def link(name: str, *addresses: str, flags: int = UP | RUNNING, kind: str = "") -> Interface:
    return Interface(name, len(name), flags, 1500, kind, tuple(map(ip_address, addresses)))


LO = link("lo", "127.0.0.1", "::1", flags=UP | RUNNING | LOOPBACK)
ETH0 = link("eth0", "10.0.0.4", "fe80::1")
ETH1 = link("eth1", "10.1.0.4")
ETH10 = link("eth10", "10.2.0.4", flags=UP)
DOCKER = link("docker0", "172.17.0.1", kind="bridge")
WG = link("wg0", "10.8.0.2", kind="wireguard")
BARE = link("ens9", "fe80::2")
HERE = (LO, ETH0, ETH1, ETH10, DOCKER, WG, BARE)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "interfaces", lambda: HERE)


def test_the_kernels_list_is_psutils_list() -> None:
    theirs = psutil.net_if_addrs()
    ours = {i.name: i for i in interfaces()}
    assert set(ours) == set(theirs) | {i.name for i in ours.values() if not i.addresses}
    for name, entries in theirs.items():
        wanted = {
            e.address.partition("%")[0] for e in entries if e.family.name.startswith("AF_INET")
        }
        assert {str(a) for a in ours[name].addresses} == wanted
    for name, stats in psutil.net_if_stats().items():
        assert ours[name].mtu == stats.mtu


def test_addresses_of_ours_and_of_others() -> None:
    assert is_ours(ip_address("127.0.0.1")) and is_ours(ip_address("127.8.8.8"))
    assert not is_ours(ip_address("192.0.2.77")) and not is_ours(ip_address("0.0.0.0"))
    assert plain("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    assert plain("fe80::1%eth0") == ip_address("fe80::1") and plain("node0") is None
    assert way_to(ip_address("127.0.0.1")) == ip_address("127.0.0.1")


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("eth0", "fine"),
        ("eth0,eth1", "fine"),
        ("eth9", "missing"),
        ("eth0,eth9", "missing"),
        ("eth", "wrong-syntax"),
        ("^docker0", "wrong-syntax"),
        ("=eth0", "wrong-syntax"),
        ("eth0, eth1", "wrong-syntax"),
        ("eth10", "down"),
        ("ens9", "no-address"),
        ("lo", "loopback-alone"),
        ("docker0", "virtual-alone"),
        ("x" * 4000, "missing"),
        ("a\x1b[2J\udcff", "missing"),
    ],
)
def test_gloo_wants_exact_names(here: None, ask: Ask, value: str, outcome: str) -> None:
    found = ask(INTERFACE, env=PATH | {"GLOO_SOCKET_IFNAME": value})
    told = found[f"interface.{outcome}"]
    assert told.data["variable"] == "GLOO_SOCKET_IFNAME" and told.data["better"] == "eth0"
    assert told.sentence.isprintable() and len(told.sentence) < 400


@pytest.mark.parametrize(
    ("value", "outcome", "chosen"),
    [
        ("eth", "fine", "eth0"),
        ("=eth1", "fine", "eth1"),
        ("^docker,lo", "fine", "eth0"),
        ("^=eth0,lo", "fine", "eth1"),
        ("eth1", "fine", "eth1"),
        ("ib", "missing", None),
        ("=eth", "missing", None),
        ("eth10", "down", "eth10"),
        ("lo", "loopback-alone", "lo"),
        ("docker", "virtual-alone", "docker0"),
        ("eth*", "wrong-syntax", None),
    ],
)
def test_nccl_wants_prefixes(
    here: None, ask: Ask, value: str, outcome: str, chosen: str | None
) -> None:
    found = ask(INTERFACE, env=PATH | {"NCCL_SOCKET_IFNAME": value})
    assert found[f"interface.{outcome}"].data["interface"] == chosen


def test_names_of_one_character_are_ignored(here: None, ask: Ask) -> None:
    found = ask(INTERFACE, env=PATH | {"GLOO_SOCKET_IFNAME": "x", "NCCL_SOCKET_IFNAME": "y"})
    assert set(found) == {"interface.nccl-takes"}


def test_what_nccl_takes_when_it_is_left_alone() -> None:
    assert nccl_takes([LO, DOCKER, ETH1, link("ib0", "10.9.0.1")]).name == "ib0"  # type: ignore[union-attr]
    assert nccl_takes([LO, DOCKER, WG, ETH1]).name == "wg0"  # type: ignore[union-attr]
    assert nccl_takes([LO, DOCKER, link("virbr0", "192.168.122.1")]).name == "docker0"  # type: ignore[union-attr]
    assert nccl_takes([LO]).name == "lo"  # type: ignore[union-attr]
    assert nccl_takes([]) is None
    assert [i.name for i in nccl_matches("^lo", HERE)] == ["eth0", "eth1", "docker0", "wg0", "ens9"]


def test_reach_counts_only_between_hosts(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    monkeypatch.setattr(interface, "interfaces", lambda: (LO, WG))
    launch = ["torchrun", "--nnodes=2", "--master-addr=10.8.0.1", "--master-port=29500", "t.py"]
    far = ask(INTERFACE, env=PATH, launch=launch, backend="nccl")
    assert "interface.virtual" in far
    assert "interface.virtual" not in ask(INTERFACE, env=PATH, launch=launch, backend="gloo")
    named = PATH | {"GLOO_SOCKET_IFNAME": "lo"}
    assert "interface.loopback" in ask(INTERFACE, env=named, launch=launch)
    near = ask(INTERFACE, env=named, launch=["torchrun", "--standalone", "t.py"])
    assert "interface.loopback-alone" in near
    monkeypatch.setattr(interface, "interfaces", lambda: (LO,))
    assert "interface.none" in ask(INTERFACE, env=PATH, launch=launch)
    assert set(ask(INTERFACE, env=PATH)) == {"interface.only-loopback"}


def test_two_in_one_subnet(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    twins = (LO, ETH0, link("eth2", "10.0.0.9"))
    monkeypatch.setattr(interface, "interfaces", lambda: twins)
    assert ask(INTERFACE, env=PATH)["interface.two-in-one-subnet"].data["interfaces"] == [
        "eth0",
        "eth2",
    ]


def test_the_kernel_may_refuse(monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    def refuse() -> tuple[Interface, ...]:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(interface, "interfaces", refuse)
    assert set(ask(INTERFACE)) == {"interface.unknown"}


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace of our own with a bridge, a veth and a tunnel."""
    name = f"ddpa-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.needs("namespaces", "ip")
def test_real_interfaces_in_a_namespace(namespace: str, ask_elsewhere: Elsewhere) -> None:
    script = (
        "link add eth0 type veth peer name eth0p\nlink add br0 type bridge\n"
        "addr add 10.66.0.1/24 dev eth0\nlink set eth0 up\nlink set eth0p up\n"
        "addr add 10.67.0.1/24 dev br0\n"
    )
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=script, text=True, check=True)
    inside = ["ip", "netns", "exec", namespace]

    def say(**env: str) -> set[str]:
        return set(ask_elsewhere(inside, "network.interface", env=env))

    assert say(GLOO_SOCKET_IFNAME="eth0") == {"interface.fine", "interface.nccl-takes"}
    assert "interface.down" in say(GLOO_SOCKET_IFNAME="br0")
    assert "interface.no-address" in say(GLOO_SOCKET_IFNAME="eth0p")
    assert "interface.missing" in say(GLOO_SOCKET_IFNAME="eth7")
    more = (  # a bridge that is up, and a second card in the same subnet
        "link set br0 up\nlink set lo up\nlink add eth1 type veth peer name eth1p\n"
        "addr add 10.66.0.9/24 dev eth1\n"
        "link set eth1 up\nlink set eth1p up\n"
    )
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=more, text=True, check=True)
    far = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    assert "interface.wrong-syntax" in say(GLOO_SOCKET_IFNAME="eth")
    named = {"GLOO_SOCKET_IFNAME": "br0", "NCCL_SOCKET_IFNAME": "=lo"}
    assert say(**named, **far) >= {"interface.virtual", "interface.loopback"}
    assert say(**named) >= {"interface.virtual-alone", "interface.loopback-alone"}
    assert "interface.two-in-one-subnet" in say()
    kinds = subprocess.run(
        [*inside, sys.executable, "-c", "from ddp_assist.probes.network.links import interfaces\n"
         "print({i.name: (i.kind, i.virtual) for i in interfaces()})"],
        capture_output=True, text=True, check=True,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    ).stdout  # fmt: skip
    assert "'eth0': ('veth', False)" in kinds and "'br0': ('bridge', True)" in kinds


@pytest.mark.needs("namespaces", "ip")
@pytest.mark.parametrize(
    ("env", "outcome"),
    [({}, "only-loopback"), ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}, "none")],
)
def test_no_interface_at_all(ask_elsewhere: Elsewhere, env: dict[str, str], outcome: str) -> None:
    alone = ["unshare", "-n", "bash", "-c", 'ip link set lo up; exec "$0" "$@"']
    assert set(ask_elsewhere(alone, "network.interface", env=env)) == {f"interface.{outcome}"}


@pytest.mark.needs("namespaces", "ip")
@pytest.mark.parametrize(("size", "outcome"), [(9000, "jumbo"), (1500, "fine"), (1000, "small")])
def test_how_long_packets_may_be(
    namespace: str, ask_elsewhere: Elsewhere, size: int, outcome: str
) -> None:
    script = (
        "link add eth0 type veth peer name eth0p\naddr add 10.66.0.1/24 dev eth0\n"
        f"link set eth0 up mtu {size}\nlink set eth0p up\n"
    )
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=script, text=True, check=True)
    inside = ["ip", "netns", "exec", namespace]
    at = (("10.66.0.2", 29500),)
    found = ask_elsewhere(inside, "network.names", "network.interface", at=at)
    assert found[f"mtu.{outcome}"][1]["mtu"] == size
    assert found["interface.route"][1]["interface"] == "eth0"


def test_mtu_needs_a_far_endpoint(ask: Ask) -> None:
    assert ask(MTU) == {}
