"""NCCL trials: several GPUs through recorded outputs, what is read from NCCL's log, experiments."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.trial.nccl import (
    NO_TIME,
    changes,
    experiment,
    gpus_here,
    read_log,
    what_nccl_said,
    worth_experiments,
)
from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.spec import LONGEST, SpecError, TrialResult, TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
RECORDED = sorted((HERE / "nccl").glob("*.toml"))
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


@pytest.fixture(scope="module")
def recorded_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WarmTorch, Path]]:
    """A torch that has the GPUs of the recording in this file."""
    recording = tmp_path_factory.mktemp("gpus") / "recording.json"
    env = {"PYTHONPATH": str(HERE / "gpus"), "GPUS": str(recording)}
    recording.write_text("{}")
    with WarmTorch(env=env) as warm:
        yield warm, recording


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_gpus(path: Path, recorded_gpus: tuple[WarmTorch, Path]) -> None:
    """Real guard, worker and ranks; only the GPUs and what NCCL does with them are recorded."""
    warm, file = recorded_gpus
    recording = tomllib.loads(path.read_text())
    expect = recording.pop("expect")
    file.write_text(json.dumps(recording))
    wanted = tuple(recording.get("wanted", ()))
    spec = TrialSpec(
        backend="nccl", nproc=recording.get("nproc", 2), gpus=wanted, env=warm.env,
        deadline=recording.get("deadline", 30),
    )  # fmt: skip
    result = warm.run_trial(spec)
    assert (result.outcome, result.kind) == (expect["outcome"], expect.get("kind", ""))
    assert list(result.missing) == expect.get("missing", [])
    assert expect.get("says", "") in result.sentence
    assert len(result.experiments) == expect.get("experiments", 0)
    for note in expect.get("notes", ()):
        assert any(note in said for said in result.notes), result.notes


def test_shared_memory_of_killed_ranks_goes_with_the_trial(tmp_path: Path) -> None:
    left = f"nccl-{secrets.token_hex(6)}"
    recording = tmp_path / "recording.json"
    recording.write_text(json.dumps({"gpus": 1, "leaves": left, "group": {"all": "dies"}}))
    env = {"PYTHONPATH": str(HERE / "gpus"), "GPUS": str(recording)}
    result = run_trial(TrialSpec(backend="nccl", nproc=1, env=env))
    assert (result.outcome, result.kind) == ("group", "ended")
    assert not Path("/dev/shm", left).exists()


@pytest.mark.parametrize(("name", "warnings"), [
    ("h100_one_rank", 0), ("h100_two_ranks_on_one_gpu", 2),
])  # fmt: skip
def test_a_real_h100(name: str, warnings: int) -> None:
    """One GPU, driver 580, NCCL 2.28.9; "NET/IB : Using [RO]; ..." names no interface."""
    said = read_log((HERE / "nccl" / f"{name}.log").read_text())
    assert said["version"] == ["2.28.9+cuda13.0"]
    assert said["interfaces"] == ["eth0:192.0.2.2<0>"] and said["transports"] == []
    assert len(said["warnings"]) == warnings
    assert all("Duplicate GPU detected" in warning for warning in said["warnings"])


def test_the_log_says_transport_interface_and_version() -> None:
    said = read_log(LOG)
    assert said["transports"] == ["P2P/CUMEM", "SHM/direct/direct", "NET/IB/9/GDRDMA/Shared"]
    assert said["interfaces"] == ["eno1:10.7.0.7<0>"]
    assert said["version"] == ["2.21.5+cuda12.4"]
    assert said["warnings"] == ["Error: failed to extend /dev/shm/nccl-Q to 9637892 bytes"]
    assert read_log("nothing of NCCL") == dict.fromkeys(said, [])
    lines = what_nccl_said(LOG)
    assert any("P2P/CUMEM" in line for line in lines) and any("shm" in line for line in lines)


@pytest.mark.parametrize(("spec", "outcome", "kind", "worth"), [
    (TrialSpec(backend="nccl"), "all-reduce", "left", True),
    (TrialSpec(backend="nccl"), "group", "other", True),
    (TrialSpec(backend="nccl"), "group", "gpu-twice", False),
    (TrialSpec(backend="nccl"), "all-reduce", "cancelled", False),
    (TrialSpec(backend="nccl"), "backend", "gpu-full", False),
    (TrialSpec(backend="nccl"), "joined", "", False),
    (TrialSpec(backend="nccl", nproc=1), "all-reduce", "left", False),
    (TrialSpec(), "group", "left", False),
])  # fmt: skip
def test_experiments_follow_where_gpus_met_and_failed(
    spec: TrialSpec, outcome: str, kind: str, worth: bool
) -> None:
    result = TrialResult(spec.backend, spec.nproc, outcome, kind=kind)
    assert worth_experiments(spec, result) is worth


def try_experiments(spec: TrialSpec, cure: Any, seconds: float = 1.0) -> tuple[Any, Any, Any]:
    asked: list[TrialSpec] = []
    said: list[str] = []

    def attempt(spec: TrialSpec) -> TrialResult:
        asked.append(spec)
        works = cure is not None and cure == {n: v for n, v in spec.env.items() if n != "KEPT"}
        return TrialResult("nccl", 2, "joined" if works else "all-reduce")

    failed = TrialResult("nccl", 2, "all-reduce", sentence="it hung", seconds=seconds)
    return experiment(spec, failed, attempt, said.append), asked, said


@pytest.mark.parametrize("cure", [*changes({}), None])
def test_experiments_stop_at_the_first_that_works(cure: dict[str, str] | None) -> None:
    spec = TrialSpec(backend="nccl", env={"KEPT": "1"}, deadline=30)
    result, asked, said = try_experiments(spec, cure)
    tried = len(changes({})) if cure is None else changes({}).index(cure) + 1
    assert len(result.experiments) == len(asked) == len(said) == tried
    assert all(s.env["KEPT"] == "1" for s in asked)
    assert ("it works" in result.sentence) == (cure is not None)
    assert result.outcome == "all-reduce"  # the launch as it is still fails


def test_what_the_launch_has_off_is_tried_on() -> None:
    assert changes({"NCCL_P2P_DISABLE": "1"}) == [
        {"NCCL_P2P_DISABLE": "0"}, {"NCCL_SHM_DISABLE": "1"},
        {"NCCL_P2P_DISABLE": "0", "NCCL_SHM_DISABLE": "1"},
    ]  # fmt: skip


def test_a_trial_and_its_experiments_end_within_the_longest_time() -> None:
    """The doubles answer at once, so what each may take at most is what counts."""
    spec = TrialSpec(backend="nccl", deadline=30)
    _, asked, _ = try_experiments(spec, None, seconds=30)
    assert asked[0].deadline <= (LONGEST - 30) / 3
    result, asked, _ = try_experiments(spec, None, seconds=55)
    assert asked == [] and result.notes == (NO_TIME,)


def test_a_trial_called_off_is_not_followed_by_experiments() -> None:
    asked: list[TrialSpec] = []
    cancel = threading.Event()

    def attempt(spec: TrialSpec) -> TrialResult:
        asked.append(spec)
        cancel.set()
        return TrialResult("nccl", 2, "group", kind="cancelled")

    failed = TrialResult("nccl", 2, "all-reduce", kind="left")
    experiment(TrialSpec(backend="nccl"), failed, attempt, lambda text: None)
    assert len(asked) == 1


@pytest.mark.parametrize(("wish", "nodes", "count"), [
    (None, 4, 4), ("0,2", 4, 2), ("", 4, 0), ("-1", 4, 0), ("1,-1,2", 4, 1), ("0,1,2", 2, 2),
    ("GPU-8932f937", 1, 1),
])  # fmt: skip
def test_the_gpus_of_a_launch(
    wish: str | None, nodes: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    devices = tmp_path_factory.mktemp("dev")
    for name in ("nvidiactl", "nvidia-uvm", "null", *(f"nvidia{n}" for n in range(nodes))):
        (devices / name).touch()
    env = {} if wish is None else {"CUDA_VISIBLE_DEVICES": wish}
    assert gpus_here(env, str(devices)) == count


def test_what_a_trial_takes_is_told_before() -> None:
    assert TrialSpec().cost == ""
    assert TrialSpec(backend="nccl", gpus=(3, 1)).cost == (
        "a trial takes up to 1024 MiB of each of the GPUs 1, 3 for at most 30 s"
    )
    assert "of GPU 0 for" in TrialSpec(backend="nccl", gpus=(0, 0)).cost


@pytest.mark.parametrize("gpus", [(0,), (0, 1, 2), (0, -1)])
def test_a_list_of_gpus_fits_the_ranks(gpus: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="each of the 2 ranks"):
        TrialSpec(backend="nccl", gpus=gpus)


@pytest.mark.parametrize(("ranks", "outcome", "missing"), [(1, "joined", ()), (2, "backend", (1,))])
def test_under_torchrun(tmp_path: Path, ranks: int, outcome: str, missing: tuple[int, ...]) -> None:
    """One GPU: a second rank finds none, and it is that which is told."""
    recording = tmp_path / "recording.json"
    recording.write_text(json.dumps({"gpus": 1}))
    env = {"PYTHONPATH": str(HERE / "gpus"), "GPUS": str(recording)}
    options = ("--standalone", f"--nproc-per-node={ranks}")
    result = run_trial(TrialSpec("nccl", ranks, env=env, torchrun=options, deadline=60))
    assert (result.outcome, result.missing) == (outcome, missing), result.sentence
    assert any("/proc" in note for note in result.notes)  # CUDA finds itself in no PID namespace
