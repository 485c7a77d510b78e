"""`ddp-assist check` on a node whose driver library stands where the system has it.

The node is a mount namespace: the library lies in the loader's own folder, no variable points to
it, and the kernel's log is a file with one message.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import answers
import pytest

pytestmark = pytest.mark.needs("gcc", "namespaces")
HERE = subprocess.run(
    ["gcc", "-print-multiarch"], capture_output=True, text=True, check=False
).stdout.strip()
SYSTEM = Path("/usr/lib") / HERE

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def check(library: Path, tmp_path: Path) -> Check:
    def run(*launch: str, library: Path = library, log: str = "", **settings: object) -> Any:
        message = f"4,1,{time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000},-;{log}\n"
        (tmp_path / "kmsg").write_text(message if log else "")
        (tmp_path / "train.py").write_text(
            "import torch.distributed as dist\ndist.init_process_group('nccl')\n"
        )
        node = (
            f"mount -t overlay -o lowerdir={library}:{SYSTEM} overlay {SYSTEM} && "
            f'mount --bind {tmp_path}/kmsg /dev/kmsg && exec "$0" "$@"'
        )
        before = ["unshare", "-m", "-n", "--propagation", "private", "bash", "-c", node]
        command = [sys.executable, "-m", "ddp_assist", "check", "--json"]
        env = {n: v for n, v in os.environ.items() if n not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
        env |= {f"STUB_{name}": str(value) for name, value in settings.items()}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        words = ["--", *launch] if launch else []
        done = subprocess.run(
            [*before, *command, *words],
            env=env, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode in (0, 1, 5), done.stderr
        said = json.loads(done.stdout)
        answers.note([f"{f['probe']}.{f['outcome']}" for f in said["findings"]], 0)
        return said

    return run


def wrong(said: dict[str, Any]) -> set[str]:
    """What leads to a cause here and is not of the machine under the node."""
    keys = {f"{f['probe']}.{f['outcome']}" for f in said["findings"]}
    heard = {key for key in keys if key.startswith(("gpu.", "kernel-log."))}
    return heard - {"gpu.fine", "kernel-log.fine"}


def causes(said: dict[str, Any]) -> set[str]:
    """Those that are not of the machine under the node."""
    others = {"fd-limit", "disk-full", "shm-too-small", "ports-exhausted", "rank-oom-killed",
              "process-limit", "rank-stopped"}  # fmt: skip
    return {cause["id"] for cause in said["causes"]} - others


@pytest.mark.parametrize(
    ("settings", "findings", "cause"),
    [
        ({"COUNT": 8}, set(), set()),
        ({"COUNT": 0}, {"gpu.none"}, set()),
        ({"COUNT": 8, "HANDLE_3": 15}, {"gpu.lost"}, {"gpu-memory-error"}),
        ({"COUNT": 8, "ECC_2": 4}, {"gpu.ecc"}, {"gpu-memory-error"}),
        ({"COUNT": 2, "MODE": 3, "PIDS": 1}, {"gpu.exclusive"}, {"gpu-exclusive-mode"}),
        ({"INIT": 18}, {"gpu.driver-mismatch"}, {"driver-library-mismatch"}),
        ({"INIT": 4}, {"gpu.no-permission"}, {"gpu-not-in-container"}),
        ({"COUNT": 2, "MIG": 1}, {"gpu.mig"}, set()),
        ({"COUNT": 3, "HANG_1": 1}, {"gpu.hung"}, {"gpu-memory-error"}),
        ({"COUNT": 8, "FABRIC": 1}, {"gpu.fabric"}, {"gpu-fabric-manager"}),
    ],
)
def test_what_is_wrong_there_and_nothing_else(
    check: Check, settings: dict[str, int], findings: set[str], cause: set[str]
) -> None:
    said = check(**settings)
    assert wrong(said) == findings
    assert causes(said) == cause


def test_a_gpu_fault_that_only_the_kernel_told(check: Check) -> None:
    log = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off."
    said = check(COUNT=8, log=log)
    assert wrong(said) == {"kernel-log.xid"}
    assert causes(said) == {"gpu-memory-error"}
    log = "NVRM: Xid (PCI:0000:3b:00): 31, pid=77, name=python, MMU Fault"
    assert causes(check(COUNT=8, log=log)) == set()


def test_memory_held_by_somebody_else(check: Check) -> None:
    said = check(COUNT=2, USED_GIB_1=60, PIDS_1=os.getpid())
    assert wrong(said) == {"gpu.busy"}


def test_a_driver_that_is_not_loaded(check: Check) -> None:
    """In a container the same word of NVML means that it was given no GPU."""
    said = check(INIT=9)
    assert wrong(said) in ({"gpu.driver-not-loaded"}, {"gpu.no-permission"})
    assert len(causes(said)) == 1


def test_an_old_library_without_half_of_the_functions(check: Check, old_library: Path) -> None:
    assert wrong(check(library=old_library, COUNT=2)) == set()
    assert wrong(check(library=old_library, COUNT=2, ECC_1=1)) == {"gpu.ecc"}


def test_more_ranks_than_gpus(check: Check) -> None:
    said = check("torchrun", "--nproc-per-node=4", "train.py", COUNT=2)
    assert wrong(said) == {"gpu.fewer-than-ranks"}
    assert "gpu-count" in causes(said)
