"""What answers mean when they are laid side by side; a thousand nodes stay readable."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.diagnose import Question, target_of
from ddp_assist.app.fixes.for_nodes import Agreement, for_all
from ddp_assist.app.nodes import NodesUnclear, nodes_of
from ddp_assist.app.tree import load
from ddp_assist.app.whole import problems
from ddp_assist.probes.catalogue import probes
from ddp_assist.probes.fleet import ways
from ddp_assist.probes.fleet.compare import compare, kinds, merged
from ddp_assist.probes.fleet.engine import Node, apart
from ddp_assist.probes.fleet.links import FULL, judge, pairs
from ddp_assist.probes.fleet.parcel import parcel
from ddp_assist.probes.fleet.part import plans
from ddp_assist.probes.fleet.probe import FLEET
from ddp_assist.probes.model import Target


def plan(rank: int, **more: Any) -> dict[str, Any]:
    return {"host": None, "nnodes": [2, 2], "node_rank": rank, "rank_of_another": False,
            "ranks": False, "backend": None, "rdzv_id": None, "endpoint": "a:1",
            **more}  # fmt: skip


def node(name: str, torch: str = "2.6.0", **more: Any) -> Node:
    finding = {"probe": "torch", "outcome": "fine", "sentence": f"torch {torch}",
               "data": {"version": torch}, "evidence": [], "seconds": 0.1}  # fmt: skip
    look = {"python": "3.11.7", "machine": "x86_64", "env": {}, "plans": [], "names": {},
            "links": [], "findings": [finding], **more}  # fmt: skip
    return Node(name, "ok", answers={"look": look})


def said(*nodes: Node) -> dict[str, str]:
    return {f.outcome: f.sentence for f in compare(nodes)}


def test_equal_nodes_are_not_worth_a_word() -> None:
    assert said(node("n1"), node("n2"), node("n3")) == {}


def test_the_odd_one_out_comes_first() -> None:
    nodes = [node(f"n{i}", "2.4.1" if i == 7 else "2.6.0") for i in range(1, 65)]
    sentence = said(*nodes)["torch-differs"]
    assert sentence == "the version of torch differs: 2.4.1 on n7; 2.6.0 on n[1-6,8-64]"
    assert kinds(nodes)["n7"] == ("A", "torch 2.4.1") and kinds(nodes)["n8"] == ("B", "")


def test_a_word_that_was_long_on_its_way_is_no_other_clock() -> None:
    assert apart(1000.0, begun=990.0, now=1010.0) == 0.0
    assert apart(1070.0, begun=990.0, now=1010.0) == 60.0
    assert apart(930.0, begun=990.0, now=1010.0) == -60.0


def test_a_thousand_nodes_fold_into_few_words() -> None:
    nodes = [node(f"n{i}", "2.4.1" if i == 7 else "2.6.0") for i in range(1000)]
    found = [*compare(nodes), *merged(nodes)]
    assert len(found) == 3
    assert all(len(f.sentence) < 120 for f in found)


def test_settings_of_nccl_that_differ_and_own_ones_that_may() -> None:
    one = node("n1", env={"NCCL_IB_DISABLE": "1", "MASTER_ADDR": "a", "NCCL_HOSTID": "1"})
    two = node("n2", env={"MASTER_ADDR": "b", "NCCL_HOSTID": "2"})
    assert list(said(one, two)) == ["nccl-env-differs"]


def modules(*lacks: str, **has: str) -> dict[str, Any]:
    return {"python": "/x/python", "lacks": dict.fromkeys(lacks, "t.py:3"), "has": has}


def test_a_module_that_some_nodes_lack() -> None:
    good, bad = modules(yaml="PyYAML 6.0.3"), modules("yaml")
    nodes = [node(f"n{i}", modules=bad if i in (3, 4) else good) for i in range(1, 6)]
    assert said(*nodes) == {
        "module-missing": "t.py:3 imports yaml, which /x/python lacks on n[3-4]; n[1-2,5] has it"
        " (PyYAML 6.0.3)"
    }
    assert said(node("n1", modules=bad), node("n2", modules=bad)) == {
        "module-missing": "t.py:3 imports yaml, which /x/python lacks on n[1-2]"
    }
    # A node that could not tell, or whose part does without it, is no node that has it.
    assert "has it" not in said(node("n1", modules=bad), node("n2", modules={}))["module-missing"]
    assert said(node("n1", modules=good), node("n2", modules={}), node("n3")) == {}


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (plan(0), plan(0), "node-rank-duplicated"),
        (plan(0), plan(2), "node-rank-out-of-range"),
        (plan(0), plan(1, nnodes=[3, 3]), "nnodes-disagree"),
        (plan(0, backend="c10d", rdzv_id="1"), plan(1, backend="c10d", rdzv_id="2"),
         "rdzv-id-differs"),
    ],
)  # fmt: skip
def test_roles(first: dict[str, Any], second: dict[str, Any], outcome: str) -> None:
    assert list(said(node("n1", plans=[first]), node("n2", plans=[second]))) == [outcome]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (plan(0), plan(1)),
        (plan(0, backend="c10d", rdzv_id="1"), plan(0, backend="c10d", rdzv_id="1")),
        (plan(0, rank_of_another=True), plan(0, rank_of_another=True)),
    ],
)
def test_roles_that_are_well(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert said(node("n1", plans=[first]), node("n2", plans=[second])) == {}


@pytest.mark.parametrize(
    ("command", "outcomes"),
    [
        ("srun bash -c 'torchrun --nnodes 2 --node_rank $SLURM_NODEID --master_addr h0 t.py'", []),
        ("srun bash -c 'torchrun --nnodes 2 --node_rank 0 --master_addr h0 t.py'",
         ["node-rank-duplicated"]),
        ("torchrun --nnodes 2 --node_rank 0 --master_addr h0 t.py", ["node-rank-duplicated"]),
    ],
)  # fmt: skip
def test_a_rank_that_the_task_fills_in_is_no_rank_twice(
    command: str, outcomes: list[str], tmp_path: Path
) -> None:
    """Asked over ssh, outside of the job, a node does not know Slurm's number of it."""
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\n#SBATCH -N 2\n{command}\n")
    target = target_of(Question(launch=("sbatch", "job.sh"), cwd=tmp_path, env={}))
    told = [p for p in plans(target, {}) if p["nnodes"] == [2, 2]][:1]
    assert len(told) == 1
    assert list(said(node("n1", plans=told), node("n2", plans=told))) == outcomes


@pytest.mark.parametrize(
    ("ranks", "words", "outcomes"),
    [
        ((0, 0), "", ["node-rank-duplicated"]),
        ((0, 1), "", []),
        # Typed for one node: the others were not told yet.
        ((0, 0), "--machine_rank 0", []),
    ],
)
def test_each_node_reads_its_own_configuration(
    ranks: tuple[int, int], words: str, outcomes: list[str], tmp_path: Path
) -> None:
    told = []
    for rank in ranks:
        (tmp_path / "c.yaml").write_text(
            f"num_machines: 2\nnum_processes: 2\nmachine_rank: {rank}\nmain_process_ip: n1\n"
        )
        line = f"accelerate launch --config_file c.yaml {words} t.py"
        told.append(plans(target_of(Question(launch=(line,), cwd=tmp_path, env={})), {})[:1])
    assert list(said(*(node(f"n{i}", plans=p) for i, p in enumerate(told)))) == outcomes


def way(one: str, other: str, kind: str, outcome: str) -> dict[str, Any]:
    return {"from": one, "to": other, "kind": kind, "outcome": outcome, "port": 29500,
            "address": other, "link": "eth0"}  # fmt: skip


@pytest.mark.parametrize(
    ("port", "data", "expected"),
    [
        ("reached", "reached", []),
        ("silent", "reached", ["firewall-blocks-port"]),
        ("refused", "reached", ["firewall-blocks-port"]),
        ("reached", "silent", ["firewall-blocks-data"]),
        ("reached", "unreachable", ["firewall-blocks-data"]),
        ("silent", "silent", ["firewall-blocks-port", "firewall-blocks-data"]),
        ("no-route", "no-route", ["unreachable", "unreachable"]),
        ("large-lost", "large-lost", ["mtu-black-hole"]),
    ],
)
def test_what_a_closed_way_means(port: str, data: str, expected: list[str]) -> None:
    tried = [way("b", "a", "port", port), way("b", "a", "data", data)]
    assert [f.outcome for f in judge(tried, {"a": "a", "b": "b"}, "a")] == expected


def test_an_address_that_no_job_would_use_is_only_noted() -> None:
    tried = [way("b", "a", "data", "reached"), {**way("b", "a", "data", "silent"), "address": "x"}]
    found = list(judge(tried, {"a": "a", "b": "b"}, "a"))
    assert [f.outcome for f in found] == ["interface-unreachable"]
    assert FLEET.weight("interface-unreachable") == "info"


def test_pairs_are_all_or_few_and_always_reach_the_hub() -> None:
    few = [f"n{i}" for i in range(FULL)]
    assert len(pairs(few, "n0")) == FULL * (FULL - 1)
    many = [f"n{i}" for i in range(1000)]
    chosen = pairs(many, "n3")
    assert len(chosen) < 8 * len(many)
    assert {one for one, other in chosen if other == "n3"} == set(many) - {"n3"}


def test_the_tree_of_the_fleet_is_whole() -> None:
    mine = [p for p in problems(load(), probes()) if "fleet" in p or "nodes-beside" in p]
    assert mine == []


def test_a_listener_answers_only_who_knows_the_token() -> None:
    door = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=ways._serve, args=(door, b"secret"), daemon=True).start()
    try:
        to = {"address": "127.0.0.1", "port": door.getsockname()[1], "taken": ""}
        assert ways.reach(to, b"secret") == "reached"
        assert ways.reach(to, b"guess!") in ("stranger", "reset")
    finally:
        door.close()
    free = socket.create_server(("127.0.0.1", 0))
    to = {"address": "127.0.0.1", "port": free.getsockname()[1], "taken": ""}
    free.close()
    assert ways.reach(to, b"secret") == "refused"


def test_the_parcel_says_its_length() -> None:
    head, _, body = parcel().partition(b"\n")
    assert int(head) == len(body) < 1 << 20


@pytest.mark.parametrize("given", ["-oProxyCommand=x", "a b", "$(id)", "n;id"])
def test_no_option_or_command_passes_for_a_host(given: str, tmp_path: Path) -> None:
    with pytest.raises(NodesUnclear):
        nodes_of(given, None, None, Target(env={}))


def test_nodes_of_a_hostfile(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# ours\nnode1 slots=8\n\nnode[2-3]\nnode1 slots=8\n")
    assert nodes_of(None, file, None, Target(env={})) == ["node1", "node2", "node3"]


def told(line: str, agreed: Agreement) -> dict[str, str]:
    launch = target_of(Question(launch=(line,), env={})).launch
    assert launch is not None
    return {name: one.text for name, one in for_all(launch, agreed).items()}


def test_each_node_gets_its_own_rank() -> None:
    line = "torchrun --nnodes 2 --node-rank 0 --master-addr a --master-port 29500 t.py"
    texts = told(line, Agreement(("n1", "n2"), ranks=True))
    assert texts["n1"] == line and texts["n2"] == line.replace("rank 0", "rank 1")
    texts = told(line.replace("--node-rank 0 ", ""), Agreement(("n1", "n2"), ranks=True))
    assert "--node-rank=1" in texts["n2"]
    line = "accelerate launch --num_machines 2 --machine_rank 0 --main_process_ip n1 t.py"
    assert "--machine_rank 1" in told(line, Agreement(("n1", "n2"), ranks=True))["n2"]


@pytest.mark.parametrize(
    ("line", "agreed", "expected"),
    [
        ("torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint a:29400 --rdzv-id x t.py",
         Agreement(("n1", "n2"), address="10.0.0.1", port=29501, rdzv_id="y", ranks=True),
         "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint 10.0.0.1:29501 --rdzv-id y t.py"),
        ("torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=a:29400 t.py",
         Agreement(("n1", "n2"), address="fd00::1"),
         "torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=[fd00::1]:29400 t.py"),
        ("RANK=1 WORLD_SIZE=3 MASTER_ADDR=a MASTER_PORT=29500 python t.py",
         Agreement(("n1", "n2"), port=29501, count=2),
         "RANK=1 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=29501 python t.py"),
        ("torchrun --nnodes 2 --master-addr a t.py",
         Agreement(("n1", "n2"), env={"n2": {"GLOO_SOCKET_IFNAME": "eth1"}}),
         "GLOO_SOCKET_IFNAME=eth1 torchrun --nnodes 2 --master-addr a t.py"),
    ],
)  # fmt: skip
def test_what_all_agree_on_is_written_in_the_launch(
    line: str, agreed: Agreement, expected: str
) -> None:
    assert told(line, agreed)["n2"].replace("'", "") == expected


def test_one_text_that_starts_every_node_is_corrected_as_one_piece() -> None:
    text = "\n".join(
        f"ssh {node} torchrun --nnodes 2 --node-rank 0 --master-addr n1 t.py &"
        for node in ("n1", "n2.cluster.local")
    )
    both = told(text, Agreement(("n1", "n2"), ranks=True))
    assert both["n1"] == both["n2"] and both["n1"].count("rank 0") == 1
    assert "ssh n2.cluster.local torchrun --nnodes 2 --node-rank 1" in both["n1"]
