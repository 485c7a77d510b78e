"""The command line as its user types it: one sentence for what is wrong, fixed exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Question, target_of
from ddp_assist.app.options import fleet_of

ROOT = Path(__file__).resolve().parents[2]


def typed(*words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ddp_assist", *words],
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/typing"), **env},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        (["--bogus"], 2, "--bogus"),
        (["diagnos"], 2, "did you mean diagnose"),
        (["diagnose", "--nope"], 2, "--nope"),
        (["diagnose", "--"], 2, "empty"),
        (["diagnose", "--timeout", "0", "--", "x"], 2, "'0'"),
        (["diagnose", "--symptom", "nonsense"], 2, "nonsense"),
        (["diagnose", "--log", "/nonexistent"], 3, "/nonexistent"),
        (["diagnose", "--script", "/nonexistent.py"], 3, "/nonexistent.py"),
        (["diagnose", "--python", "/nonexistent"], 3, "/nonexistent"),
        (["diagnose", "--", "bash", "-c", 'torchrun "x'], 2, "never closed"),
        (["diagnose", "--yes-end", "1", "--port", "5"], 2, "nothing was ended"),
        (["diagnose", "--yes-end", "4000000"], 2, "--port"),
        (["trial", "--port", "abc"], 2, "abc"),
        (["trial", "--port", "99999"], 2, "99999"),
        (["trial", "--nproc", "0"], 2, "0 ranks"),
        (["trial", "--python", "/bin/ls"], 3, "interpreter"),
        (["explain", "nonsense"], 2, "nonsense"),
        (["run"], 2, "--"),
        (["run", "--", "/nonexistent"], 3, "/nonexistent"),
        (["resume", "nothing"], 3, "nothing"),
        ([], 2, "ddp-assist diagnose"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_is_one_sentence(words: list[str], code: int, names: str) -> None:
    said = typed(*words)
    assert said.returncode == code, said.stderr
    assert names in said.stderr + said.stdout
    assert "Traceback" not in said.stderr


def test_a_launch_that_is_fine_ends_with_0_and_a_known_fault_with_1(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("print('hello')\n")
    fine = typed("diagnose", "--no-trial", "--", sys.executable, str(tmp_path / "t.py"))
    assert fine.returncode == 0, fine.stdout
    (tmp_path / "b.py").write_text(
        "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
    )
    broken = typed("diagnose", "--no-trial", "--", sys.executable, str(tmp_path / "b.py"))
    assert broken.returncode == 1
    assert "missing-env" in broken.stdout


def test_a_log_on_stdin_that_says_nothing_known_is_inconclusive() -> None:
    said = typed("diagnose", "--log", "-", stdin="epoch 1 loss 0.5\nerror: the moon is full\n")
    assert said.returncode == 5
    assert "the moon is full" in said.stdout


def test_what_is_no_log_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(b"\x7fELF" + bytes(500))
    assert typed("diagnose", "--log", str(tmp_path / "x.log")).returncode == 3


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ddp_assist", "explain", "--list"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/typing")},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""


def test_out_leaves_private_files_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(
        "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
    )
    out = tmp_path / "out"
    launch = [sys.executable, str(tmp_path / "b.py")]
    words = ["diagnose", "--no-trial", "--json", "--out", str(out), "--", *launch]
    said = typed(*words, MY_PASSWORD="correct-horse-99")
    assert said.returncode == 1
    assert {p.name for p in out.iterdir()} == {"case.json", "report.md", "report.html", "launch.sh"}
    for path in out.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert "correct-horse-99" not in path.read_text()
    assert "correct-horse-99" not in said.stdout


def test_a_run_that_goes_well_says_nothing_of_its_own() -> None:
    said = typed("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert (said.returncode, said.stdout, said.stderr) == (0, "out\n", "err\n")


def test_a_run_that_fails_is_diagnosed() -> None:
    script = "echo 'RuntimeError: Address already in use' >&2; exit 1"
    said = typed("run", "--no-trial", "--", "sh", "-c", script)
    assert said.returncode == 1
    assert "port-held" in said.stdout


def test_a_job_that_ends_with_0_although_a_worker_failed_is_looked_at(tmp_path: Path) -> None:
    worker = tmp_path / "w.py"
    worker.write_text("print(math.pi)\n")
    wait = f"{sys.executable} {worker} & wait"
    said = typed("run", "--no-trial", "--", "bash", "-c", wait)
    assert said.returncode == 0, said.stderr
    assert "ended with exit code 0" in said.stderr and "name-missing-in-script" in said.stdout
    worker.write_text("import warnings\nwarnings.warn('Grad strides do not match bucket view')\n")
    assert typed("run", "--no-trial", "--", "bash", "-c", wait).stdout == ""


def test_one_other_host_is_asked_no_more_than_many_without_a_yes(tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    script.write_text("ssh node7.invalid python train.py\n")
    target = target_of(Question(launch=("bash", str(script))))
    assert fleet_of(None, target) == []
    assert fleet_of("", target) == ["node7.invalid"]
