"""Tests that need no right pass without any: once more, as uid 65534."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import answers
import pytest
from asking import AS_NOBODY, NOBODY, ROOT, reachable

FILES = ("network/test_ports.py", "gpu/test_gpus.py")


@pytest.mark.needs("root", "setpriv")
@pytest.mark.parametrize("file", FILES)
def test_without_any_right(file: str, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    tmp_path.chmod(0o755)
    words = ["-q", "-p", "no:cacheprovider", "--basetemp", str(own / "tests"), f"tests/{file}"]
    done = subprocess.run(
        [*AS_NOBODY, sys.executable, "-m", "pytest", *words],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(own),
            "TMPDIR": str(own),
            "PYTHONDONTWRITEBYTECODE": "1",
            answers.HAND_OVER: str(own / "answers.json"),
        },
        preexec_fn=lambda: reachable(tmp_path),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    answers.note(json.loads((own / "answers.json").read_text()), NOBODY)
