"""What clusters are like: IPv6 alone, full names, a jump host."""

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
JUMP = """Host node3*
  ProxyJump node1
"""


@pytest.fixture(scope="module")
def bed() -> Iterator[Nodes]:
    nodes = start(("node1", "node2", "node3"), v6=True, files={"home/.ssh/config": JUMP.encode()})
    folder = nodes.at / "home" / ".ssh"
    for path in (folder, folder / "config"):
        path.chmod(0o700)
        os.chown(path, ALICE, ALICE)
    # Only the first node lets the third in, and the third is known to nobody but the nodes.
    nodes.filter("node3", "ip6 saddr fd99::1 accept", "ip6 saddr fd99::254 tcp dport 22 drop")
    yield nodes
    nodes.close()


def test_ipv6_full_names_and_a_jump_host(bed: Nodes) -> None:
    names = ",".join(f"{name}.cluster.local" for name in bed.names)
    result = bed.fleet("-w", names, "--no-trial", launch=LAUNCH)
    assert [(n["state"], n["why"]) for n in result["nodes"]] == [("ok", "")] * 3
    assert {w["outcome"] for w in result["links"]} == {"reached"}
    assert {w["address"] for w in result["links"]} == {"fd99::1", "fd99::2", "fd99::3"}
    met = {w["to"] for w in result["links"] if w["kind"] == "port"}
    assert met == {"node1.cluster.local"}
    assert [c["id"] for c in result["causes"] if c["certainty"] == "certain"] == []
