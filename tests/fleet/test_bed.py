"""Faults between real hosts, on namespaces with an sshd each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_nodes import PORT, Nodes, start  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs("root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter")
NAMES = ("node1", "node2", "node3")
LAUNCH = (
    "torchrun", "--nnodes", "3", "--node-rank", "0", "--master-addr", "node1",
    "--master-port", str(PORT), "--nproc-per-node", "1", "train.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    at = tmp_path_factory.mktemp("fleet")
    nodes = start(at, NAMES)
    yield nodes
    nodes.close()


def fleet(nodes: Nodes, *words: str, launch: tuple[str, ...] = LAUNCH) -> dict[str, Any]:
    done = nodes.inside(
        "env", f"PYTHONPATH={ROOT}/tests/typing", "PYTHONDONTWRITEBYTECODE=1",
        sys.executable, "-m", "ddp_assist", "fleet", "--json", *words, "--", *launch,
    )  # fmt: skip
    assert done.returncode in (0, 1, 5), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def causes(result: dict[str, Any]) -> list[str]:
    return [cause["id"] for cause in result["causes"] if cause["certainty"] != "possible"]


def outcomes(result: dict[str, Any]) -> dict[str, str]:
    return {f["outcome"]: f["sentence"] for f in result["findings"] if f["probe"] == "fleet"}


def on_all(nodes: Nodes, *words: str) -> dict[str, Any]:
    return fleet(nodes, "-w", "node[1-3]", "--no-trial", *words)


def test_healthy_nodes_reach_each_other(bed: Nodes) -> None:
    result = on_all(bed)
    assert [n["state"] for n in result["nodes"]] == ["ok"] * 3
    assert {link["outcome"] for link in result["links"]} == {"reached"}
    assert len(result["links"]) == 6 + 2
    assert "alike" in outcomes(result)


@pytest.mark.parametrize(
    ("rule", "how"), [("drop", "silent"), ("reject with tcp reset", "refused"),
                      ("reject with icmpx admin-prohibited", "unreachable")],
)  # fmt: skip
def test_a_filter_on_the_port(bed: Nodes, rule: str, how: str) -> None:
    bed.filter("node1", f"tcp dport {PORT} {rule}")
    try:
        result = on_all(bed)
    finally:
        bed.filter("node1")
    assert causes(result)[0] == "firewall-blocks-port"
    sentence = outcomes(result)["firewall-blocks-port"]
    assert "node[2-3]" in sentence and "node1" in sentence and how in sentence
    assert "firewall-blocks-data" not in outcomes(result)


def test_closed_data_ports(bed: Nodes) -> None:
    accept = f"tcp dport {{ 22, {PORT} }} accept"
    bed.filter("node2", "ct state established,related accept", accept, "tcp dport 1-65535 drop")
    try:
        result = on_all(bed)
    finally:
        bed.filter("node2")
    assert causes(result)[0] == "firewall-blocks-data"
    assert "of node2" in outcomes(result)["firewall-blocks-data"]


def test_own_name_is_loopback_on_one_node(bed: Nodes) -> None:
    bed.hosts("node3", "127.0.1.1")
    try:
        result = on_all(bed)
    finally:
        bed.hosts("node3", "10.99.0.3")
    assert "hostname-resolves-to-loopback" in causes(result)
    own = [f for f in result["findings"] if f["probe"] == "own-name"]
    assert [f["data"]["nodes"] for f in own if f["outcome"] == "loopback"] == [["node3"]]


def test_own_name_unresolvable(bed: Nodes) -> None:
    bed.hosts("node3", None)
    try:
        result = on_all(bed)
    finally:
        bed.hosts("node3", "10.99.0.3")
    assert "own-hostname-unresolvable" in causes(result)


def test_large_packets_are_lost(bed: Nodes) -> None:
    """Both ends believe in 9000 bytes; the way between them carries 1500."""
    for name in NAMES:
        bed.on(name, "ip", "link", "set", "eth0", "mtu", "9000")
    try:
        result = on_all(bed)
    finally:
        for name in NAMES:
            bed.on(name, "ip", "link", "set", "eth0", "mtu", "1500")
    assert "mtu-black-hole" in outcomes(result), outcomes(result)
    assert {link["outcome"] for link in result["links"]} == {"large-lost"}


def test_node_ranks_twice(bed: Nodes) -> None:
    """A script on each node, which is read there with the variables of that node."""
    script = bed.at / "launch.sh"
    script.write_text(
        'test "$(hostname)" = x\ntorchrun --nnodes 3 --node-rank ${RANK_HERE:-1} '
        f"--master-addr node1 --master-port {PORT} train.py\n"
    )
    result = fleet(bed, "-w", "node[1-3]", "--no-trial", launch=("bash", str(script)))
    assert causes(result)[0] == "node-rank-duplicated"


def test_ends_of_a_fleet_leave_nothing(bed: Nodes) -> None:
    on_all(bed)
    assert not list(Path("/tmp").glob("ddp-assist-node-*"))


def test_a_killed_controller_leaves_nothing_on_any_node(bed: Nodes) -> None:
    ours = f"{sys.executable} -m ddp_assist fleet -w node[1-3]"
    seen = "ls -d /tmp/ddp-assist-node-* >/dev/null 2>&1"
    done = bed.inside(
        "env", f"PYTHONPATH={ROOT}/tests/typing", "sh", "-c",
        f"{ours} >/dev/null 2>&1 & pid=$!;"
        f" for i in $(seq 500); do {seen} && break; sleep 0.02; done;"
        f" {seen} || exit 3; kill -9 $pid;"
        f" for i in $(seq 400); do {seen} || exit 0; sleep 0.05; done; exit 4",
    )  # fmt: skip
    assert done.returncode == 0, {3: "it never began", 4: "folders are left"}
    agent = "cat /proc/[0-9]*/cmdline 2>/dev/null | grep -q 'runpy[.]run_module'"
    gone = f"for i in $(seq 200); do {agent} || exit 0; sleep 0.05; done; exit 5"
    assert bed.inside("sh", "-c", gone).returncode == 0, "agents are left"


def test_a_trial_between_the_nodes(bed: Nodes) -> None:
    pytest.importorskip("torch")
    result = fleet(bed, "-w", "node[1-2]", "--python", sys.executable)
    assert "trial-joined" in outcomes(result), outcomes(result)


def test_what_is_printed_fits_the_schema(bed: Nodes) -> None:
    import jsonschema

    schema = json.loads((ROOT / "assets/schema/fleet.json").read_text())
    jsonschema.validate(on_all(bed), schema)


def test_steps_of_slurm_are_asked_without_ssh(bed: Nodes) -> None:
    """A stand-in for srun enters the network of the node that -w names."""
    stub = bed.at / "bin" / "srun"
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\ncase "$*" in *--overlap*) ;; *) exit 9;; esac\n'
        'while [ "$1" != -w ]; do shift; done\nnode=$2\n'
        'while [ "$1" != sh ]; do shift; done\nexec ip netns exec "$node" "$@"\n'
    )
    stub.chmod(0o755)
    done = bed.inside(
        "env", f"PYTHONPATH={ROOT}/tests/typing", "SLURM_JOB_NODELIST=node[1-2]", "sh", "-c",
        f"PATH={stub.parent}:$PATH exec {sys.executable} -m ddp_assist fleet --slurm --no-trial"
        " --json",
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert [(n["node"], n["state"]) for n in result["nodes"]] == [("node1", "ok"), ("node2", "ok")]
    assert {link["outcome"] for link in result["links"]} == {"reached"}
