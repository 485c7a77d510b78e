"""What travels to a node is whole: it needs nothing of ours that stays here."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from ddp_assist.probes.fleet.agent import MODULES
from ddp_assist.probes.fleet.parcel import parcel

IMPORTS = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(f"ddp_assist.probes.{name}")
"""


def test_all_that_an_agent_asks_can_be_imported_from_the_parcel(tmp_path: Path) -> None:
    _, _, box = parcel().partition(b"\n")
    zipfile.ZipFile(io.BytesIO(box)).extractall(tmp_path)
    done = subprocess.run(
        [sys.executable, "-IS", "-c", IMPORTS, tmp_path, "fleet.agent", "trial.warm", *MODULES],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-600:]
