"""What clusters are like: IPv6 alone, full names, a jump host, and what stands in ~/.ssh/config."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_nodes import ALICE, Nodes, start  # type: ignore[import-not-found]

pytestmark = pytest.mark.needs(
    "root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter", "setpriv"
)
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))
LAUNCH = (
    TORCHRUN, "--nnodes", "3", "--rdzv-backend", "c10d", "--rdzv-id", "a1", "--rdzv-endpoint",
    "node1.cluster.local:29400", "--nproc-per-node", "1", "train.py",
)  # fmt: skip
CONFIG = """Host node3*
  ProxyJump node1
Host gpu2
  HostName node2.cluster.local
  User bob
  Port 2222
Host *
  ControlMaster auto
  ControlPath ~/.ssh/%C
  ControlPersist 600
"""
BOB = "bob:x:2002:2002::/:/bin/dash\n"


@pytest.fixture(scope="module")
def bed() -> Iterator[Nodes]:
    nodes = start(
        ("node1", "node2", "node3"), v6=True, config={"node2": "Port 2222"},
        init={"node2": "mount --bind /srv/users /etc/passwd"},
        files={"home/.ssh/config": CONFIG.encode(),
               "users": (Path("/etc/passwd").read_text() + BOB).encode()},
    )  # fmt: skip
    with (nodes.at / "known_hosts").open("a") as known:
        known.write(f"[node2.cluster.local]:2222 {(nodes.at / 'host.pub').read_text()}")
    folder = nodes.at / "home" / ".ssh"
    for path in (folder, folder / "config"):
        path.chmod(0o700)
        os.chown(path, ALICE, ALICE)
    # Only the first node lets the third in, and the third is known to nobody but the nodes.
    nodes.filter("node2", "tcp dport 22 drop")
    nodes.filter("node3", "ip6 saddr fd99::1 accept", "ip6 saddr fd99::254 tcp dport 22 drop")
    yield nodes
    nodes.close()


def test_ipv6_full_names_a_jump_host_and_another_user(bed: Nodes) -> None:
    """On another port, by another name; and no connection of ours stays for others to share."""
    names = "node1.cluster.local,gpu2,node3.cluster.local"
    result = bed.fleet("-w", names, "--no-trial", launch=LAUNCH)
    assert [(n["state"], n["why"]) for n in result["nodes"]] == [("ok", "")] * 3
    assert {w["outcome"] for w in result["links"]} == {"reached"}
    assert {w["address"] for w in result["links"]} == {"fd99::1", "fd99::2", "fd99::3"}
    met = {w["to"] for w in result["links"] if w["kind"] == "port"}
    assert met == {"node1.cluster.local"}
    assert [c["id"] for c in result["causes"] if c["certainty"] == "certain"] == []
    shared = bed.inside("pgrep", "-u", str(ALICE), "-r", "D,R,S,T", "-a", "ssh").stdout
    assert shared.count("[mux]") <= 1, "of ssh's own way to the jump host only"
