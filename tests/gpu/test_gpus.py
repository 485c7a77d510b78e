"""The GPU probe on the real pynvml over a stub library: a test for each thing that can be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddp_assist.app.tree import load
from ddp_assist.app.walk import rank as rank_causes
from ddp_assist.probes.gpu import gpus, holders
from ddp_assist.probes.gpu.gpus import OUTCOMES, look
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.runner import run

pytestmark = pytest.mark.needs("gcc")


@pytest.fixture
def seen(library: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Finding]]:
    """What the probe says in a scenario."""

    chosen = library

    def scenario(
        target: Target | None = None, library: Path = chosen, **settings: object
    ) -> list[Finding]:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
        for name in [name for name in os.environ if name.startswith("STUB_")]:
            monkeypatch.delenv(name)
        for name, value in settings.items():
            monkeypatch.setenv(f"STUB_{name}", str(value))
        return list(run(gpus.PROBES, target or Target(env={})))

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
        ({"COUNT": 2, "PENDING_1": 1}, "ecc"),
        ({"COUNT": 2, "REMAP_FAILED_1": 1}, "ecc"),
        ({"COUNT": 2, "FABRIC": 1}, "fabric"),
        ({"COUNT": 2, "FABRIC": 2}, "fabric"),
        ({"COUNT": 2, "FABRIC": 3, "FABRIC_STATUS": 999}, "fabric"),
        ({"COUNT": 2, "SLOWED_0": 0x40}, "throttled"),
        ({"COUNT": 2, "HANDLE_0": 4}, "no-permission"),
        ({"COUNT": 2, "MODE": 3, "PIDS": 1}, "exclusive"),
        ({"COUNT": 2, "MODE_0": 2}, "exclusive"),
        ({"COUNT": 1, "MIG": 1}, "mig"),
        ({"COUNT": 4, "P2P": 1}, "no-peers"),
        ({"COUNT": 1, "USED_GIB": 60, "PIDS": os.getpid()}, "busy"),
        ({"COUNT": 0}, "none"),
    ],
)
def test_what_is_wrong_is_named(seen: Seen, settings: dict[str, int], outcome: str) -> None:
    assert outcome in outcomes(seen(**settings))


def test_a_lost_gpu_does_not_silence_the_others(seen: Seen) -> None:
    findings = seen(COUNT=4, HANDLE_1=15, ECC_3=1)
    assert {"lost", "ecc"} <= outcomes(findings)


def test_a_pid_that_is_not_here_is_not_blamed(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "in_own_namespace", lambda: False)
    (busy,) = [f for f in seen(COUNT=1, USED_GIB=60, PIDS=4194303) if f.outcome == "busy"]
    assert "can't be seen from here" in busy.sentence
    assert busy.data["pid"] is None


def test_in_a_container_a_pid_of_the_host_is_not_taken_for_one_of_ours(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders, "in_own_namespace", lambda: True)
    (busy,) = [f for f in seen(COUNT=1, USED_GIB=60, PIDS=os.getpid()) if f.outcome == "busy"]
    assert "outside this container" in busy.sentence
    assert str(os.getpid()) not in busy.sentence
    assert busy.data["pid"] is None


def test_what_an_earlier_run_left_is_told_from_a_stranger(seen: Seen) -> None:
    left = Finding("left-overs", "orphan-ranks", "left", {"pids": [os.getpid()]})
    found = seen(Target(env={}, seen=(left,)), COUNT=1, USED_GIB=60, PIDS=os.getpid())
    (stale,) = [f for f in found if f.outcome == "stale-process"]
    assert stale.data["pid"] == os.getpid()
    assert "busy" not in outcomes(found)


@pytest.fixture
def rank() -> Iterator[Callable[..., int]]:
    """Starts a process that says it is a rank, and gives its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start(number: int, port: int = 29500) -> int:
        env = {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_PORT": str(port)}
        code = "import sys; print(flush=True); sys.stdin.read()"
        child = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        return child.pid

    yield start
    for child in started:
        child.communicate(timeout=30)


def test_two_ranks_of_one_job_on_one_gpu(seen: Seen, rank: Callable[..., int]) -> None:
    both = f"{rank(0)},{rank(1)}"
    (shared,) = [
        f
        for f in seen(Target(env={}, backend="nccl"), COUNT=2, PIDS_1=both)
        if f.outcome == "shared"
    ]
    assert (shared.data["gpu"], shared.data["ranks"]) == (1, ["0", "1"])
    assert "shared" not in outcomes(seen(Target(env={}, backend="gloo"), COUNT=2, PIDS_1=both))


def test_ranks_of_two_jobs_on_one_gpu_are_not_one_job(seen: Seen, rank: Callable[..., int]) -> None:
    both = f"{rank(0)},{rank(1, 29501)}"
    assert "shared" not in outcomes(seen(Target(env={}, backend="nccl"), COUNT=1, PIDS=both))


def test_a_job_that_runs_may_hold_its_exclusive_gpus(seen: Seen) -> None:
    found = seen(Target(env={}, job=os.getpid()), COUNT=1, MODE=3, PIDS=os.getpid())
    assert outcomes(found) == {"fine"}


def test_a_call_that_hangs_costs_only_itself(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "DEADLINE", 3.0)
    findings = seen(COUNT=3, HANG_0=1, ECC_1=2, SLOWED_2=8)
    assert outcomes(findings) == {"hung", "ecc", "throttled"}
    (hung,) = [f for f in findings if f.outcome == "hung"]
    assert (hung.data["gpu"], hung.data["question"]) == (0, "name")


@pytest.mark.parametrize("settings", [{"COUNT": 2, "HANG_INIT": 1}, {"COUNT": 2, "HANG": 1}])
def test_a_driver_that_answers_nothing_is_not_called_absent(
    seen: Seen, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]
) -> None:
    monkeypatch.setattr(gpus, "DEADLINE", 2.0)
    (finding,) = seen(Target(env={}, backend="nccl"), **settings)
    assert finding.outcome == "unknown"
    assert finding.data["hung"] is True


def test_gpus_that_can_not_be_counted_are_not_called_absent(seen: Seen) -> None:
    (finding,) = seen(Target(env={}, backend="nccl"), COUNT=2, COUNTING=999)
    assert finding.outcome == "unknown"


def test_a_container_that_lost_its_gpus(seen: Seen) -> None:
    place = Finding("place", "container", "docker")
    assert outcomes(seen(Target(env={}, seen=(place,)), INIT=999)) == {"no-permission"}
    assert outcomes(seen(Target(env={}), INIT=999)) == {"unknown"}


def test_an_old_library_answers_what_it_knows(seen: Seen, old_library: Path) -> None:
    found = seen(COUNT=2, ECC_1=1, FABRIC=1, library=old_library)
    assert outcomes(found) == {"ecc"}


def test_each_gpu_is_told_of(seen: Seen) -> None:
    (finding,) = seen(COUNT=2, LINKS=4, FABRIC=3)
    first, second = finding.data["gpus"]
    assert (first["index"], first["pci"], first["nvlinks"]) == (0, "00000000:18:00.0", 4)
    assert (second["capability"], second["fabric"]) == ([9, 0], [3, 0])
    assert finding.data["apart"] == [[0, 1, 40]]
    json.dumps(dict(finding.data))


def test_slices_are_no_gpus_for_several_ranks(seen: Seen, tmp_path: Path) -> None:
    launch = read_launch(["torchrun", "--nproc-per-node=2", "t.py"], {}, tmp_path)
    target = Target(plan=launch.main, launch=launch, env={}, backend="nccl")
    assert "mig-spans" in outcomes(seen(target, COUNT=1, MIG=1))
    assert outcomes(seen(target, COUNT=3, MIG_0=1)) == {"mig", "fine"}
    assert "mig-spans" not in outcomes(seen(Target(env={}), COUNT=1, MIG=1))


@pytest.mark.parametrize(
    ("arch", "served"),
    [
        (["sm_80", "sm_90"], True),
        (["sm_90a"], True),
        (["sm_70", "compute_70"], True),
        (["sm_70", "sm_80"], False),
        (["sm_100", "compute_100"], False),
        ([], True),
    ],
)
def test_code_for_this_gpu(seen: Seen, arch: list[str], served: bool) -> None:
    torch = Finding("torch", "fine", "torch", {"arch": arch})
    found = outcomes(seen(Target(env={}, seen=(torch,)), COUNT=1))
    assert ("architecture" not in found) is served


def test_a_launch_with_more_ranks_than_gpus(seen: Seen, tmp_path: Path) -> None:
    launch = read_launch(["torchrun", "--nproc-per-node=4", "t.py"], {}, tmp_path)
    target = Target(plan=launch.main, launch=launch, env={}, backend="nccl")
    assert "fewer-than-ranks" in outcomes(seen(target, COUNT=2))
    assert "fewer-than-ranks" not in outcomes(seen(target, COUNT=4))


UUID = "GPU-0000000{}-1111-2222-3333-444444444444"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0,1", {"fine"}),
        (f"{UUID.format(1)},{UUID.format(0)}", {"fine"}),
        ("GPU-00000001,GPU-00000000", {"fine"}),
        ("0,5", {"wrong-visible", "fewer-than-ranks"}),
        ("5,0,1", {"wrong-visible", "fewer-than-ranks"}),
        (f"{UUID.format(0)},{UUID.format(7)}", {"wrong-visible", "fewer-than-ranks"}),
        ("GPU-0000000", {"wrong-visible", "fewer-than-ranks"}),
        ("0,one", {"wrong-visible", "fewer-than-ranks"}),
        ("1", {"fewer-than-ranks"}),
        ("", {"missing"}),
        ("-1", {"missing"}),
        ("$GPUS", {"fine"}),
        ("\x1b]52;c;AAAA\x07\udcff" + "9" * 5000, {"wrong-visible", "fewer-than-ranks"}),
    ],
)
def test_visible_devices(seen: Seen, tmp_path: Path, value: str, said: set[str]) -> None:
    env = {"CUDA_VISIBLE_DEVICES": value}
    launch = read_launch(["torchrun", "--nproc-per-node=2", "t.py"], env, tmp_path)
    found = seen(Target(plan=launch.main, launch=launch, env=env, backend="nccl"), COUNT=2)
    assert outcomes(found) == said
    assert not [f for f in found if "\x1b" in f.sentence]


def test_a_driver_older_than_torch(seen: Seen) -> None:
    torch = Finding("torch", "fine", "torch", {"cuda": "13.0"})
    assert "driver-too-old" in outcomes(seen(Target(env={}, seen=(torch,)), COUNT=1))
    same = Finding("torch", "fine", "torch", {"cuda": "12.4"})
    assert "driver-too-old" not in outcomes(seen(Target(env={}, seen=(same,)), COUNT=1))


def test_the_tree_is_led_to_a_cause_by_each_bad_answer() -> None:
    tree = load()
    bad = {f"gpu.{name}" for name, weight in OUTCOMES.items() if weight == "bad"}
    found = [Finding("gpu", name.removeprefix("gpu."), "seen") for name in sorted(bad)]
    for finding in found:
        ranked = rank_causes(tree, [finding], [], ["gpu"], dict.fromkeys(bad, "bad"))
        assert ranked, finding.key


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia"), reason="needs gpu to be absent")
def test_no_driver_is_wrong_only_for_who_wants_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert [f.outcome for f in look(Target(env={}))] == ["none"]
    assert [f.outcome for f in look(Target(env={}, backend="nccl"))] == ["missing"]
