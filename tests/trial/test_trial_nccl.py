"""What is read from NCCL's log, and which experiments follow a failure."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from ddp_assist.probes.trial.guarded import CHILDREN
from ddp_assist.probes.trial.nccl import (
    EXPERIMENTS,
    experiment,
    read_log,
    what_nccl_said,
    worth_experiments,
)
from ddp_assist.probes.trial.spec import TrialResult, TrialSpec

LOG = """\
gpu7:901:901 [0] NCCL INFO Bootstrap : Using eno1:10.7.0.7<0>
gpu7:901:901 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net.so. Using internal one.
gpu7:901:930 [0] NCCL INFO NET/Socket : Using [0]eno1:10.7.0.7<0> [1]docker0:172.17.0.1<0>
NCCL version 2.21.5+cuda12.4
gpu7:901:930 [0] NCCL INFO Using network Socket
gpu7:901:930 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM
gpu7:902:931 [1] NCCL INFO Channel 00 : 1[2000] -> 0[1000] via SHM/direct/direct
gpu7:902:931 [1] NCCL INFO Channel 01/1 : 0[0] -> 8[0] [send] via NET/IB/9/GDRDMA/Shared
gpu7:902 misc/shmutils.cc:72 NCCL WARN Error: failed to extend /dev/shm/nccl-Q to 9637892 bytes
"""


def test_the_log_says_transport_interface_and_version() -> None:
    said = read_log(LOG)
    assert said["transports"] == ["P2P/CUMEM", "SHM/direct/direct", "NET/IB/9/GDRDMA/Shared"]
    assert said["interfaces"] == ["eno1:10.7.0.7<0>"]
    assert said["version"] == ["2.21.5+cuda12.4"]
    assert said["warnings"] == ["Error: failed to extend /dev/shm/nccl-Q to 9637892 bytes"]
    assert read_log("nothing of NCCL") == dict.fromkeys(said, [])
    lines = what_nccl_said(LOG)
    assert any("P2P/CUMEM" in line for line in lines) and any("shm" in line for line in lines)


@pytest.mark.parametrize(("spec", "outcome", "worth"), [
    (TrialSpec(backend="nccl"), "all-reduce", True), (TrialSpec(backend="nccl"), "group", True),
    (TrialSpec(backend="nccl"), "backend", False), (TrialSpec(backend="nccl"), "joined", False),
    (TrialSpec(backend="nccl", nproc=1), "all-reduce", False), (TrialSpec(), "group", False),
])  # fmt: skip
def test_experiments_follow_where_gpus_met_and_failed(
    spec: TrialSpec, outcome: str, worth: bool
) -> None:
    assert worth_experiments(spec, TrialResult(spec.backend, spec.nproc, outcome)) is worth


@pytest.mark.parametrize("cure", [*EXPERIMENTS, None])
def test_experiments_stop_at_the_first_that_works(cure: dict[str, str] | None) -> None:
    asked: list[TrialSpec] = []

    def attempt(spec: TrialSpec) -> TrialResult:
        asked.append(spec)
        works = cure is not None and cure == {n: v for n, v in spec.env.items() if n != "KEPT"}
        return TrialResult("nccl", 2, "joined" if works else "all-reduce")

    spec = TrialSpec(backend="nccl", env={"KEPT": "1"}, deadline=30)
    failed = TrialResult("nccl", 2, "all-reduce", sentence="it hung")
    result = experiment(spec, failed, attempt)
    tried = len(EXPERIMENTS) if cure is None else EXPERIMENTS.index(cure) + 1
    assert len(result.experiments) == len(asked) == tried
    assert all(s.env["KEPT"] == "1" and s.deadline <= 15 for s in asked)
    assert ("it works" in result.sentence) == (cure is not None)
    assert result.outcome == "all-reduce"  # the launch as it is still fails


@pytest.mark.parametrize("child", ["guard.py", "rank.py", "worker.py"])
def test_children_run_on_old_pythons_with_the_standard_library(child: str) -> None:
    """Users' environments are old: Python 3.8 must read them, and nothing but torch is needed."""
    source = (Path(CHILDREN) / child).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
        for name in names:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or (top == "torch" and child != "guard.py")
