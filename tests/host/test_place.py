"""Container, pod, Slurm; and whether Slurm starts what the launch expects."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from ddp_assist.probes.host import place
from ddp_assist.probes.host.place import PLACE, SLURM
from ddp_assist.probes.model import Finding

Ask = Callable[..., dict[str, Finding]]
PATH = {"PATH": os.environ["PATH"]}
JOB = PATH | {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}


def test_where_this_is(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "container", lambda: None)
    assert set(ask(PLACE, env=PATH)) == {"place.bare"}
    pod = PATH | {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "HOSTNAME": "trainer-0\x1b[2J"}
    found = ask(PLACE, env=pod)
    assert set(found) == {"place.kubernetes"} and found["place.kubernetes"].sentence.isprintable()
    assert ask(PLACE, env=JOB)["place.slurm"].data["in_step"] is True
    batch = JOB | {"SLURM_STEP_ID": str(0xFFFFFFFB)}
    assert ask(PLACE, env=batch)["place.slurm"].data["in_step"] is False
    monkeypatch.setattr(place, "container", lambda: "/.dockerenv")
    assert set(ask(PLACE, env=PATH)) == {"place.container"}


def test_a_pod_and_a_job_are_known_by_their_variables(ask: Ask) -> None:
    assert "place.kubernetes" in ask(PLACE, env=PATH | {"KUBERNETES_SERVICE_HOST": "10.96.0.1"})
    assert "place.slurm" in ask(PLACE, env=JOB)


def test_marks_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(place, "read", lambda path, most=0: b"0::/kubepods/pod1")
    assert place.container() == "control group kubepods"
    monkeypatch.setattr(place, "read", lambda path, most=0: b"PATH=/bin\0container=podman\0")
    assert place.container() == "container=podman"
    monkeypatch.setattr(place, "read", lambda path, most=0: None)
    assert place.container() is None
    monkeypatch.setenv("APPTAINER_CONTAINER", "/image.sif")
    assert place.container() == "APPTAINER_CONTAINER"


@pytest.mark.parametrize(
    ("env", "launch", "outcome"),
    [
        ({}, "torchrun --nnodes=2 --rdzv-backend=c10d --rdzv-endpoint=n0:29500 t.py", "fits"),
        ({}, "torchrun --nnodes=4 --rdzv-backend=c10d --rdzv-endpoint=n0:29500 t.py", "mismatch"),
        ({}, "torchrun --nproc-per-node=4 t.py", "mismatch"),
        (
            {},
            "torchrun --nnodes=2 --node-rank=0 --master-addr=n0 --master-port=29500 t.py",
            "mismatch",
        ),
        ({"SLURM_NTASKS": "8"}, "torchrun --nnodes=2 --rdzv-endpoint=n0:29500 t.py", "mismatch"),
        (
            {"SLURM_NTASKS_PER_NODE": "4"},
            "torchrun --nnodes=2 --rdzv-endpoint=n0:1 t.py",
            "mismatch",
        ),
        ({"SLURM_NNODES": "1", "SLURM_NTASKS": "1"}, "torchrun --nproc-per-node=4 t.py", "fits"),
        ({"WORLD_SIZE": "4"}, "python t.py", "mismatch"),
        ({"WORLD_SIZE": "2"}, "python t.py", "fits"),
        ({"SLURM_NNODES": "many"}, "torchrun t.py", "no-plan"),
    ],
)
def test_slurm_and_the_launch(ask: Ask, env: dict[str, str], launch: str, outcome: str) -> None:
    assert set(ask(SLURM, env=JOB | env, launch=launch.split())) == {f"slurm.{outcome}"}


def test_slurm_is_asked_only_in_a_job(ask: Ask) -> None:
    assert ask(SLURM, env=PATH) == {}
    assert set(ask(SLURM, env=JOB)) == {"slurm.no-plan"}


def test_ranks_of_other_hosts(ask: Ask) -> None:
    launch = ["bash", "-c", "ssh gpu7 torchrun t.py & ssh gpu8 torchrun t.py & wait"]
    found = ask(PLACE, env=PATH, launch=launch)
    assert "gpu7, gpu8" in found["place.unknown"].sentence
    here = ["bash", "-c", f"ssh {os.uname().nodename} torchrun t.py & ssh gpu8 torchrun t.py"]
    assert "place.unknown" not in ask(PLACE, env=PATH, launch=here)
