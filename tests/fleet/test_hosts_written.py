"""What `--out` holds for all nodes; accelerate itself reads its files back."""

from __future__ import annotations

import difflib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.diagnose import Diagnosis, Question, target_of
from ddp_assist.app.export import launch_text
from ddp_assist.app.fixes.for_nodes import Agreement, for_all
from ddp_assist.app.fixes.hostfile import corrected as hostfile_of
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.hosts_written import files
from ddp_assist.probes.launch.accelerate_config import configured, with_settings
from ddp_assist.probes.launch.check_words import hostfile
from ddp_assist.probes.launch.plan import Launch, LaunchError
from ddp_assist.probes.model import Target

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


def asked(line: str, cwd: Path) -> Target:
    env = {"HOME": str(cwd), "PATH": "/usr/bin:/bin"}
    return target_of(Question(launch=(line,), cwd=cwd, env=env))


def corrected(line: str, agreed: Agreement, cwd: Path) -> dict[str, Launch]:
    launch = asked(line, cwd).launch
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


NESTED = YAML.replace("MULTI_GPU", "DEEPSPEED") + """deepspeed_config:
  deepspeed_hostfile: hosts   # of the old cluster
  deepspeed_inclusion_filter: n1@n2
  deepspeed_multinode_launcher: pdsh
  zero_stage: 2
use_cpu: false
"""


@pytest.mark.parametrize("kind", ["yaml", "json"])
def test_the_hosts_of_a_nested_deepspeed_configuration(kind: str, tmp_path: Path) -> None:
    """It is one command for all nodes, one configuration, and a hostfile beside it."""
    yaml = pytest.importorskip("yaml")
    path = tmp_path / f"c.{kind}"
    path.write_text(NESTED if kind == "yaml" else json.dumps(yaml.safe_load(NESTED), indent=2))
    (tmp_path / "hosts").write_text("n1 slots=4\nn2 slots=4\nold slots=4\n")
    line = f"accelerate launch --config_file {path.name} t.py"
    main = asked(line, tmp_path).plan
    assert main is not None and main.starts_all and main.hosts == ("n1", "n2")
    agreed = Agreement(NODES[:2], address="10.9.0.1", port=29511, ranks=True, hostfile=True)
    nodes = corrected(line, agreed, tmp_path)
    assert len({one.text for one in nodes.values()}) == 1
    written = files(nodes, NODES[:2], new_hostfile=tmp_path / "out" / "hostfile")
    assert sorted(written) == [f"accelerate.{kind}", "hostfile"]
    (tmp_path / f"accelerate.{kind}").write_text(written[f"accelerate.{kind}"])
    read = as_accelerate_reads(tmp_path / f"accelerate.{kind}")
    assert (read.main_process_ip, read.main_process_port) == ("10.9.0.1", 29511)
    assert read.deepspeed_hostfile == str(tmp_path / "out" / "hostfile")
    assert (read.machine_rank, read.zero_stage, read.use_deepspeed) == (0, 2, True)
    words = [w for w in nodes["n1"].text.split() if w.startswith(("--m", "--deep"))]
    assert as_accelerate_reads(path, *words).deepspeed_hostfile == "hosts"


def test_a_nested_configuration_that_starts_one_node(tmp_path: Path) -> None:
    text = NESTED.replace("pdsh", "standard")
    (tmp_path / "c.yaml").write_text(text)
    line = "accelerate launch --config_file c.yaml t.py"
    nodes = corrected(line, Agreement(NODES[:2], ranks=True), tmp_path)
    assert "--machine_rank=1" in nodes["n2"].text
    written = files(nodes, NODES[:2])
    assert written["accelerate-n2.yaml"] == text.replace("machine_rank: 0", "machine_rank: 1")


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


@pytest.mark.parametrize(
    ("line", "lines", "expected"),
    [
        # Names of an example, with as many ranks as it has.
        ("deepspeed --hostfile hosts t.py", "# two\nworker-0 slots=4\nworker-1 slots=4\n",
         {"n1": 4, "n2": 4}),
        # One that is a node stands twice, the other has no number; GPUs count where no line does.
        ("deepspeed -H hosts t.py", "n1 slots=8\nn1 slots=8\nn2\n", {"n1": 8, "n2": 8}),
        ("deepspeed -H hosts t.py", "n1 8\nn2 8\n", {"n1": 2, "n2": 2}),
        ("deepspeed --num_nodes 2 --num_gpus 3 t.py", None, {"n1": 3, "n2": 3}),
        ("deepspeed --hostfile hosts t.py", None, {"n1": 2, "n2": 2}),
    ],
)  # fmt: skip
def test_deepspeed_reads_the_corrected_hostfile(
    line: str, lines: str | None, expected: dict[str, int], tmp_path: Path
) -> None:
    runner = pytest.importorskip("deepspeed.launcher.runner", reason="no wheel of deepspeed")
    if lines is not None:
        (tmp_path / "hosts").write_text(lines)
    target = asked(line, tmp_path)
    found = [f for f in hostfile(target) if f.outcome == "hostfile-invalid"]
    assert found or "worker" in (lines or "")
    agreed = Agreement(NODES[:2], hostfile=True, address="10.0.0.1", port=29511)
    launch = corrected(line, agreed, tmp_path)["n1"]
    assert launch.main is not None
    edit = hostfile_of(launch.main, NODES[:2], {"n1": 2, "n2": 2})
    assert [*hostfile(replace(target, launch=launch), {edit.path: edit.after})] == []
    copy = tmp_path / "out" / "hosts"
    copy.parent.mkdir()
    copy.write_text(edit.after)
    script = launch.shell(tmp_path, {edit.path: copy})
    words = runner.parse_args(shlex.split(script.splitlines()[-1])[1:])
    assert words.hostfile == str(copy)
    assert (words.master_addr, words.master_port) == ("10.0.0.1", 29511)
    assert dict(runner.fetch_hostfile(words.hostfile)) == expected
    assert (tmp_path / "hosts").exists() == (lines is not None)


def test_how_many_ranks_a_host_gets_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("n1\nn2\n")
    main = asked("deepspeed --hostfile hosts t.py", tmp_path).plan
    assert main is not None
    with pytest.raises(LaunchError, match="how many ranks"):
        hostfile_of(main, NODES[:2], {})
    (tmp_path / "hosts").write_text("worker-0 slots=4\n")
    main = asked("colossalai run --hostfile hosts --nproc_per_node 2 t.py", tmp_path).plan
    assert main is not None
    assert hostfile_of(main, NODES[:2], {}).after == "n1\nn2\n"


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("deepspeed --hostfile hosts t.py", ("n1", "n2", "n3")),
        ("deepspeed -H hosts --include n3@n1:0,2 t.py", ("n1", "n3")),
        ("deepspeed -H hosts --exclude n1:0@n2 t.py", ("n1", "n3")),
        ("deepspeed -H hosts --num_nodes 2 t.py", ("n1", "n2")),
        ("deepspeed -H hosts --num_nodes 5 t.py", ("n1", "n2", "n3")),
    ],
)  # fmt: skip
def test_the_hosts_of_a_launch_are_those_that_deepspeed_takes(
    line: str, hosts: tuple[str, ...], tmp_path: Path
) -> None:
    runner = pytest.importorskip("deepspeed.launcher.runner", reason="no wheel of deepspeed")
    (tmp_path / "hosts").write_text("n1 slots=4\nn2 slots=4\nn3 slots=4\n")
    words = runner.parse_args(line.split()[1:])
    pool = runner.fetch_hostfile(str(tmp_path / "hosts"))
    taken = runner.parse_inclusion_exclusion(pool, words.include, words.exclude)
    taken = runner.apply_num_nodes_and_gpus(taken, words.num_nodes, words.num_gpus)
    main = asked(line, tmp_path).plan
    assert main is not None
    assert tuple(taken) == hosts == main.hosts
    assert main.nnodes == (len(hosts), len(hosts))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepspeed --hostfile h t.py", "deepspeed --master_addr=10.0.0.1 --hostfile h t.py"),
        ("colossalai run --host n1,n2 --master_addr n9 t.py",
         "colossalai run --host n1,n2 --master_addr 10.0.0.1 t.py"),
        ("accelerate launch --use_deepspeed --deepspeed_hostfile h --num_machines 2"
         " --main_process_ip h0 t.py",
         "accelerate launch --use_deepspeed --deepspeed_hostfile h --num_machines 2"
         " --main_process_ip 10.0.0.1 t.py"),
        ("pdsh -w n1,n2 torchrun --nnodes 2 --node_rank 0 --master_addr n9 t.py",
         "pdsh -w n1,n2 torchrun --rdzv_backend=c10d --nnodes 2 --rdzv_endpoint=10.0.0.1:29500"
         " t.py"),
        # These give out no ranks that a word of theirs could name, and start each node the same.
        ("pdsh -w n1,n2 accelerate launch --same_network --num_machines 2 --main_process_ip n9"
         " t.py", None),
        ("horovodrun -np 2 -H n1:1,n2:1 env RANK=0 WORLD_SIZE=2 python t.py", None),
        ("ray job submit -- env RANK=0 WORLD_SIZE=2 python t.py", None),
    ],
)  # fmt: skip
def test_what_starts_all_nodes_by_itself_is_told_once(
    line: str, expected: str | None, tmp_path: Path
) -> None:
    agreed = Agreement(NODES[:2], address="10.0.0.1", count=2, ranks=True)
    if expected is None:
        with pytest.raises(LaunchError):
            corrected(line, agreed, tmp_path)
        return
    nodes = corrected(line, agreed, tmp_path)
    assert {one.text for one in nodes.values()} == {expected}
    assert sorted(files(nodes, NODES[:2])) == ["hostfile"]


def test_deepspeed_on_each_node_is_told_its_rank(tmp_path: Path) -> None:
    line = "deepspeed --hostfile h --no_ssh --node_rank 0 --master_addr n1 t.py"
    nodes = corrected(line, Agreement(NODES[:2], ranks=True, port=29511), tmp_path)
    assert "--node_rank 1 " in nodes["n2"].text and "--node_rank 0 " in nodes["n1"].text
    assert "launch-n2.sh" in files(nodes, NODES[:2])


def test_a_variable_that_deepspeed_does_not_pass_on_is_no_cure(tmp_path: Path) -> None:
    line = "deepspeed --hostfile h t.py"
    for name, expected in (("GLOO_SOCKET_IFNAME", None), ("NCCL_SOCKET_IFNAME", f"=ib0 {line}")):
        agreed = Agreement(NODES[:2], env=dict.fromkeys(NODES[:2], {name: "ib0"}))
        if expected is None:
            with pytest.raises(LaunchError, match="does not pass"):
                corrected(line, agreed, tmp_path)
        else:
            assert corrected(line, agreed, tmp_path)["n2"].text == name + expected


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
        ("srun accelerate launch --same_network --num_machines 2 --machine_rank 0"
         " --main_process_ip $HEAD 't 1.py'",
         {"ranks": True},
         "srun bash -c 'exec accelerate launch --machine_rank=$SLURM_NODEID \"$@\"' _"
         " --same_network --num_machines 2 --main_process_ip $HEAD 't 1.py'"),
        ("srun -N2 env A=1 python -m accelerate.commands.launch --same_network --num_machines 2"
         " t.py", {"ranks": True, "address": "10.0.0.1"},
         "srun -N2 env A=1 bash -c 'exec python -m accelerate.commands.launch"
         " --machine_rank=$SLURM_NODEID \"$@\"' _ --main_process_ip=10.0.0.1"
         " --same_network --num_machines 2 t.py"),
        ("L='accelerate launch --num_machines 2'; srun $L --main_process_ip $HEAD t.py",
         {"ranks": True},
         "L='accelerate launch --machine_rank=0 --rdzv_backend=c10d --num_machines 2';"
         " srun $L --main_process_ip $HEAD t.py"),
        ("mpirun -np 2 accelerate launch --num_machines 2 --machine_rank $OMPI_COMM_WORLD_RANK"
         " --main_process_ip h0 t.py", {"ranks": True},
         "mpirun -np 2 accelerate launch --rdzv_backend=c10d --num_machines 2 --machine_rank 0"
         " --main_process_ip h0 t.py"),
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
        ("srun accelerate launch --same_network --num_machines 2 --machine_rank 0 t.py",
         {"ranks": True}, None),
        ("srun torchrun --nnodes 2 --node_rank 0 t.py", {"ranks": True}, None),
        ("torchrun --nnodes 2 --node_rank 0 --master_addr h0 t.py", {"ranks": True}, None),
        ("PY=python; srun $PY -m accelerate.commands.launch --same_network --num_machines 2"
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
    wanted = Agreement(NODES[:2], **agreed)
    if expected is None:
        with pytest.raises(LaunchError):
            corrected("sbatch job.sh", wanted, tmp_path)
        return
    nodes = corrected("sbatch job.sh", wanted, tmp_path)
    assert {one.text for one in nodes.values()} == {SBATCH.format(command=expected)}
    assert sorted(files(nodes, NODES[:2])) == ["hostfile"]
    question = Question(launch=("sbatch", "job.sh"), cwd=tmp_path, env={})
    diagnosis = Diagnosis(question, target_of(question), ())
    fix = Fix("node-rank-duplicated", "ranks by task", "command", launch=nodes["n1"])
    lines = launch_text(diagnosis, fix, tmp_path).splitlines()
    assert lines[:2] == ["#!/bin/bash", "# ranks by task"]
    assert lines[2:4] == SBATCH.splitlines()[1:3] and not any("#!" in line for line in lines[1:])
