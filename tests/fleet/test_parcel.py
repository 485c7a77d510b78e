"""What travels to a node is whole: it needs nothing of ours that stays here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ddp_assist.probes.fleet.agent import MODULES
from ddp_assist.probes.fleet.parcel import COMPILED, SOURCES, boot, parcel

IMPORTS = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(f"ddp_assist.probes.{name}")
"""


HALVES = pytest.mark.parametrize("half", [SOURCES, COMPILED])


@HALVES
def test_all_that_an_agent_asks_can_be_imported_from_each_half(tmp_path: Path, half: str) -> None:
    _, _, box = parcel().partition(b"\n")
    zipfile.ZipFile(io.BytesIO(box)).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-IS", "-c", IMPORTS, tmp_path / half, "fleet.agent", "trial.warm",
         *MODULES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-600:]


@HALVES
def test_a_node_unpacks_the_half_that_fits_its_python(tmp_path: Path, half: str) -> None:
    command = boot([sys.executable], "token")
    if half == SOURCES:
        command = command.replace(COMPILED, "00000000")  # compiled by another version of Python
    with subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as node:  # fmt: skip
        assert node.stdin is not None
        assert node.stdout is not None
        node.stdin.write(parcel())
        node.stdin.flush()
        said = [node.stdout.readline(), node.stdout.readline()]
        (folder,) = tmp_path.iterdir()
        unpacked = [path.name for path in folder.iterdir()]
        node.stdin.close()
    assert b'"did": "hello"' in said[1]
    assert unpacked == [half]
    assert not list(tmp_path.iterdir())
