"""Ports left, tracked connections, and settings of the kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from ddp_assist.probes.model import Finding
from ddp_assist.probes.network import capacity
from ddp_assist.probes.network.capacity import PORTS, ports_in_use

Ask = Callable[..., dict[str, Finding]]
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
NAMESPACE = ["unshare", "-n", "bash", "-c"]


def test_enough(ask: Ask) -> None:
    found = ask(PORTS)
    assert "ports.enough" in found
    assert found["ports.enough"].data["used"] < 28000


HOLD = """
import socket, subprocess, sys
held = []
for port in range(40000, 40090):
    s = socket.socket(); s.bind(("127.0.0.1", port)); s.listen(); held.append(s)
sys.exit(subprocess.call(sys.argv[1:]))
"""


@pytest.mark.needs("namespaces", "ip")
def test_a_small_range_is_used_up(ask_elsewhere: Elsewhere, tmp_path: Any) -> None:
    holder = tmp_path / "holder.py"
    holder.write_text(HOLD)
    setup = (
        "ip link set lo up; echo 40000 40091 > /proc/sys/net/ipv4/ip_local_port_range; "
        "echo 8080,9148 > /proc/sys/net/ipv4/ip_local_reserved_ports; "
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; "
        "echo 64 > /proc/sys/net/core/somaxconn; "
    )
    inner = f'{setup} exec python3 {holder} "$0" "$@"'
    env = {"WORLD_SIZE": "256"}
    found = ask_elsewhere([*NAMESPACE, inner], "network.capacity", env=env)
    assert found["ports.exhausted"][1]["left"] == 2
    assert found["ports.reserved"][1]["reserved"] == "8080,9148"
    assert found["ports.backlog-small"][1] == {"somaxconn": 64, "world_size": 256}
    assert "ports.no-ipv6" in found and "ports.enough" not in found
    calm = ask_elsewhere([*NAMESPACE, f'{setup} exec "$0" "$@"'], "network.capacity")
    assert set(calm) == {"ports.enough", "ports.reserved", "ports.no-ipv6"}


def test_connections_to_one_place_use_ports_up(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"  sl  local_address rem_address   st\n"
    row = b"   0: 0100007F:%04X 0100007F:7358 01\n"
    table = head + b"".join(row % (32768 + i) for i in range(200))
    monkeypatch.setattr(
        capacity, "read", lambda path, most=0: table if path.endswith("tcp") else None
    )
    assert ports_in_use(32768, 60999) == (200, 200)
    assert ports_in_use(1, 100) == (0, 0)
    monkeypatch.setattr(capacity, "read", lambda path, most=0: None)
    assert ports_in_use(1, 100) is None


def test_the_table_of_connections_is_full(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"netfilter/nf_conntrack_count": "65530", "netfilter/nf_conntrack_max": "65536"}
    monkeypatch.setattr(capacity, "setting", told.get)
    assert ask(PORTS)["ports.conntrack-full"].data["conntrack"] == 65530


def test_nothing_can_be_counted(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "ports_in_use", lambda low, high: None)
    monkeypatch.setattr(capacity, "setting", lambda name: None)
    assert "ports.unknown" in ask(PORTS, env={"PATH": os.environ["PATH"]})
