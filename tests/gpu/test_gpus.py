"""The GPU probe on the real pynvml over a stub library: a test for each thing that can be wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ddp_assist.probes.gpu import gpus
from ddp_assist.probes.gpu.gpus import OUTCOMES, look
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

pytestmark = pytest.mark.needs("gcc")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvmlstub.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Wl,-soname,libnvidia-ml.so.1",
         "-o", str(folder / "libnvidia-ml.so.1"), str(source)],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def seen(library: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """What the probe says in a scenario."""

    def scenario(target: Target | None = None, **settings: object) -> list[Finding]:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
        for name, value in settings.items():
            monkeypatch.setenv(f"STUB_{name}", str(value))
        return list(look(target or Target(env={})))

    return scenario


def outcomes(findings: list[Finding]) -> set[str]:
    for finding in findings:
        assert finding.outcome == "unknown" or finding.outcome in OUTCOMES
    return {f.outcome for f in findings}


Seen = Callable[..., list[Finding]]


def test_eight_healthy_gpus(seen: Seen) -> None:
    (finding,) = seen(COUNT=8)
    assert finding.outcome == "fine"
    assert finding.data["count"] == 8
    assert "Stub H100" in finding.sentence


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({"INIT": 18}, "driver-mismatch"),
        ({"INIT": 9}, "driver-not-loaded"),
        ({"INIT": 4}, "no-permission"),
        ({"COUNT": 4, "HANDLE_3": 15}, "lost"),
        ({"COUNT": 4, "ERROR_2": 15}, "lost"),
        ({"COUNT": 2, "ECC_1": 3}, "ecc"),
        ({"COUNT": 2, "MODE": 3, "PID": 1}, "exclusive"),
        ({"COUNT": 2, "MODE_0": 2}, "exclusive"),
        ({"COUNT": 1, "MIG": 1}, "mig"),
        ({"COUNT": 4, "P2P": 1}, "no-peers"),
        ({"COUNT": 1, "USED_GIB": 60, "PID": os.getpid()}, "busy"),
        ({"COUNT": 0}, "none"),
    ],
)
def test_what_is_wrong_is_named(seen: Seen, settings: dict[str, int], outcome: str) -> None:
    assert outcome in outcomes(seen(**settings))


def test_a_lost_gpu_does_not_silence_the_others(seen: Seen) -> None:
    findings = seen(COUNT=4, HANDLE_1=15, ECC_3=1)
    assert {"lost", "ecc"} <= outcomes(findings)


def test_a_pid_that_is_not_here_is_outside_and_no_zombie(seen: Seen) -> None:
    (busy,) = [f for f in seen(COUNT=1, USED_GIB=60, PID=4194303) if f.outcome == "busy"]
    assert "outside this container" in busy.sentence


def test_a_call_that_hangs_costs_only_itself(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "DEADLINE", 2.0)
    findings = seen(COUNT=2, HANG_1=1, ECC_0=2)
    assert "ecc" in outcomes(findings)
    (hung,) = [f for f in findings if f.outcome == "unknown"]
    assert hung.data["hung"] is True


def test_a_launch_with_more_ranks_than_gpus(seen: Seen, tmp_path: Path) -> None:
    launch = read_launch(["torchrun", "--nproc-per-node=4", "t.py"], {}, tmp_path)
    target = Target(plan=launch.main, launch=launch, env={}, backend="nccl")
    assert "fewer-than-ranks" in outcomes(seen(target, COUNT=2))
    assert "fewer-than-ranks" not in outcomes(seen(target, COUNT=4))


def test_visible_devices_that_are_not_here(seen: Seen, tmp_path: Path) -> None:
    launch = read_launch(["torchrun", "--nproc-per-node=1", "t.py"], {}, tmp_path)
    target = Target(plan=launch.main, launch=launch, env={"CUDA_VISIBLE_DEVICES": "0,5"})
    assert "wrong-visible" in outcomes(seen(target, COUNT=2))


def test_a_driver_older_than_torch(seen: Seen) -> None:
    torch = Finding("torch", "fine", "torch", {"cuda": "13.0"})
    assert "driver-too-old" in outcomes(seen(Target(env={}, seen=(torch,)), COUNT=1))
    same = Finding("torch", "fine", "torch", {"cuda": "12.4"})
    assert "driver-too-old" not in outcomes(seen(Target(env={}, seen=(same,)), COUNT=1))


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia"), reason="needs gpu to be absent")
def test_no_driver_is_wrong_only_for_who_wants_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert [f.outcome for f in look(Target(env={}))] == ["none"]
    assert [f.outcome for f in look(Target(env={}, backend="nccl"))] == ["missing"]
