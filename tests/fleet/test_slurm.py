"""A real Slurm on nodes without an ssh server: asked from inside an allocation, by srun alone."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fleet_nodes import ALICE, Nodes, ours, start  # type: ignore[import-not-found]
from fleet_nodes import _environment as variables
from slurm_bed import CGROUP, CONF

pytestmark = pytest.mark.needs(
    "root", "namespaces", "ip", "nsenter", "setpriv", "munged", "slurmctld", "slurmd", "srun"
)
NAMES = ("node1", "node2", "node3")
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))
MUNGED = (
    "chmod 700 /srv/munge/key; chmod 711 /srv/munge; munged --foreground --force"
    " --key-file=/srv/munge/key --socket=/srv/munge/socket --pid-file=/run/munged.pid"
    " --log-file=/srv/munge/log --seed-file=/run/munged.seed </dev/null >/srv/munge/out 2>&1 &"
)
CONTROLLER = "SLURM_CONF=/srv/slurm/slurm.conf slurmctld -D </dev/null >/srv/slurm/ctld.out 2>&1 &"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    nodes = start(
        NAMES,
        daemon="env SLURM_CONF=/srv/slurm/slurm.conf /usr/sbin/slurmd -D",
        init={"node1": f"mkdir -p /srv/slurm/state /srv/slurm/spool\n{CONTROLLER}"},
        files={
            "munge/key": secrets.token_bytes(1024),
            "slurm/slurm.conf": CONF.format(
                host="node1", munge="/srv/munge", dir="/srv/slurm", run="/run",
                nodes="NodeName=node[1-3] CPUs=4 RealMemory=500 State=UNKNOWN",
            ).encode(),
            "slurm/cgroup.conf": CGROUP.encode(),
        },
        more=MUNGED,
    )
    try:
        ready = (
            "for i in $(seq 600); do test \"$(sinfo -h -t idle -o %D)\" = 3 && exit 0;"
            " sleep 0.1; done; (sinfo -N; cat /srv/slurm/*.out /srv/slurm/*.log) >&2; exit 1"
        )
        alice(nodes, "sh", "-c", ready)
        yield nodes
    finally:
        nodes.close()


def alice(nodes: Nodes, *words: str) -> str:
    who = ["setpriv", "--reuid", str(ALICE), "--regid", str(ALICE), "--clear-groups"]
    env = variables(["SLURM_CONF=/srv/slurm/slurm.conf", "TMPDIR=/run/tmp"])
    return nodes.within("node1", *who, "env", "-i", "-C", "/srv/home", *env, *words)


def asked(said: str) -> dict[str, Any]:
    """The JSON among what salloc says of itself."""
    result: dict[str, Any] = json.loads(said[said.index("{") :])
    return result


def test_from_inside_an_allocation(cluster: Nodes) -> None:
    """The launch's node ranks come from Slurm; each node is told what the whole job would be."""
    (cluster.at / "home" / "job.sh").write_text(
        f"{TORCHRUN} --nnodes=$SLURM_NNODES --node-rank=$SLURM_NODEID --nproc-per-node=1 "
        "--master-addr=node1 --master-port=29500 train.py\n"
    )
    fleet = ours("fleet", "--slurm", "--json", "--", "bash", "/srv/home/job.sh")
    command = f"salloc -Q -N3 {' '.join(fleet)} || true"
    result = asked(alice(cluster, "sh", "-c", command))
    assert [(n["node"], n["state"]) for n in result["nodes"]] == [(n, "ok") for n in NAMES]
    assert {link["outcome"] for link in result["links"]} == {"reached"}
    said = {f["outcome"] for f in result["findings"] if f["probe"] == "fleet"}
    assert result["causes"] == [] and "trial-joined" in said, result["findings"]


def test_of_a_running_job_and_of_one_that_is_over(cluster: Nodes) -> None:
    job = alice(cluster, "sbatch", "--parsable", "-N2", "--wrap", "sleep 300").strip()
    fleet = " ".join(ours("fleet", "--slurm", job, "--json", "--no-trial"))
    wait = f"until squeue -h -j {job} -t R | grep -q .; do sleep 0.1; done"
    result = asked(alice(cluster, "sh", "-c", f"{wait}; {fleet} || test $? = 5"))
    assert [n["state"] for n in result["nodes"]] == ["ok", "ok"]
    gone = f"scancel {job}; until ! squeue -h -j {job} | grep -q .; do sleep 0.1; done"
    said = alice(cluster, "sh", "-c", f"{gone}; {fleet} 2>&1 || test $? = 2")
    assert f"job {job} does not run" in said


JOB = """#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1

# what it may use
#SBATCH --job-name=two-nodes
export HEAD=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
echo "this is $SLURM_JOB_NAME"
srun torchrun --nnodes=2 --nproc_per_node=1 --node_rank=0 --master_addr=$HEAD \\
    --master_port=29500 train.py
"""
TRAIN = """import torch, torch.distributed as dist
dist.init_process_group("gloo")
one = torch.ones(1)
dist.all_reduce(one)
print("TRAINED", dist.get_rank(), int(one), flush=True)
dist.destroy_process_group()
"""


def cured(cluster: Nodes, job: str) -> tuple[dict[str, Any], str]:
    """What is told of a batch script, and what the corrected one says when Slurm is given it."""
    (cluster.at / "home" / "two.sh").write_text(job)
    (cluster.at / "home" / "train.py").write_text(TRAIN)
    fleet = " ".join(ours("fleet", "--slurm", "--json", "--out", "/srv/home/cured", "--",
                          "sbatch", "two.sh"))  # fmt: skip
    result = asked(alice(cluster, "sh", "-c", f"salloc -Q -N2 {fleet} || test $? = 1"))
    # `sbatch --wait` looks at longer and longer intervals.
    done = "job=$(sbatch --parsable -t 2 -o /srv/home/said cured/launch.sh);"
    done += " while squeue -h -j $job 2>/dev/null | grep -q .; do sleep 0.2; done; cat said"
    said = alice(cluster, "sh", "-c", done)
    return result, said


def trained(said: str) -> bool:
    return sorted(w for w in said.splitlines() if "TRAINED" in w) == ["TRAINED 0 2", "TRAINED 1 2"]


def test_one_rank_in_a_batch_script_is_cured_in_one_piece(cluster: Nodes) -> None:
    """The corrected script is given to Slurm as it is, and its ranks meet."""
    result, said = cured(cluster, JOB.replace("torchrun", TORCHRUN))
    fix = result["fixes"][0]
    assert fix["cause"] == "slurm-plan-mismatch" and fix["badge"] == "ran", fix
    assert trained(said) and "this is two-nodes" in said, said


@pytest.mark.skipif(find_spec("accelerate") is None, reason="no accelerate here")
@pytest.mark.parametrize(("more", "head", "told"), [
    ("", "$HEAD", "--rdzv_backend=c10d"),
    (" --same_network", "node2", "--machine_rank=$SLURM_NODEID"),
])  # fmt: skip
def test_a_machine_rank_that_no_task_is_told(
    cluster: Nodes, more: str, head: str, told: str
) -> None:
    """Each task takes itself for machine 0. Its agents agree on the ranks; or Slurm's number of
    the node is filled in there, and then they must meet at Slurm's first."""
    program = Path(sys.executable).with_name("accelerate")
    launch = f"{program} launch{more} --multi_gpu --num_processes 2"
    line = f"srun {launch} --num_machines 2 --main_process_ip {head} --main_process_port 29500"
    result, said = cured(cluster, f"{JOB.partition('srun')[0]}{line} train.py\n")
    fix = result["fixes"][0]
    elsewhere = "master-addr-not-rank0" in [cause["id"] for cause in result["causes"]]
    assert elsewhere == (head == "node2"), result["causes"]
    assert fix["cause"] == "node-rank-duplicated" and fix["badge"] == "ran", fix
    assert told in fix["launch"]
    assert trained(said), said


def test_an_interface_that_has_another_name_on_each_node(cluster: Nodes) -> None:
    """One variable for all can't be right; each task is told its own by one script."""
    line = f"srun {TORCHRUN} --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=$HEAD:29500 train.py"
    job = f"{JOB.partition('srun')[0]}export GLOO_SOCKET_IFNAME=eth0\n{line}\n"
    renamed = "ip link set {0} down; ip link set {0} name {1}; ip link set {1} up"
    cluster.on("node2", "sh", "-ec", renamed.format("eth0", "ens3"))
    try:
        result, said = cured(cluster, job)
    finally:
        cluster.on("node2", "sh", "-ec", renamed.format("ens3", "eth0"))
    fix = result["fixes"][0]
    assert fix["cause"] == "interface-invalid" and fix["badge"] == "ran", fix
    assert "node2) export GLOO_SOCKET_IFNAME=ens3" in fix["launch"]
    assert trained(said), said
