"""A launch that stands in the pasted text is read as the launch it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.probes.launch.quoted import launches


@pytest.mark.parametrize(
    ("text", "launcher"),
    [
        ("$ torchrun --nproc-per-node=4 fit.py", "torchrun"),
        ("(env) ann@node7:~$ python -m torch.distributed.run fit.py", "torch.distributed.run"),
        ("+ accelerate launch --num_processes 2 fit.py", "accelerate"),
        ("CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc-per-node=4 fit.py", "torchrun"),
        ("torchrun \\\n  --nproc-per-node=4 \\\n  fit.py --lr 0.1", "torchrun"),
    ],
)
def test_launch_lines_are_found(text: str, launcher: str) -> None:
    (found,) = launches(["some output", *text.split("\n"), "more output"])
    assert found.plans[0].launcher == launcher


def test_what_only_looks_like_one_is_left() -> None:
    lines = [
        "torchrun: error: unrecognized arguments",
        "python: can't open file 'fit.py': [Errno 2] No such file or directory",
        "Command 'python fit.py' failed",
        "WARNING:torch.distributed.run:",
        "deepspeed.ops.op_builder",
    ]
    assert not list(launches(lines))


def causes(text: str, folder: Path, launch: tuple[str, ...] = ()) -> list[str]:
    log = folder / "pasted.log"
    log.write_text(text)
    asked = Question(logs=(str(log),), launch=launch, env={}, cwd=folder)
    return [cause.cause for cause in diagnose(asked).causes]


def test_a_quoted_launch_decides_what_the_error_leaves_open(tmp_path: Path) -> None:
    text = "RuntimeError: CUDA error: invalid device ordinal"
    quoted = "$ CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc-per-node=4 fit.py\n" + text
    assert causes(quoted, tmp_path)[0] == "gpu-count"
    exported = "export MASTER_ADDR= localhost\npython fit.py\nKeyError: 'MASTER_ADDR'"
    assert causes(exported, tmp_path)[0] == "env-export-syntax"


def test_a_launch_of_another_host_is_judged_by_its_words_alone(tmp_path: Path) -> None:
    text = "E1120 api.py:1] failed (exitcode: -9) local_rank: 0 (pid: 99) of binary: python"
    launch = ("torchrun", "--nproc-per-node=2", "not_here.py")
    assert causes(text, tmp_path, launch) == ["rank-oom-killed"]
    assert causes(text, tmp_path, ("bash", "not_here.sh")) == ["rank-oom-killed"]
