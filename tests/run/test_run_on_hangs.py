"""`run` in front of jobs that fail, hang, or are only silent: real gloo ranks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app import passthrough
from ddp_assist.probes.network.ports import free_port

BIN = Path(sys.executable).parent
HEAD = """
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
x = torch.ones(1000 * (1 + rank * int(os.environ.get("DIFFER", "0"))))
"""
HANGS = HEAD + """
if rank == 0:
    dist.all_reduce(x)
dist.barrier()
"""
SILENT = HEAD + """
for _ in range(2):
    time.sleep(9)
    dist.all_reduce(x)
print("trained", flush=True)
dist.destroy_process_group()
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""
CRASHES = HEAD + """
dist.all_reduce(x)
batches = list(range(8 - rank))
print(batches[7])
dist.barrier()
"""


def run(folder: Path, source: str, *options: str) -> tuple[int, dict[str, Any] | None, str]:
    script = folder / "train.py"
    script.write_text(source)
    launch = [str(BIN / "torchrun"), "--nproc-per-node=2", f"--master-port={free_port()}"]
    done = subprocess.run(
        [str(BIN / "ddp-assist"), "run", "--no-trial", "--json", *options, "--", *launch,
         str(script)], capture_output=True, text=True, check=False, timeout=300, cwd=folder,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_a_hang_is_named_and_ended(tmp_path: Path) -> None:
    code, said, _ = run(tmp_path, HANGS, "--hang-after", "6")
    assert code == 1
    assert said is not None
    assert said["causes"][0]["id"] == "collective-skipped"
    job = next(f for f in said["findings"] if f["probe"] == "job")
    assert "rank 0 waits in all_reduce" in job["sentence"]
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert left.stdout == b""


def test_what_a_dead_shell_leaves_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell dies of SIGTERM at once, and its ranks go on; one that does not listen is killed."""
    monkeypatch.setattr(passthrough, "PATIENCE", 1.0)
    mark = f"29{os.getpid()}.25"
    ranks = f"sleep {mark} & {shlex.join([sys.executable, '-c', DEAF, mark])} & wait"

    def is_hung(_: int) -> bool:
        return "deaf" in Path(kept.so_far()).read_text()

    with tempfile.NamedTemporaryFile() as file:
        kept = passthrough.Kept(file, file.name)
        ended = passthrough.run(["bash", "-c", ranks], kept, 1, is_hung)
    assert ended.hung
    left = subprocess.run(["pgrep", "-f", mark], capture_output=True, check=False)
    assert left.stdout == b""


def test_a_job_that_only_sleeps_is_left_alone(tmp_path: Path) -> None:
    """Nine seconds without output or work, and a limit of four: its ranks wait for nobody."""
    code, said, err = run(tmp_path, SILENT, "--hang-after", "4")
    assert (code, said) == (0, None)
    assert err.count("trained") == 2
    assert "ddp-assist:" not in err


def test_a_crash_is_told_from_its_cascade(tmp_path: Path) -> None:
    code, said, _ = run(tmp_path, CRASHES)
    assert code == 1
    assert said is not None
    assert said["causes"][0]["id"] == "worker-crashed-first"
    assert "list index out of range" in json.dumps(said)


def test_different_shapes_end_a_job_and_are_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DIFFER", "1")
    code, said, _ = run(tmp_path, HEAD + "dist.all_reduce(x)\n")
    assert code == 1
    assert said is not None
    assert said["causes"][0]["id"] == "shape-mismatch"


@pytest.mark.parametrize("words", [["sh", "-c", "exit 0"]])
def test_a_job_that_goes_well_ends_without_a_word(words: list[str]) -> None:
    done = subprocess.run([str(BIN / "ddp-assist"), "run", "--", *words], capture_output=True,
                          check=False, timeout=60)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
