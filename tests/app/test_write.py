"""--write: the user's own files change only when it is asked for and confirmed."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ddp_assist.app.cli import Wrong
from ddp_assist.app.diagnose import Diagnosis, Question
from ddp_assist.app.files import WriteFailed
from ddp_assist.app.fixes.model import FileEdit, Fix
from ddp_assist.app.overwrite import overwrite
from ddp_assist.app.verbs.write import write_over
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Target

SCRIPT = (
    "# -*- coding: latin-1 -*-\nimport os  # syst\xe8me\nimport torch.distributed as dist\n"
    "import torch.multiprocessing as mp\n\n\ndef f(rank, n):\n"
    "    os.environ['MASTER_ADDR'] = 'localhost'\n"
    "    os.environ['MASTER_PORT'] = str(29500 + rank)  # \xe0 part\n"
    "    dist.init_process_group('gloo', rank=rank, world_size=n)\n\n\n"
    "if __name__ == '__main__':\n    mp.spawn(f, (2,), 2)\n"
)
AFTER = SCRIPT.replace("str(29500 + rank)", "str(29500)")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_bytes(SCRIPT.encode("latin-1"))
    path.chmod(0o750)
    return path


def command(*words: str) -> list[str]:
    launch = ["--", sys.executable, "train.py"]
    return [sys.executable, "-m", "ddp_assist", "diagnose", "--no-trial", *words, *launch]


def headless(script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), cwd=script.parent, stdin=subprocess.DEVNULL, text=True, check=False,
        capture_output=True,
    )  # fmt: skip


def typed(script: Path, answer: str) -> str:
    """What a user sees who types this where he is asked."""
    pid, handle = pty.fork()
    if pid == 0:
        os.chdir(script.parent)
        words = command("--write")
        os.execv(words[0], words)
    seen, asked, end = "", False, time.monotonic() + 120
    while time.monotonic() < end:
        if not select.select([handle], [], [], 1.0)[0]:
            continue
        try:
            block = os.read(handle, 4096)
        except OSError:
            break
        if not block:
            break
        seen += block.decode()
        if "Type yes:" in seen and not asked:
            asked = True
            os.write(handle, f"{answer}\n".encode())
    os.close(handle)
    os.waitpid(pid, 0)
    assert asked, seen
    return seen


def test_a_typed_yes_writes_the_file_as_it_was_encoded(script: Path) -> None:
    seen = typed(script, "yes")
    assert "str(29500)" in seen
    assert script.read_bytes() == AFTER.encode("latin-1")
    assert script.stat().st_mode & 0o777 == 0o750
    assert [p.name for p in script.parent.iterdir()] == ["train.py"]


def test_without_a_terminal_each_file_must_be_named(script: Path) -> None:
    refused = headless(script, "--write")
    assert refused.returncode == 2
    assert f"--yes-write {script}" in refused.stderr
    written = headless(script, "--write", "--yes-write", "train.py")
    assert written.returncode == 1
    assert "written" in written.stderr
    assert script.read_bytes() == AFTER.encode("latin-1")


def test_naming_a_file_without_write_is_refused(script: Path) -> None:
    assert headless(script, "--yes-write", "train.py").returncode == 2
    assert script.read_bytes() == SCRIPT.encode("latin-1")


@pytest.fixture
def cured() -> Callable[[Path], tuple[Diagnosis, list[Fix]]]:
    """A diagnosis of a script that was read, with the correction of it."""

    def make(script: Path) -> tuple[Diagnosis, list[Fix]]:
        fix = Fix("port-differs-per-rank", "", "edit", files=(FileEdit(script, SCRIPT, AFTER),))
        question = Question(cwd=script.parent)
        return Diagnosis(question, Target(script=script, cwd=script.parent)), [fix]

    return make


Cured = Callable[[Path], tuple[Diagnosis, list[Fix]]]


@pytest.mark.parametrize("answer", ["", "y", "no", "yes please"])
def test_only_yes_is_yes(
    script: Path, cured: Cured, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer + "\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(Wrong, match="nothing was written"):
        write_over(*cured(script), [])
    assert script.read_bytes() == SCRIPT.encode("latin-1")


def test_naming_another_file_is_not_enough(script: Path, cured: Cured) -> None:
    with pytest.raises(Wrong, match=r"--yes-write .*train\.py"):
        write_over(*cured(script), [script.with_name("other.py")])
    assert script.read_bytes() == SCRIPT.encode("latin-1")


def test_a_correction_that_failed_here_is_not_written(script: Path, cured: Cured) -> None:
    diagnosis, (fix,) = cured(script)
    with pytest.raises(Wrong, match="failed here"):
        write_over(diagnosis, [replace(fix, badge="failed")], [script])
    assert script.read_bytes() == SCRIPT.encode("latin-1")


def test_a_link_is_never_written_through(script: Path, cured: Cured) -> None:
    real = script.with_name("real.py")
    script.rename(real)
    script.symlink_to(real)
    with pytest.raises(Wrong, match="link"):
        write_over(*cured(script), [script])
    assert real.read_bytes() == SCRIPT.encode("latin-1")
    assert script.is_symlink()


def test_the_launch_script_is_written_too(tmp_path: Path) -> None:
    path = tmp_path / "go.sh"
    path.write_text("#!/bin/sh\n# two ranks\ntorchrun --master-port=99999 train.py\n")
    launch = read_launch(["bash", "go.sh"], {}, tmp_path)
    text = launch.text.replace("99999", "29501")
    fix = Fix("port-out-of-range", "", "command", launch=replace(launch, text=text))
    target = Target(launch=launch, plan=launch.main, cwd=tmp_path)
    write_over(Diagnosis(Question(cwd=tmp_path), target), [fix], [path])
    assert path.read_text() == text


def test_a_file_that_changed_meanwhile_is_left_alone(script: Path) -> None:
    second = script.with_name("second.py")
    second.write_text("a = 1\n")
    script.write_text("print('edited by hand')\n")
    changes = [FileEdit(second, "a = 1\n", "a = 2\n"), FileEdit(script, SCRIPT, AFTER)]
    with pytest.raises(WriteFailed, match="has changed"):
        overwrite(changes)
    assert second.read_text() == "a = 1\n"
    assert script.read_text() == "print('edited by hand')\n"
