"""Checks of a launch that need more than its words: shell, script, what other probes saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.launch.check import OUTCOMES, PROBES, look
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

HOME = {"HOME": "/nowhere/home", "PATH": "/usr/bin:/bin"}


def findings(
    text: str, cwd: Path, env: dict[str, str] | None = None, **more: Any
) -> dict[str, Finding]:
    shell = HOME | (env or {})
    launch = read_launch(text, shell, cwd)
    target = Target(plan=launch.main, launch=launch, env=shell, cwd=cwd, **more)
    return {f.outcome: f for f in look(target)}


def bad(found: dict[str, Finding]) -> set[str]:
    return {outcome for outcome in found if OUTCOMES[outcome] == "bad"}


def test_the_probe_says_what_it_may_say() -> None:
    (probe,) = PROBES
    assert probe.id == "plan" and probe.outcomes == OUTCOMES
    assert not probe.applies(Target(env=HOME))


@pytest.mark.parametrize(
    ("env", "wrong"),
    [
        ({"PET_NNODES": "2"}, True),
        ({"PET_MASTER_PORT": "29500"}, True),
        ({"PET_NNODES": "2", "PET_MASTER_ADDR": "localhost", "PET_NODE_RANK": "7"}, True),
        ({"PET_NNODES": "1"}, False),
        ({"PET_UNHEARD_OF": "1"}, False),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, False),
    ],
)
def test_left_over_variables(env: dict[str, str], wrong: bool, tmp_path: Path) -> None:
    found = findings("torchrun --nproc-per-node=2 t.py", tmp_path, env)
    assert ("env-left-exported" in found) == wrong
    if wrong:
        assert bad(found) == {"env-left-exported"}
        assert found["env-left-exported"].data["variables"] == env
        named = "env -u " + " -u ".join(env) + " torchrun --nproc-per-node=2 t.py"
        assert "env-left-exported" not in findings(named, tmp_path, env)


def test_backend_against_the_build(tmp_path: Path) -> None:
    seen = (Finding("torch", "no-nccl", "", {"version": "2.13.0+cpu"}),)
    text = "torchrun --nproc-per-node=2 t.py"
    assert bad(findings(text, tmp_path, backend="nccl", seen=seen)) == {"nccl-not-in-build"}
    assert bad(findings(text, tmp_path, backend="gloo", seen=seen)) == set()


@pytest.mark.parametrize(("count", "ranks", "wrong"), [(2, 4, True), (4, 4, False), (0, 4, False)])
def test_gpus_against_ranks(count: int, ranks: int, wrong: bool, tmp_path: Path) -> None:
    seen = (Finding("gpu", "fine", "", {"count": count}),)
    for text in (f"torchrun --nproc-per-node={ranks} t.py", f"deepspeed --num_gpus {ranks} t.py"):
        assert ("gpu-count" in findings(text, tmp_path, seen=seen)) == wrong
        assert "gpu-count" not in findings(text, tmp_path, seen=seen, backend="gloo")


LAUNCH = "python -m torch.distributed.launch --nproc_per_node=2 t.py"
PARSER = (
    "import argparse\np = argparse.ArgumentParser()\np.add_argument({!r})\na = p.parse_args()\n"
)


@pytest.mark.parametrize(
    ("argument", "version", "wrong"),
    [
        ("--lr", "2.4.1", True),
        ("--local_rank", "2.4.1", True),
        ("--local_rank", "1.13.1", False),
        ("--local-rank", "2.4.1", False),
        ("--local-rank", "1.13.1", True),
    ],
)
def test_local_rank_argument(argument: str, version: str, wrong: bool, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(PARSER.format(argument))
    seen = (Finding("torch", "fine", "", {"version": version}),)
    assert ("local-rank-argument" in findings(LAUNCH, tmp_path, seen=seen)) == wrong
    eased = LAUNCH.replace("launch --", "launch --use-env --")
    assert bad(findings(eased, tmp_path, seen=seen)) == set()


def test_ranks_numbered_by_hand_without_a_place_to_meet(tmp_path: Path) -> None:
    text = "RANK=0 WORLD_SIZE=2 python t.py & RANK=1 WORLD_SIZE=2 python t.py"
    (tmp_path / "t.py").write_text("dist.init_process_group('gloo')\n")
    assert bad(findings(text, tmp_path)) == {"missing-env"}
    told = "export MASTER_ADDR=h MASTER_PORT=29511\n" + text
    assert bad(findings(told, tmp_path)) == set()
    (tmp_path / "t.py").write_text(
        "os.environ['MASTER_ADDR'] = 'h'\nos.environ['MASTER_PORT'] = '1'\n"
        "dist.init_process_group('gloo')\n"
    )
    assert bad(findings(text, tmp_path)) == set()
    (tmp_path / "t.py").write_text("dist.init_process_group('gloo', init_method='tcp://h:1')\n")
    assert bad(findings(text, tmp_path)) == set()


def test_hostfiles(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    for content, wrong in (
        ("h0 slots=8\nh1 slots=8\n", False),
        ("# two\nh0 slots=8\n\n", False),
        ("h0 slots=8\nh0 slots=8\n", True),
        ("<node-1> slots=8\n", True),
        ("h0 8\n", True),
        ("\n# nobody\n", True),
    ):
        hosts.write_text(content)
        found = findings("deepspeed --hostfile hosts t.py", tmp_path)
        assert ("hostfile-invalid" in found) == wrong, content
    hosts.write_text("h0 8\nh0 8\n")
    assert bad(findings("mpirun --hostfile hosts -np 2 python t.py", tmp_path)) == set()


def test_what_only_steers(tmp_path: Path) -> None:
    assert "port-privileged" in findings("torchrun --master-port=443 t.py", tmp_path)
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert "port-ephemeral" in findings(f"torchrun --master-port={low + 7} t.py", tmp_path)
    assert "one-of-several" in findings("RANK=1 WORLD_SIZE=2 python t.py", tmp_path)
    assert "no-launcher" in findings("echo nothing", tmp_path)
    assert "container-shm-default" in findings("docker run img torchrun t.py", tmp_path)
    assert "launcher-deprecated" in findings(LAUNCH, tmp_path)
    strange = findings("torchrun --nproc-per-nodes=2 t.py", tmp_path)
    assert strange["option-unknown"].data["nearest"] == "nproc-per-node"
    assert "fine" in strange and not bad(strange)


def test_a_slurm_script(tmp_path: Path) -> None:
    head = "#!/bin/bash\n#SBATCH --nodes={0}\n#SBATCH --ntasks-per-node={1}\n"
    meet = "H=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)\n"
    run = "srun torchrun --nnodes=$SLURM_NNODES --nproc-per-node=4 --rdzv-id=$SLURM_JOB_ID"
    rest = " --rdzv-backend=c10d --rdzv-endpoint=$H:29500 t.py\n"
    for nodes, tasks, wrong in ((2, 1, False), (2, 4, True), (1, 1, False)):
        (tmp_path / "job.sh").write_text(head.format(nodes, tasks) + meet + run + rest)
        launch = read_launch(["sbatch", "job.sh"], HOME, tmp_path)
        target = Target(plan=launch.main, launch=launch, env=HOME, cwd=tmp_path)
        found = {f.outcome for f in look(target) if OUTCOMES[f.outcome] == "bad"}
        assert found == ({"slurm-plan-mismatch"} if wrong else set())
