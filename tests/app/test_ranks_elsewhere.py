"""A launch whose ranks start on other hosts is not judged by what this host has."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Diagnosis, Question, diagnose
from ddp_assist.app.prove import fixes, prove

JOB = """#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
{line} torchrun --nnodes=2 --nproc-per-node=2 --rdzv-id=7 --rdzv-backend=c10d \\
  --rdzv-endpoint={where}:29511 train.py
"""
TRAIN = "import torch.distributed as dist\n\ndist.init_process_group('gloo')\n"
HERE = {"launcher-other-python", "hostname-resolves-to-loopback", "master-addr-is-loopback",
        "own-hostname-unresolvable", "rdzv-host-not-recognised"}  # fmt: skip


def asked(tmp_path: Path, *words: str) -> Diagnosis:
    """By somebody whose PATH has no torchrun."""
    (tmp_path / "train.py").write_text(TRAIN)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    return diagnose(Question(launch=words, env=env, cwd=tmp_path))


def unknown(diagnosis: Diagnosis, probe: str) -> str:
    return " ".join(
        f.sentence for f in diagnosis.findings if (f.probe, f.outcome) == (probe, "unknown")
    )


@pytest.mark.parametrize("where", ["$(hostname)", "$(scontrol show hostnames | head -n 1)"])
def test_what_is_submitted_runs_where_slurm_says(tmp_path: Path, where: str) -> None:
    (tmp_path / "job.sh").write_text(JOB.format(line="srun", where=where))
    found = asked(tmp_path, "sbatch", "job.sh")
    assert not found.causes
    assert "Slurm chooses the hosts" in unknown(found, "place")


def test_so_does_what_srun_starts_outside_of_a_job(tmp_path: Path) -> None:
    found = asked(tmp_path, "srun", "-N2", "torchrun", "--nnodes=2", "train.py")
    assert "Slurm chooses the hosts" in unknown(found, "place")
    assert not {"name", "own-name", "torch", "python"} & {f.probe for f in found.findings}


def test_modules_of_what_is_submitted_are_not_looked_for_here(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(f"#!/bin/bash\n{sys.executable} train.py\n")
    for words, named in ((("sbatch", "job.sh"), False), (("bash", "job.sh"), True)):
        (tmp_path / "train.py").write_text(f"import tokenizerz\n{TRAIN}")
        found = diagnose(Question(launch=words, env={"PATH": "/bin"}, cwd=tmp_path))
        assert any(f.key == "script.module-missing" for f in found.findings) is named


def test_the_same_file_run_here_is_judged_here(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(JOB.format(line="", where="$(hostname)"))
    found = asked(tmp_path, "bash", "job.sh")
    assert {"name", "torch", "python"} <= {f.probe for f in found.findings}


def test_ssh_to_others_says_nothing_of_this_hosts_python(tmp_path: Path) -> None:
    line = "ssh {host} torchrun --nnodes=2 --node-rank={n} --master-addr=a --master-port=29511 t.py"
    text = " & ".join(line.format(host=host, n=n) for n, host in enumerate("ab"))
    found = asked(tmp_path, "bash", "-c", text)
    assert not HERE & {ranked.cause for ranked in found.ranked}
    assert "are started on a, b" in unknown(found, "place")


def test_a_batch_script_without_srun_starts_one_node(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text(JOB.format(line="", where="$(hostname)"))
    found = asked(tmp_path, "sbatch", "job.sh")
    assert [ranked.cause for ranked in found.causes] == ["slurm-plan-mismatch"]
    fix = prove(found, fixes(found)[0], None)
    assert fix.launch is not None
    assert "srun --nodes=2 --ntasks=2 --ntasks-per-node=1 torchrun" in fix.launch.text
    assert (fix.badge, fix.left) == ("holds", ())


def test_what_is_submitted_is_not_said_to_have_run(tmp_path: Path) -> None:
    (tmp_path / "job.sh").write_text("#!/bin/bash\ntorchrun --master-port=76610 train.py\n")
    found = asked(tmp_path, "sbatch", "job.sh")
    assert [ranked.cause for ranked in found.causes] == ["port-out-of-range"]
    assert all(fix.trial is None for fix in fixes(found))
    assert any(fix.trial for fix in fixes(asked(tmp_path, "bash", "job.sh")))
