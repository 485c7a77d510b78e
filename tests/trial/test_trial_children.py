"""The child scripts run in users' environments, which are old."""

from __future__ import annotations

import ast
import mmap
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddp_assist.probes.trial.children import leftovers
from ddp_assist.probes.trial.guarded import CHILDREN
from ddp_assist.probes.trial.spec import TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

SHM = Path("/dev/shm")
SCRIPTS = sorted(path for path in CHILDREN.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_children_run_on_old_pythons_with_the_standard_library(path: Path) -> None:
    """Python 3.8 must read them, and nothing but torch is needed."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
        for name in names:
            top = name.partition(".")[0]
            allowed = {"torch"} if path.name in ("rank.py", "worker.py") else set()
            assert top in sys.stdlib_module_names | allowed


def segment() -> Path:
    """Shared memory as NCCL makes it."""
    path = SHM / f"nccl-{secrets.token_hex(6)}"
    path.write_bytes(bytes(4096))
    return path


def test_shared_memory_that_nobody_has_is_swept() -> None:
    since = time.time() - 1
    mapped, opened, unused, other = segment(), segment(), segment(), SHM / secrets.token_hex(6)
    other.touch()
    with mapped.open("r+b") as file, opened.open("rb"):
        memory = mmap.mmap(file.fileno(), 0)
        file.close()
        swept = leftovers.sweep(since)
        memory.close()
    kept = [path for path in (mapped, opened, unused, other) if path.exists()]
    for path in kept:
        path.unlink()
    assert str(unused) in swept and kept == [mapped, opened, other]


def test_shared_memory_from_before_the_trial_is_not_ours() -> None:
    before = segment()
    swept = leftovers.sweep(time.time() + 1)
    before.unlink()
    assert swept == []


@pytest.fixture(scope="module")
def old() -> Iterator[WarmTorch]:
    """A torch with the stores of 1.13."""
    with WarmTorch(env={"PYTHONPATH": str(Path(__file__).parent / "old")}) as torch:
        yield torch


def test_an_old_torch_hosts_its_own_store_and_that_is_said(old: WarmTorch) -> None:
    result = old.run_trial(TrialSpec(nproc=3, env=old.env, deadline=60))
    assert result.joined, result.sentence
    assert any("listens on every interface" in note for note in result.notes)


def test_an_old_torch_is_tried_on_loopback_only(old: WarmTorch) -> None:
    """0.0.0.0 stands for an address of this host that is not loopback."""
    result = old.run_trial(TrialSpec(addr="0.0.0.0", env=old.env))
    assert (result.outcome, result.kind) == ("listen", "old-torch")


def test_an_old_torch_names_the_rank_that_is_missing(old: WarmTorch) -> None:
    result = old.run_trial(TrialSpec(nproc=4, ranks=(0, 1, 3), env=old.env, deadline=5))
    assert (result.outcome, result.kind, result.missing) == ("rendezvous", "absent", (2,))
