"""What the variables of the shell do to a launch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddp_assist.probes.host import variables
from ddp_assist.probes.host.environment import ENV
from ddp_assist.probes.model import Finding

Ask = Callable[..., dict[str, Finding]]
PATH = {"PATH": os.environ["PATH"]}
EXPORTED = PATH | {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
SALLOC = PATH | {"SLURM_JOB_ID": "812", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}


def bad(found: dict[str, Finding]) -> set[str]:
    return {key for key, f in found.items() if ENV.weight(f.outcome) == "bad"}


def test_a_quiet_shell_is_fine(ask: Ask) -> None:
    assert set(ask(ENV, env=PATH)) == {"env.fine"}


def test_ranks_of_an_earlier_run_steer_plain_python_only(ask: Ask) -> None:
    found = ask(ENV, env=EXPORTED, launch=["python", "train.py"])
    assert bad(found) == {"env.left-over-rank"}
    assert found["env.left-over-rank"].data["variables"]["RANK"] == "1"
    assert not bad(ask(ENV, env=EXPORTED, launch=["torchrun", "--nproc-per-node=2", "train.py"]))
    assert not bad(ask(ENV, env=EXPORTED))


def test_variables_on_the_line_are_meant(ask: Ask) -> None:
    line = "RANK=1 WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 python train.py"
    assert not bad(ask(ENV, env=PATH, launch=["bash", "-c", line]))


def test_options_of_torchrun_in_the_shell(ask: Ask) -> None:
    env = PATH | {"PET_NNODES": "2", "PET_NODE_RANK": "1"}
    found = ask(ENV, env=env, launch=["torchrun", "train.py"])
    assert set(found["env.left-over-pet"].data["variables"]) == {"PET_NNODES", "PET_NODE_RANK"}
    given = ["torchrun", "--nnodes=1", "--node-rank=0", "train.py"]
    assert not bad(ask(ENV, env=env, launch=given))
    assert not bad(
        ask(ENV, env=PATH | {"PET_NNODES": "1", "PET_NODE_RANK": "0"}, launch=["torchrun", "t.py"])
    )
    assert not bad(ask(ENV, env=env, launch=["python", "train.py"]))


def test_the_agents_store_is_gone_with_the_agent(ask: Ask) -> None:
    env = PATH | {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "x"}
    assert bad(ask(ENV, env=env, launch=["python", "train.py"])) == {"env.left-over-store"}
    assert not bad(ask(ENV, env=env, launch=["torchrun", "train.py"]))


def test_an_allocation_is_no_srun(ask: Ask) -> None:
    assert bad(ask(ENV, env=SALLOC, launch=["python", "train.py"])) == {"env.slurm-without-srun"}
    batch = SALLOC | {"SLURM_STEP_ID": str(0xFFFFFFFB)}
    assert bad(ask(ENV, env=batch, launch=["python", "train.py"])) == {"env.slurm-without-srun"}
    assert not bad(ask(ENV, env=SALLOC | {"SLURM_STEP_ID": "0"}, launch=["python", "train.py"]))
    assert not bad(ask(ENV, env=SALLOC | {"SLURM_NTASKS": "1"}, launch=["python", "train.py"]))
    assert not bad(ask(ENV, env=SALLOC, launch=["torchrun", "train.py"]))
    assert not bad(ask(ENV, env=SALLOC, launch=["srun", "python", "train.py"]))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "out-of-range"),
        ({"RANK": "zero", "WORLD_SIZE": "2"}, "not-a-number"),
        ({"RANK": "0", "WORLD_SIZE": "-2"}, "not-a-number"),
        ({"MASTER_PORT": "9" * 4000}, "not-a-number"),
        ({"LOCAL_RANK": "4", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, "out-of-range"),
        ({"NCCL_BLOCKING_WAIT": "1", "TORCH_NCCL_BLOCKING_WAIT": "0"}, "two-names"),
        ({"TORCH_DISTRIBUTED_DEBUG": "VERBOSE"}, "no-such-value"),
        ({"CUDA_VISIBLE_DEVICES": "0, 1,0"}, "twice"),
    ],
)
def test_contradictions(ask: Ask, given: dict[str, str], kind: str) -> None:
    line = " ".join(f"{k}='{v}'" for k, v in given.items()) + " python train.py"
    found = ask(ENV, env=PATH, launch=["bash", "-c", line])
    assert bad(found) == {"env.contradiction"}
    assert found["env.contradiction"].data["kind"] == kind


@pytest.mark.parametrize(
    "given",
    [
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"},
        {"TORCH_DISTRIBUTED_DEBUG": "info"},
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "0,1,GPU-8932f937"},
        {"NCCL_BLOCKING_WAIT": "1", "TORCH_NCCL_BLOCKING_WAIT": "1"},
    ],
)
def test_no_contradictions(ask: Ask, given: dict[str, str]) -> None:
    line = " ".join(f"{k}='{v}'" for k, v in given.items()) + " python train.py"
    assert not bad(ask(ENV, env=PATH, launch=["bash", "-c", line]))


def test_written_down_but_not_exported(ask: Ask) -> None:
    found = ask(ENV, env=PATH, launch=["bash", "-c", "WORLD_SIZE=2; RANK=0 python train.py"])
    assert list(found["env.not-exported"].data["variables"]) == ["WORLD_SIZE"]
    exported = "export WORLD_SIZE=2; RANK=0 python train.py"
    assert not bad(ask(ENV, env=PATH, launch=["bash", "-c", exported]))
    steers = "NCCL_SOCKET_IFNAME=lo; torchrun --nproc-per-node=2 train.py"
    found = ask(ENV, env=PATH, launch=["bash", "-c", steers])
    assert list(found["env.not-exported"].data["variables"]) == ["NCCL_SOCKET_IFNAME"]


@pytest.mark.parametrize(
    "text",
    [
        "NODE_RANK=0; MASTER_ADDR=localhost; python -m torch.distributed.launch"
        " --node_rank=$NODE_RANK --master_addr=$MASTER_ADDR --nproc_per_node=2 train.py",
        "WORLD_SIZE=$((2 * 1)); torchrun --nproc-per-node=2 train.py",
        "MASTER_ADDR=localhost; python train.py --dist-url tcp://${MASTER_ADDR}:29511 --rank 0",
    ],
)
def test_what_is_handed_on_or_set_by_the_launcher_need_not_be_exported(ask: Ask, text: str) -> None:
    assert not bad(ask(ENV, env=PATH, launch=["bash", "-c", text]))


def test_set_to_nothing(ask: Ask) -> None:
    found = ask(ENV, env=PATH, launch=["bash", "-c", "MASTER_ADDR= RANK=0 python train.py"])
    assert found["env.empty"].data["variables"] == ["MASTER_ADDR"]
    assert "env.empty" not in ask(ENV, env=PATH | {"RANK": ""}, launch=["torchrun", "train.py"])


@pytest.mark.parametrize(
    "value", ["10.0.0.1\r", "node0\xa0", " node0", "\x1b[2Jnode0", "n\udcff", "a\u200bb"]
)
def test_characters_that_nobody_sees(ask: Ask, value: str) -> None:
    found = ask(ENV, env=PATH | {"MASTER_ADDR": value}, launch=["torchrun", "train.py"])
    assert bad(found) == {"env.unprintable"}
    told = found["env.unprintable"]
    assert told.sentence.isprintable() and told.sentence.isascii()
    json.dumps(dict(told.data))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MASTER_ADRR", "MASTER_ADDR"),
        ("MASTER_ADDRESS", "MASTER_ADDR"),
        ("master_addr", "MASTER_ADDR"),
        ("WORLDSIZE", "WORLD_SIZE"),
        ("WORDL_SIZE", "WORLD_SIZE"),
        ("MASTER_POTR", "MASTER_PORT"),
        ("CUDA_VISIBLE_DEVICE", "CUDA_VISIBLE_DEVICES"),
        ("NCCL_SOCKET_IFNAM", "NCCL_SOCKET_IFNAME"),
        ("GLOO_IFNAME", "GLOO_SOCKET_IFNAME"),
        ("NCCL_DEBUGG", "NCCL_DEBUG"),
        ("TORCH_DISTRIBUTED_DEBUGG", "TORCH_DISTRIBUTED_DEBUG"),
    ],
)
def test_slips_of_the_pen(ask: Ask, name: str, meant: str) -> None:
    found = ask(ENV, env=PATH | {name: "x"})
    assert found["env.typo"].data["meant"] == meant
    assert "env.typo" not in ask(ENV, env=PATH | {name: "x", meant: "y"})


@pytest.mark.parametrize(
    "name",
    [
        "NCCL_IB_TC", "CUDNN_VERSION", "GLOBAL_RANK", "PYTORCH_VERSION", "NVIDIA_VISIBLE_DEVICES",
        "MY_RANK", "WORLD_RANK", "NCCL_NET_GDR_C2C", "TORCHVISION_VERSION", "CUDA_ROOT",
        "HOROVOD_RANK",
        "NODE_RANK", "MASTER_NODE", "HOSTNAME", "PETSC_DIR", "TORCH_VERSION", "NCCL_VERSION",
    ],
)  # fmt: skip
def test_names_of_others_are_no_slips(ask: Ask, name: str) -> None:
    assert "env.typo" not in ask(ENV, env=PATH | {name: "x"})


def test_no_known_name_is_taken_for_another() -> None:
    assert variables.typos(variables.KNOWN) == {}


def test_a_huge_and_hostile_environment_is_looked_at(ask: Ask) -> None:
    env = PATH | {f"NCCL_{i}\x1b]0;x\x07": "\udcfe" * 1000 for i in range(1000)}
    found = ask(ENV, env=env)
    assert set(found) >= {"env.set", "env.unprintable"}
    for finding in found.values():
        assert finding.sentence.isprintable() and len(finding.sentence) < 1500
        json.dumps(dict(finding.data))


def test_under_a_launcher_the_variables_are_its_work(tmp_path: Path) -> None:
    """A process named torchrun starts us: what it set is no left-over."""
    code = (
        "import os\n"
        "from ddp_assist.probes.host.environment import ENV\n"
        "from ddp_assist.probes.launch.read import read_launch\n"
        "from ddp_assist.probes.model import Target\n"
        "from pathlib import Path\n"
        "launch = read_launch(['python', 't.py'], dict(os.environ), Path.cwd())\n"
        "print(*[f.key for f in ENV.look(Target(plan=launch.main, launch=launch))])\n"
    )
    launcher = tmp_path / "torchrun"
    launcher.write_text(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
    typing = str(Path(__file__).resolve().parent.parent / "typing")
    env = EXPORTED | {"PYTHONPATH": typing}
    alone = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    under = subprocess.run(
        [sys.executable, str(launcher)], env=env, capture_output=True, text=True, check=True
    )
    assert "env.left-over-rank" in alone.stdout.split()
    assert under.stdout.split() == ["env.set", "env.fine"]


@pytest.mark.parametrize(
    ("one", "other", "letters"),
    [
        ("RANK", "RANK", 0),
        ("RANK", "RNAK", 1),
        ("RANK", "RANKS", 1),
        ("RANK", "", 4),
        ("AB", "BA", 1),
    ],
)
def test_how_far_names_are_apart(one: str, other: str, letters: int) -> None:
    assert variables.distance(one, other) == variables.distance(other, one) == letters
    assert variables.distance("X" + one, "X" + other) == letters
    assert variables.distance(one, other, 1) == letters or letters > 1
