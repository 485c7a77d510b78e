"""What `--out` holds for all nodes; accelerate itself reads its files back."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.diagnose import Diagnosis, Question, target_of
from ddp_assist.app.export import launch_text
from ddp_assist.app.fixes.for_nodes import Agreement, for_all
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.hosts_written import files
from ddp_assist.probes.launch.accelerate_config import configured, with_settings
from ddp_assist.probes.launch.plan import Launch, LaunchError

NODES = ("n1", "n2", "n3")
YAML = """compute_environment: LOCAL_MACHINE
# of the old cluster
debug: false
distributed_type: MULTI_GPU
machine_rank: 0
main_process_ip: 'localhost'   # TODO
main_process_port: 29500
main_training_function: main
num_machines: 2
num_processes: 8
rdzv_backend: static
same_network: true
"""
CONFIGS = {
    "yaml": YAML,
    "windows": YAML.replace("\n", "\r\n"),
    "json": json.dumps(
        {
            "compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU",
            "machine_rank": 0, "main_process_ip": "localhost", "main_process_port": 29500,
            "num_machines": 2, "num_processes": 8, "same_network": True,
        },
        indent=2,
    ),
    "bare": "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\nnum_machines: 2\n"
            "num_processes: 8\nmain_process_ip:\n",
    "no end of line": YAML.rstrip() + "\nmixed_precision: no",
}  # fmt: skip


def corrected(line: str, agreed: Agreement, cwd: Path) -> dict[str, Launch]:
    env = {"HOME": str(cwd), "PATH": "/usr/bin:/bin"}
    launch = target_of(Question(launch=(line,), cwd=cwd, env=env)).launch
    assert launch is not None
    return for_all(launch, agreed)


def as_accelerate_reads(path: Path, *more: str) -> Any:
    """What accelerate itself makes of the file, and of the words beside it."""
    launch = pytest.importorskip("accelerate.commands.launch")
    words = ["--config_file", str(path), *more, "t.py"]
    args = launch.launch_command_parser().parse_args(words)
    return launch._validate_launch_command(args)[0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_for_each_node(kind: str, tmp_path: Path) -> None:
    name = "c.json" if kind == "json" else "c.yaml"
    (tmp_path / name).write_bytes(CONFIGS[kind].encode())
    agreed = Agreement(NODES, address="10.9.0.1", port=29511, count=3, ranks=True)
    nodes = corrected(f"accelerate launch --config_file {name} t.py", agreed, tmp_path)
    written = files(nodes, NODES)
    for rank, node in enumerate(NODES):
        file = tmp_path / f"accelerate-{node}{Path(name).suffix}"
        file.write_bytes(written[file.name].encode())
        read = as_accelerate_reads(file)
        assert (read.machine_rank, read.num_machines, read.num_processes) == (rank, 3, 12)
        assert (read.main_process_ip, read.main_process_port) == ("10.9.0.1", 29511)
        assert read.multi_gpu
        words = [w for w in nodes[node].text.split() if w.startswith(("--m", "--n"))]
        by_words = as_accelerate_reads(tmp_path / name, *words)
        for same in ("machine_rank", "num_machines", "num_processes", "main_process_ip"):
            assert getattr(by_words, same) == getattr(read, same), (same, words)
        if kind in ("yaml", "windows"):
            before, after = (
                t.splitlines(keepends=True) for t in (CONFIGS[kind], written[file.name])
            )
            changed = difflib.ndiff(before, after)
            gone = [line.split()[1] for line in changed if line.startswith("- ")]
            assert set(gone) <= {"machine_rank:", "main_process_ip:", "main_process_port:",
                                 "num_machines:", "num_processes:"}  # fmt: skip
            assert "# TODO" in written[file.name]


def test_what_is_right_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(YAML)
    nodes = corrected(
        "accelerate launch --config_file c.yaml t.py", Agreement(NODES[:2], ranks=True), tmp_path
    )
    written = files(nodes, NODES[:2])
    assert written["accelerate-n1.yaml"] == YAML
    assert written["accelerate-n2.yaml"] == YAML.replace("machine_rank: 0", "machine_rank: 1")


def test_without_a_file_the_words_say_it_all(tmp_path: Path) -> None:
    line = "accelerate launch --num_machines 2 --num_processes 4 --machine_rank 0 t.py"
    written = files(corrected(line, Agreement(NODES[:2], ranks=True), tmp_path), NODES[:2])
    assert sorted(written) == ["hostfile", "launch-n1.sh", "launch-n2.sh", "launch.sh"]
    assert "--machine_rank 1" in written["launch-n2.sh"]


def test_the_default_file_is_one_too(tmp_path: Path) -> None:
    default = tmp_path / ".cache/huggingface/accelerate/default_config.yaml"
    default.parent.mkdir(parents=True)
    default.write_text(YAML)
    nodes = corrected("accelerate launch t.py", Agreement(NODES[:2], ranks=True), tmp_path)
    assert "machine_rank: 1\n" in files(nodes, NODES[:2])["accelerate-n2.yaml"]


@pytest.mark.parametrize("host", ["fd00::1", "no", "head.cluster", "node-1", "10.0.0.1", "1e3"])
@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_a_host_stays_a_word(host: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    before = CONFIGS["json" if name.endswith("json") else "yaml"]
    path.write_text(with_settings(path, before, {"main_process_ip": host}))
    assert as_accelerate_reads(path).main_process_ip == host
    assert configured(path)["main_process_ip"] == host


@pytest.mark.parametrize(
    ("line", "lines", "expected"),
    [
        ("deepspeed --hostfile hosts t.py", "n1 slots=4\nn2 slots=4\n", None),
        ("deepspeed --hostfile hosts t.py", "# rack 1\nn1 slots=4\n",
         "# rack 1\nn1 slots=4\nn2 slots=4\n"),
        ("deepspeed --hostfile hosts t.py", "n1 slots=8\nold slots=8\nn2 slots=8\n",
         "n1 slots=8\nn2 slots=8\n"),
        ("mpirun --hostfile hosts -np 2 python t.py", "n2 slots=1 max_slots=2\nn1\n", None),
        ("torchrun t.py", "", "n1\nn2\n"),
        ("deepspeed --num_gpus 2 --num_nodes 2 t.py", "", "n1 slots=2\nn2 slots=2\n"),
    ],
)  # fmt: skip
def test_the_hostfile_keeps_what_the_user_wrote(
    line: str, lines: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text(lines)
    written = files(corrected(line, Agreement(NODES[:2]), tmp_path), NODES[:2])
    assert written["hostfile"] == (lines if expected is None else expected)


SBATCH = """#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
export HEAD=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
{command}
"""

OWN = {"n1": {"GLOO_SOCKET_IFNAME": "eth0"}, "n2": {"GLOO_SOCKET_IFNAME": "ens3"}}
EACH = (
    "bash -c 'case $(uname -n) in n2) export GLOO_SOCKET_IFNAME=ens3 ;; "
    "*) export GLOO_SOCKET_IFNAME=eth0 ;; esac; exec \"$@\"' _ "
)


@pytest.mark.parametrize(
    ("command", "agreed", "expected"),
    [
        ("srun torchrun --nnodes=2 --node_rank=0 --master_addr=$HEAD --master_port=29500 t.py",
         {"ranks": True},
         "srun torchrun --rdzv_backend=c10d --nnodes=2 --rdzv_endpoint=$HEAD:29500 t.py"),
        ("srun python -m torch.distributed.run --nnodes 2 --node-rank 0"
         " --master-addr \"$HEAD\" t.py",
         {"ranks": True},
         "srun python -m torch.distributed.run --rdzv-backend=c10d --nnodes 2"
         " --rdzv-endpoint=\"$HEAD\":29500 t.py"),
        ("srun torchrun --nnodes 2 --node_rank $SLURM_NODEID --master_addr h0 t.py",
         {"ranks": True, "address": "fd00::1", "port": 29511},
         "srun torchrun --rdzv_backend=c10d --nnodes 2 --rdzv_endpoint=[fd00::1]:29511 t.py"),
        ("srun bash -c 'torchrun --nnodes 2 --node_rank 0 --master_addr h0 t.py'",
         {"ranks": True},
         "srun bash -c 'torchrun --nnodes 2 --node_rank $SLURM_NODEID --master_addr h0 t.py'"),
        ("srun bash -c 'accelerate launch --num_machines 2 --main_process_ip h0 t.py'",
         {"ranks": True, "address": "10.0.0.1"},
         "srun bash -c 'accelerate launch --machine_rank=$SLURM_NODEID --num_machines 2"
         " --main_process_ip 10.0.0.1 t.py'"),
        ("srun torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint h0:29500 t.py",
         {"ranks": True, "port": 29511},
         "srun torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint h0:29511 t.py"),
        ("srun python t.py", {"env": dict.fromkeys(NODES, {"GLOO_SOCKET_IFNAME": "ib0"})},
         "srun env GLOO_SOCKET_IFNAME=ib0 python t.py"),
        ("srun bash -c 'torchrun --nnodes 2 --node_rank 0 --master_addr h0 t.py'",
         {"ranks": True, "address": "10.0.0.1"},
         "srun bash -c 'torchrun --nnodes 2 --node_rank $SLURM_NODEID"
         " --master_addr 10.0.0.1 t.py'"),
        ("srun accelerate launch --num_machines 2 --machine_rank 0"
         " --main_process_ip $HEAD 't 1.py'",
         {"ranks": True},
         "srun bash -c 'exec accelerate launch --machine_rank=$SLURM_NODEID \"$@\"' _"
         " --num_machines 2 --main_process_ip $HEAD 't 1.py'"),
        ("srun -N2 env A=1 python -m accelerate.commands.launch --num_machines 2 t.py",
         {"ranks": True, "address": "10.0.0.1"},
         "srun -N2 env A=1 bash -c 'exec python -m accelerate.commands.launch"
         " --machine_rank=$SLURM_NODEID \"$@\"' _ --main_process_ip=10.0.0.1"
         " --num_machines 2 t.py"),
        ("srun --label python t.py 'a b' > log", {"env": OWN},
         f"srun --label {EACH}python t.py 'a b' > log"),
        ("srun env GLOO_SOCKET_IFNAME=ib0 torchrun --nnodes 2 t.py", {"env": OWN},
         f"srun env GLOO_SOCKET_IFNAME=ib0 {EACH}torchrun --nnodes 2 t.py"),
        ("srun -N2 bash -c \"torchrun --nnodes $N t.py\"", {"env": OWN},
         f"srun -N2 {EACH}bash -c \"torchrun --nnodes $N t.py\""),
        ("CMD='python t.py'; srun $CMD", {"env": OWN}, f"CMD='python t.py'; srun {EACH}$CMD"),
        ("mpirun -np 2 -H n1,n2 python t.py", {"env": OWN},
         f"mpirun -np 2 -H n1,n2 {EACH}python t.py"),
        # What one command can't say is not guessed.
        ("srun accelerate launch --num_machines 2 --machine_rank 0 t.py", {"ranks": True}, None),
        ("srun torchrun --nnodes 2 --node_rank 0 t.py", {"ranks": True}, None),
        ("torchrun --nnodes 2 --node_rank 0 --master_addr h0 t.py", {"ranks": True}, None),
        ("PY=python; srun $PY -m accelerate.commands.launch --num_machines 2"
         " --main_process_ip h0 t.py", {"ranks": True}, None),
        ("srun bash -c 'export GLOO_SOCKET_IFNAME=x; python t.py'", {"env": OWN}, None),
        ("srun python t.py", {"env": {"n1": {"GLOO_SOCKET_IFNAME": "a$b"}, "n2": {}}}, None),
        ("srun python t.py", {"env": OWN, "called": dict.fromkeys(NODES, "localhost")}, None),
        ("deepspeed --hostfile h t.py", {"env": OWN}, None),
    ],
)  # fmt: skip
def test_a_batch_script_is_corrected_as_one_piece(
    command: str, agreed: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "job.sh").write_text(SBATCH.format(command=command))
    asked = Agreement(NODES[:2], **agreed)
    if expected is None:
        with pytest.raises(LaunchError):
            corrected("sbatch job.sh", asked, tmp_path)
        return
    nodes = corrected("sbatch job.sh", asked, tmp_path)
    assert {one.text for one in nodes.values()} == {SBATCH.format(command=expected)}
    assert sorted(files(nodes, NODES[:2])) == ["hostfile"]
    question = Question(launch=("sbatch", "job.sh"), cwd=tmp_path, env={})
    diagnosis = Diagnosis(question, target_of(question), ())
    fix = Fix("node-rank-duplicated", "ranks by task", "command", launch=nodes["n1"])
    lines = launch_text(diagnosis, fix, tmp_path).splitlines()
    assert lines[:2] == ["#!/bin/bash", "# ranks by task"]
    assert lines[2:4] == SBATCH.splitlines()[1:3] and not any("#!" in line for line in lines[1:])
