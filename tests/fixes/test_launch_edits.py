"""Each correction of a launch changes only the words it must, and what it leaves reads clean."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.fixes import launch_meeting, launch_surroundings
from ddp_assist.app.fixes.launch_edits import BUILDERS
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.check import OUTCOMES, look
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.network.links import Interface
from ddp_assist.probes.network.ports import bind_error, ephemeral_range

HOME = {"HOME": "/nowhere/home", "PATH": "/usr/bin:/bin"}
TWO = "on h0 torchrun {0} t.py & A=$!\non h1 torchrun {1} t.py & B=$!\nwait $A; wait $B\n"
STATIC = "--nnodes={n} --node-rank={r} --nproc-per-node=1 --master-addr=h0 --master-port=29511"
C10D = "--nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=h0:29400 --rdzv-id={id}"


@pytest.fixture(autouse=True)
def known_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_meeting, "free_port", lambda: 23456)
    monkeypatch.setattr(launch_surroundings, "free_port", lambda: 23456)


def situation(
    text: str, cwd: Path, env: dict[str, str] | None = None, cause: str = "x", **data: Any
) -> Situation:
    shell = HOME | (env or {})
    launch = read_launch(text, shell, cwd)
    target = Target(
        plan=launch.main, launch=launch, env=shell, cwd=cwd, backend=data.pop("backend", None)
    )
    findings = tuple(data.pop("findings", ()))
    return Situation(target, findings, cause, (Finding("some", "thing", "", data),))


def built(name: str, text: str, cwd: Path, **how: Any) -> Fix | None:
    return BUILDERS[name](situation(text, cwd, **how))


CHANGES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("another-port", "torchrun --nproc-per-node=2 --master-port=29500 t.py",
     "torchrun --nproc-per-node=2 --master-port=23456 t.py", {}),
    ("another-port", "torchrun --nproc_per_node 2 --master_port 29500 t.py  # mine",
     "torchrun --nproc_per_node 2 --master_port 23456 t.py  # mine", {}),
    ("another-port", "torchrun --nproc_per_node=2 t.py",
     "torchrun --master_port=23456 --nproc_per_node=2 t.py", {}),
    ("another-port", "torchrun --master-port='29500' t.py",
     "torchrun --master-port='23456' t.py", {}),
    ("another-port", "python -m torch.distributed.launch --nproc_per_node=2 t.py",
     "python -m torch.distributed.launch --master_port=23456 --nproc_per_node=2 t.py", {}),
    ("another-port", "accelerate launch --num_processes 2 t.py",
     "accelerate launch --main_process_port=23456 --num_processes 2 t.py", {}),
    ("another-port", "accelerate launch --main_process_port 29500 --num_processes 2 t.py",
     "accelerate launch --main_process_port 23456 --num_processes 2 t.py", {}),
    ("another-port", "deepspeed --num_gpus 2 t.py",
     "deepspeed --master_port=23456 --num_gpus 2 t.py", {}),
    ("another-port", "fabric run --devices=2 --main-port=29400 t.py",
     "fabric run --devices=2 --main-port=23456 t.py", {}),
    ("another-port", "export MASTER_ADDR=h MASTER_PORT=29500\npython t.py",
     "export MASTER_ADDR=h MASTER_PORT=23456\npython t.py", {}),
    ("another-port", "MASTER_PORT=29500\nexport MASTER_PORT\npython t.py",
     "MASTER_PORT=23456\nexport MASTER_PORT\npython t.py", {}),
    ("another-port", "P=29500\nexport MASTER_PORT=$P\npython t.py --port $P",
     "P=23456\nexport MASTER_PORT=$P\npython t.py --port $P", {}),
    ("another-port", "export MASTER_PORT=$((29500 + 99999)) # base\npython t.py",
     "export MASTER_PORT=23456 # base\npython t.py", {}),
    ("another-port", "export MASTER_PORT=${MASTER_PORT:-29500}\npython t.py",
     "export MASTER_PORT=${MASTER_PORT:-23456}\npython t.py", {}),
    ("another-port", "python t.py", "MASTER_PORT=23456 python t.py",
     {"env": {"MASTER_PORT": "29500", "MASTER_ADDR": "localhost"}}),
    ("another-port", "nohup python t.py", "nohup env MASTER_PORT=23456 python t.py",
     {"env": {"MASTER_PORT": "29500"}}),
    ("another-port", "A=\"--nnodes 1 --master_port 29500\"\ntorchrun $A t.py",
     "A=\"--nnodes 1 --master_port 23456\"\ntorchrun $A t.py", {}),
    ("another-port", "A=(--nnodes 1 --master_port 29500)\ntorchrun \"${A[@]}\" t.py",
     "A=(--nnodes 1 --master_port 23456)\ntorchrun \"${A[@]}\" t.py", {}),
    ("another-port", "su bob -c 'cd /srv\ntorchrun --master-port=443 t.py'",
     "su bob -c 'cd /srv\ntorchrun --master-port=23456 t.py'", {}),
    ("another-port", "H=h0; torchrun --rdzv-backend=c10d --rdzv-endpoint=$H:29400 t.py",
     "H=h0; torchrun --rdzv-backend=c10d --rdzv-endpoint=$H:23456 t.py", {}),
    ("another-port", TWO.format(C10D.format(id="a"), C10D.format(id="a")),
     TWO.format(C10D.format(id="a"), C10D.format(id="a")).replace("29400", "23456"), {}),
    ("another-port", "torchrun --master-port=29500 t.py", "torchrun --master-port=31111 t.py",
     {"open_port": 31111}),
    ("open-port", "torchrun --nnodes=2 --master-addr=h0 --master-port=29500 t.py",
     "torchrun --nnodes=2 --master-addr=h0 --master-port=29400 t.py", {"open_port": 29400}),
    ("open-port", "export MASTER_ADDR=h0 MASTER_PORT=29500\nRANK=0 on h0 python t.py",
     "export MASTER_ADDR=h0 MASTER_PORT=29400\nRANK=0 on h0 python t.py", {"open_port": 29400}),
    ("another-port", "cat <<E >x\n--master-port=29500\nE\ntorchrun --master-port=29500 t.py\n",
     "cat <<E >x\n--master-port=29500\nE\ntorchrun --master-port=23456 t.py\n", {}),
    ("standalone", "torchrun --nproc-per-node=2 --master-addr=127.0.0.1 --master-port=29500 t.py",
     "torchrun --standalone --nproc-per-node=2 t.py", {}),
    ("standalone", "torchrun --nnodes=1 --rdzv-id 3 --rdzv_backend c10d --rdzv-endpoint h:1 t.py",
     "torchrun --standalone --nnodes=1 t.py", {}),
    ("master-addr", "torchrun --nnodes=1 --master-addr=gone --master-port=29511 t.py",
     "torchrun --nnodes=1 --master-addr=127.0.0.1 --master-port=29511 t.py", {}),
    ("master-addr", "torchrun --nnodes=2 --master-addr=10.0.0.4:29500 t.py",
     "torchrun --nnodes=2 --master-addr=10.0.0.4 t.py", {}),
    ("master-addr", "torchrun --nnodes=2 --master-addr=tcp://10.0.0.4:29500 t.py",
     "torchrun --nnodes=2 --master-addr=10.0.0.4 t.py", {}),
    ("master-addr", TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=1)).replace(
        "addr=h0", "addr=localhost"),
     TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=1)), {}),
    ("master-addr", "export MASTER_ADDR=h7 MASTER_PORT=1234 WORLD_SIZE=2\n"
     "RANK=0 on h0 python t.py &\nRANK=1 on h1 python t.py",
     "export MASTER_ADDR=h0 MASTER_PORT=1234 WORLD_SIZE=2\n"
     "RANK=0 on h0 python t.py &\nRANK=1 on h1 python t.py", {}),
    ("endpoint-with-port", "torchrun --nnodes=2 --rdzv-endpoint=h0 t.py",
     "torchrun --nnodes=2 --rdzv-endpoint=h0:29400 t.py", {}),
    ("same-rdzv-id", TWO.format(C10D.format(id="run$(echo 1)"), C10D.format(id="run$(echo 2)")),
     TWO.format(C10D.format(id="run$(echo 1)"), C10D.format(id="run1")), {}),
    ("same-nnodes", TWO.format(STATIC.format(n=3, r=0), STATIC.format(n=2, r=1)),
     TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=1)), {}),
    ("distinct-node-ranks", TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=0)),
     TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=1)), {}),
    ("distinct-node-ranks", TWO.format(STATIC.format(n=2, r=1), STATIC.format(n=2, r=2)),
     TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=1)), {}),
    ("distinct-node-ranks",
     "for n in 1 2; do\n  on h$n torchrun --nnodes=2 --node-rank=$n --master-addr=h1 t.py &\ndone",
     "for n in 1 2; do\n  on h$n torchrun --nnodes=2 --node-rank=$((n - 1)) --master-addr=h1 t.py &"
     "\ndone", {}),
    ("distinct-node-ranks",
     "on h1 torchrun --nnodes=2 --master-addr=h0 t.py &\n"
     "on h0 torchrun --nnodes=2 --master-addr=h0 t.py &",
     "on h1 torchrun --node-rank=1 --nnodes=2 --master-addr=h0 t.py &\n"
     "on h0 torchrun --nnodes=2 --master-addr=h0 t.py &", {}),
    ("master-addr",
     "for h in a b; do\n on $h torchrun --nnodes 2 --rdzv-backend=c10d --rdzv-endpoint=$h:1 t.py&\n"
     "done",
     "for h in a b; do\n on $h torchrun --nnodes 2 --rdzv-backend=c10d --rdzv-endpoint=a:1 t.py&\n"
     "done", {}),
    ("same-rdzv-id",
     "for h in a b; do\n  on $h torchrun --nnodes=2 --rdzv-id=j-$h --rdzv-endpoint=a:1 t.py&\ndone",
     "for h in a b; do\n  on $h torchrun --nnodes=2 --rdzv-id=j-a --rdzv-endpoint=a:1 t.py&\ndone",
     {}),
    ("distinct-node-ranks", "RANK=0 python t.py & RANK=1 python t.py & RANK=1 python t.py",
     "RANK=0 python t.py & RANK=1 python t.py & RANK=2 python t.py", {}),
    ("init-method-option", "python t.py --dist-url 10.0.0.1:2950 --lr 1",
     "python t.py --dist-url tcp://10.0.0.1:2950 --lr 1",
     {"init_method": "10.0.0.1:2950"}),
    ("use-torchrun", "python -u train.py --lr 1",
     "python -u -m torch.distributed.run --standalone --nproc-per-node=2 train.py --lr 1", {}),
    ("use-torchrun", "python3 -m pkg.train",
     "python3 -m torch.distributed.run --standalone --nproc-per-node=2 -m pkg.train", {}),
    ("use-torchrun", "python train.py",
     "python -m torch.distributed.run --standalone --nproc-per-node=4 train.py",
     {"findings": [Finding("gpu", "fine", "", {"count": 4})]}),
    ("ranks-by-task",
     "srun -N 2 torchrun --nnodes=2 --node-rank=$SLURM_NODEID --master-addr=h0 t.py",
     "srun -N 2 torchrun --rdzv-backend=c10d --nnodes=2 --rdzv-endpoint=h0:29500 t.py",
     {"option": "--node-rank=$SLURM_NODEID"}),
    ("ranks-by-task",
     "srun -N 2 accelerate launch --machine_rank $SLURM_NODEID --num_machines 2"
     " --same_network --main_process_ip h0 t.py",
     "srun -N 2 bash -c 'exec accelerate launch --machine_rank=$SLURM_NODEID \"$@\"' _"
     " --num_machines 2 --same_network --main_process_ip h0 t.py",
     {"option": "--machine_rank $SLURM_NODEID"}),
    ("use-torchrun", "python t.py",
     "env -u SLURM_NTASKS -u SLURM_PROCID"
     " python -m torch.distributed.run --standalone --nproc-per-node=3 t.py",
     {"cause": "slurm-plan-mismatch", "env": {"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}}),
    ("every-process", "accelerate launch --cpu --num_processes 2 t.py",
     "accelerate launch --multi_gpu --num_processes 2 t.py", {"once": True}),
    ("lower-nproc", "torchrun --nproc-per-node=8 t.py", "torchrun --nproc-per-node=2 t.py",
     {"visible": 2}),
    ("lower-nproc", "accelerate launch --num_processes=8 t.py",
     "accelerate launch --num_processes=2 t.py", {"visible": 2}),
    ("start-all-ranks",
     "export WORLD_SIZE=4\nRANK=0 python t.py & A=$!\nRANK=1 python t.py -x & B=$!\nwait $A\n",
     "export WORLD_SIZE=4\nRANK=0 python t.py & A=$!\nRANK=1 python t.py -x & B=$!\n"
     "RANK=2 python t.py -x &\nRANK=3 python t.py -x &\ntrap wait EXIT\nwait $A\n", {}),
    ("side-by-side",
     "export WORLD_SIZE=2\nRANK=0 python t.py > a.log 2>&1\nRANK=1 python t.py\necho done\n",
     "export WORLD_SIZE=2\nRANK=0 python t.py > a.log 2>&1 &\nRANK=1 python t.py\n"
     "trap wait EXIT\necho done\n", {"in_turn": True}),
    ("match-world-size", "export WORLD_SIZE=4\nRANK=0 python t.py &\nRANK=1 python t.py &\nwait",
     "export WORLD_SIZE=2\nRANK=0 python t.py &\nRANK=1 python t.py &\nwait", {}),
    ("drop-flag", "torchrun --standalone --nnodes=2 t.py", "torchrun --nnodes=2 t.py",
     {"option": "--standalone"}),
    ("rename-option", "torchrun --nproc-per-nodes=2 t.py", "torchrun --nproc-per-node=2 t.py",
     {"option": "--nproc-per-nodes", "nearest": "nproc-per-node"}),
    ("use-env", "python -m torch.distributed.launch --nproc_per_node=2 t.py",
     "python -m torch.distributed.launch --use-env --nproc_per_node=2 t.py", {}),
    ("unset-env", "torchrun --nproc-per-node=2 t.py",
     "env -u PET_NNODES -u PET_NODE_RANK torchrun --nproc-per-node=2 t.py",
     {"env": {"PET_NNODES": "2", "PET_NODE_RANK": "1"}, "variables": {"PET_NNODES": "2"}}),
    ("unset-env", "python t.py", "env -u RANK -u WORLD_SIZE -u MASTER_ADDR python t.py",
     {"env": {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h"}, "variables": {"RANK": "1"}}),
    ("unset-env", "GLOO_SOCKET_IFNAME=ens9 torchrun t.py", "torchrun t.py",
     {"variable": "GLOO_SOCKET_IFNAME"}),
    ("set-env", "python t.py", "MASTER_ADDR=127.0.0.1 MASTER_PORT=23456 python t.py",
     {"missing": ["MASTER_ADDR", "MASTER_PORT"]}),
    ("set-env", "python t.py", "MASTER_ADDR=127.0.0.1 MASTER_PORT=23456 python t.py",
     {"names": ["MASTER_ADDR", "MASTER_PORT"], "cause": "missing-env"}),
    ("set-env", "MASTER_ADDR=h nohup python t.py",
     "MASTER_ADDR=h nohup env MASTER_PORT=23456 python t.py", {"missing": ["MASTER_PORT"]}),
    ("set-interface", "RANK=1 on h1 python t.py",
     "RANK=1 on h1 env GLOO_SOCKET_IFNAME=eth7 python t.py",
     {"findings": [Finding("interface", "route", "", {"interface": "eth7"})]}),
    ("set-interface", "export NCCL_SOCKET_IFNAME=ens9\ntorchrun t.py",
     "export NCCL_SOCKET_IFNAME=eth7\ntorchrun t.py",
     {"findings": [Finding("interface", "route", "", {"interface": "eth7"})], "backend": "nccl"}),
    ("setsid", "torchrun t.py & P=$!", "setsid torchrun t.py & P=$!", {}),
    ("setsid", "torchrun t.py",
     "setsid nohup torchrun --signals-to-handle=SIGTERM,SIGINT,SIGQUIT t.py",
     {"findings": [Finding("torch", "fine", "", {"version": "2.13.0+cpu"})]}),
    ("own-store-on-restart", "torchrun --max-restarts=3 t.py",
     "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --max-restarts=3 t.py", {}),
    ("export-variable", "export MASTER_PORT= 29511\npython t.py",
     "export MASTER_PORT=29511\npython t.py", {}),
    ("export-variable", "MASTER_PORT = 29511\npython t.py",
     "export MASTER_PORT=29511\npython t.py", {}),
    ("export-variable", "setenv MASTER_PORT 29511\npython t.py",
     "export MASTER_PORT=29511\npython t.py", {}),
    ("export-variable", "$MASTER_PORT=29511\npython t.py",
     "export MASTER_PORT=29511\npython t.py", {}),
    ("export-variable", "MASTER_ADDR=h0\nMASTER_PORT=29511\npython t.py",
     "export MASTER_ADDR=h0\nexport MASTER_PORT=29511\npython t.py", {}),
    ("option-that-counts",
     "torchrun --nnodes=2 --rdzv-backend=c10d --master-addr=h0 --master-port=29511 t.py",
     "torchrun --rdzv-endpoint=h0:29511 --nnodes=2 --rdzv-backend=c10d t.py", {}),
    ("option-that-counts", "torchrun t.py --lr 1 --nproc-per-node=2 --x",
     "torchrun --nproc-per-node=2 t.py --lr 1 --x", {"option": "--nproc-per-node"}),
    ("option-that-counts", "accelerate launch t.py --num_processes 4",
     "accelerate launch --num_processes 4 t.py", {"option": "--num-processes"}),
    ("python-m-torchrun", "torchrun --nproc-per-node=2 t.py",
     "/opt/e/bin/python -m torch.distributed.run --nproc-per-node=2 t.py",
     {"active": "/opt/e"}),
    ("is-host", TWO.format(C10D.format(id="a"), C10D.format(id="a")),
     TWO.format("--rdzv-conf=is_host=1 " + C10D.format(id="a"), C10D.format(id="a")), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "wanted", "how"), CHANGES)
def test_only_the_words_it_must(
    name: str, text: str, wanted: str, how: dict[str, Any], tmp_path: Path
) -> None:
    fix = built(name, text, tmp_path, **how)
    assert fix is not None and fix.launch is not None
    assert fix.launch.text == wanted
    assert fix.safety == "command"


WORKERS = """
import torch.distributed as dist, torch.multiprocessing as mp
def work(rank, size):
    {init}
if __name__ == "__main__":
    mp.spawn(work, args=(2,), nprocs=2)
"""


@pytest.mark.parametrize(
    ("init", "offered"),
    [("dist.init_process_group('gloo', rank=rank, world_size=size)", False), ("pass", True)],
)
def test_a_script_that_starts_its_ranks_is_not_started_once_for_each(
    init: str, offered: bool, tmp_path: Path
) -> None:
    (tmp_path / "t.py").write_text(WORKERS.format(init=init))
    fix = built("use-torchrun", "python t.py", tmp_path, cause="missing-env")
    assert (fix is not None) == offered


NOTHING: list[tuple[str, str, dict[str, Any]]] = [
    ("another-port", "python t.py", {}),
    ("open-port", "torchrun --nnodes=2 --master-addr=h0 --master-port=29500 t.py", {}),
    ("another-port", "torchrun --standalone t.py", {}),
    ("standalone", "torchrun --nnodes=2 --master-addr=h t.py", {}),
    ("standalone", "torchrun --standalone t.py", {}),
    ("standalone", "python t.py", {}),
    ("master-addr", "torchrun --nnodes=2 --node-rank=1 --master-addr=10.9.9.9 t.py", {}),
    ("master-addr", "export MASTER_ADDR=10.9.9.9 WORLD_SIZE=2\nRANK=1 on h1 python t.py", {}),
    ("same-nnodes", "torchrun --nnodes=2 t.py", {}),
    ("distinct-node-ranks", "torchrun --nnodes=2 --node-rank=0 --master-addr=h t.py", {}),
    ("use-torchrun", "torchrun t.py", {}),
    ("every-process", "accelerate launch --num_processes 2 t.py", {}),
    ("use-torchrun", "python -c 'print(1)'", {}),
    ("start-all-ranks", "RANK=0 WORLD_SIZE=2 python t.py", {}),
    ("start-all-ranks", "for r in $X; do RANK=$r WORLD_SIZE=2 python t.py & done", {}),
    ("lower-nproc", "torchrun --nproc-per-node=2 t.py", {"visible": 4}),
    ("unset-env", "torchrun t.py", {"variables": {"PET_NNODES": "2"}}),
    ("set-env", "python t.py", {"missing": ["RANK", "MASTER_PORT"]}),
    ("set-env", "python t.py", {"names": ["MASTER_ADDR"], "cause": "shape-mismatch"}),
    ("drop-flag", "torchrun t.py", {}),
    ("srun", "torchrun t.py", {}),
]


@pytest.mark.parametrize(("name", "text", "how"), NOTHING)
def test_what_would_be_a_guess_is_not_offered(
    name: str, text: str, how: dict[str, Any], tmp_path: Path
) -> None:
    assert built(name, text, tmp_path, **how) is None


def test_no_builder_fails_where_there_is_no_launch(tmp_path: Path) -> None:
    nothing = Situation(Target(env=HOME, cwd=tmp_path), (), "x", ())
    assert all(builder(nothing) is None for builder in BUILDERS.values())


CURES = [
    ("same-nnodes", TWO.format(STATIC.format(n=3, r=0), STATIC.format(n=2, r=1))),
    ("distinct-node-ranks", TWO.format(STATIC.format(n=2, r=0), STATIC.format(n=2, r=0))),
    ("same-rdzv-id", TWO.format(C10D.format(id="a"), C10D.format(id="b"))),
    ("same-rdzv-id", f"torchrun {C10D.format(id='$RANDOM')} t.py"),
    ("another-port", "torchrun --master-port=76610 t.py"),
    ("another-port", "export MASTER_ADDR=h MASTER_PORT=x\nRANK=0 WORLD_SIZE=1 python t.py"),
    ("start-all-ranks", "export WORLD_SIZE=3\nRANK=0 python t.py &\nRANK=1 python t.py &\nwait"),
    ("as-it-was-meant", "torchrun --nproc-per-node 2 \\ \n  --master-port 29511 t.py\n"),
    ("as-it-was-meant", "torchrun --nproc-per-node 2 t.py\n  --lr 0.1 \\\n  --epochs 3\n"),
    ("as-it-was-meant", "torchrun \u2014nproc-per-node 2 \u2014master-port 29511 t.py"),
    ("standalone", "for s in 1 2; do torchrun --master-port=29511 t.py --seed $s & done\nwait\n"),
    ("side-by-side", "export MASTER_ADDR=h WORLD_SIZE=2\nRANK=0 python t.py\nRANK=1 python t.py"),
    ("side-by-side",
     "export MASTER_ADDR=h WORLD_SIZE=2\nfor r in 0 1; do RANK=$r python t.py; done\n"),
    ("side-by-side",
     "export MASTER_ADDR=h WORLD_SIZE=2\nfor r in 0 1; do\n  RANK=$r python t.py 2>&1\ndone\n"),
    ("match-world-size", "export WORLD_SIZE=3\nRANK=0 python t.py &\nRANK=1 python t.py &\nwait"),
    ("endpoint-with-port", "torchrun --nnodes=2 --rdzv-endpoint=h0 t.py"),
    ("export-variable", "export MASTER_PORT= 29511\npython t.py"),
    ("export-variable", "MASTER_ADDR=h0\nMASTER_PORT=29511\npython t.py"),
    ("lower-nproc", "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc-per-node=4 t.py"),
    ("unset-env", "torchrun t.py"),
    ("master-addr", "torchrun --nnodes=2 --node-rank=1 --master-addr=10.0.0.4:29500 t.py"),
    ("master-addr", "torchrun --nnodes=2 --node-rank=1 --master-addr=me@10.0.0.4 t.py"),
]


@pytest.mark.parametrize(("name", "text"), CURES)
def test_the_corrected_launch_reads_clean(name: str, text: str, tmp_path: Path) -> None:
    env = {"PET_NNODES": "2"} if name == "unset-env" else {}

    def wrong(target: Target) -> tuple[Finding, ...]:
        return tuple(f for f in look(target) if OUTCOMES[f.outcome] == "bad")

    before = situation(text, tmp_path, env)
    found = wrong(before.target)
    assert found
    fix = BUILDERS[name](Situation(before.target, (), found[0].outcome, found))
    assert fix is not None and fix.launch is not None
    after = Target(plan=fix.launch.main, launch=fix.launch, env=HOME | env, cwd=tmp_path)
    assert wrong(after) == ()


def test_the_free_port_is_free_and_outside_the_ephemeral_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    fix = built("another-port", "torchrun --nproc-per-node=3 --master-port=29500 t.py", tmp_path)
    assert fix is not None and fix.launch is not None and fix.launch.main is not None
    port = int(fix.launch.main.master_port or 0)
    low, high = ephemeral_range()
    assert not low <= port <= high and bind_error(port) == 0
    assert fix.trial == {"backend": "gloo", "nproc": 3, "addr": "127.0.0.1", "port": port}


def test_interface_to_the_master(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ipaddress.ip_address("10.1.1.9")
    link = Interface("net7", 2, 0x1 | 0x40, 1500, "", (ours,))
    monkeypatch.setattr(launch_surroundings, "interfaces", lambda: (link,))
    monkeypatch.setattr(launch_surroundings, "way_to", lambda address: ours)
    text = "export MASTER_ADDR=10.1.1.1 MASTER_PORT=1234\npython t.py"
    fix = built("set-interface", text, tmp_path)
    assert fix is not None and fix.launch is not None
    assert fix.launch.text.endswith("\nGLOO_SOCKET_IFNAME=net7 python t.py")


def test_files_limit(tmp_path: Path) -> None:
    lowered = built("raise-nofile", "ulimit -n 4\ntorchrun t.py\n", tmp_path)
    assert lowered is not None and lowered.launch is not None
    assert re.fullmatch(r"ulimit -n \d{3,}\ntorchrun t.py\n", lowered.launch.text)
    added = built("raise-nofile", "cd /srv\nX=1 torchrun t.py\n", tmp_path)
    assert added is not None and added.launch is not None
    assert re.fullmatch(r"cd /srv\nulimit -n \d+\nX=1 torchrun t.py\n", added.launch.text)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_corrected_launches_are_good_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    for name, text, _, how in CHANGES:
        fix = built(name, text, tmp_path, **dict(how))
        assert fix is not None and fix.launch is not None
        if shell == "dash" and "(--" in text:
            continue  # arrays are bash's own
        done = subprocess.run(
            [shell, "-n"], input=fix.launch.text, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, (name, fix.launch.text, done.stderr)
