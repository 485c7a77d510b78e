"""Allocation, step, plan: asked where a real Slurm of two nodes runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import answers
import pytest
from slurm_bed import in_slurm

TYPING = Path(__file__).resolve().parents[1] / "typing"
ASK = """
import json, os, sys
sys.path.insert(0, {typing!r})
from pathlib import Path
from ddp_assist.probes.host.environment import ENV
from ddp_assist.probes.host.place import PLACE, SLURM
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Target
from ddp_assist.probes.runner import run
name, *words = sys.argv[1:]
launch = read_launch(words, os.environ, Path("/")) if words else None
target = Target(launch=launch, plan=launch.main if launch else None)
if os.environ.get("SLURM_PROCID", "0") == "0":
    keys = [f.key for f in run([ENV, PLACE, SLURM], target)]
    facts = [dict(f.data) for f in run([PLACE], target) if f.outcome == "slurm"]
    print("\\n" + json.dumps([name, keys, facts]), flush=True)
"""
STATIC = "torchrun --nnodes=2 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=n1:29500 t.py"
CASES = {
    # name: how Slurm starts it, the launch, in a step?, what is said of the plan
    "torchrun-on-each-node": ("srun -N2 -n2", STATIC, True, {"slurm.fits"}),
    "torchrun-in-each-task": ("srun -N2 -n4", STATIC, True, {"slurm.mismatch"}),
    "too-few-nodes": ("srun -N1 -n1", STATIC, True, {"slurm.mismatch"}),
    "each-node-alone": ("srun -N2 -n2", "torchrun --nproc-per-node=2 t.py", True,
                        {"slurm.mismatch"}),
    "one-rank-for-all": ("srun -N2 -n2", "torchrun --nnodes=2 --node-rank=0 t.py", True,
                         {"slurm.mismatch"}),
    "a-rank-that-is-not-used": ("srun -N2 -n2", STATIC.replace(" t.py", " --node-rank=0 t.py"),
                                True, {"slurm.fits"}),
    "one-node": ("srun -N1 -n1", "torchrun --nproc-per-node=2 t.py", True, {"slurm.fits"}),
    "step-smaller-than-job": ("salloc -N2 -n4 srun -N2 -n2 --ntasks-per-node=1", STATIC, True,
                              {"slurm.fits"}),
    "step-on-one-node-of-two": ("salloc -N2 -n4 srun -N1 -n1", "torchrun --nproc-per-node=2 t.py",
                                True, {"slurm.fits"}),
    "a-rank-a-task": ("srun -N2 -n4", "python t.py", True, {"slurm.fits"}),
    "world-of-another-size": ("env WORLD_SIZE=8 srun -N2 -n4", "python t.py", True,
                              {"slurm.mismatch"}),
    "no-srun": ("salloc -N2 -n4", "python t.py", False, {"slurm.fits", "env.slurm-without-srun"}),
    "no-launch": ("salloc -N1 -n1", "", False, {"slurm.no-plan"}),
    "batch": ("sbatch", "python t.py", False, {"slurm.fits", "env.slurm-without-srun"}),
}  # fmt: skip


@pytest.mark.needs("namespaces", "ip", "munged", "slurmctld", "slurmd", "srun")
def test_what_slurm_gave(tmp_path: Path) -> None:
    asker = tmp_path / "ask.py"
    asker.write_text(ASK.format(typing=str(TYPING)))
    lines = []
    for name, (start, launch, _, _) in CASES.items():
        command = f"{sys.executable} {asker} {name} {launch}"
        if start == "sbatch":
            (tmp_path / "job.sh").write_text(f"#!/bin/bash\n{command}\n")
            out = tmp_path / "batch.out"
            command = f"sbatch --wait -N2 -n4 -o {out} {tmp_path}/job.sh; cat {out}"
        else:
            command = f"{start} {command}"
        lines.append(f"timeout 60 {command}" if start != "sbatch" else command)
    said = in_slurm(tmp_path, "bash", "-c", "\n".join(lines), timeout=240)
    told = {}
    for line in said.splitlines():
        if line.startswith("["):
            name, keys, facts = json.loads(line)
            told[name] = (
                facts[0]["in_step"],
                {k for k in keys if k.startswith(("slurm.", "env.slurm"))},
            )
            answers.note(keys, 0)
    assert told == {name: (in_step, keys) for name, (_, _, in_step, keys) in CASES.items()}
