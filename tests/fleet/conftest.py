"""The bed is a module of this folder, under a name that no other folder has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

NAMES = ("node1", "node2", "node3", "node4")
SICK = {
    "node1": "STUB_COUNT=8",
    "node2": "STUB_COUNT=8 STUB_ERROR_3=15",
    "node3": "STUB_INIT=18",
    "node4": "",
}
"""What NVML says on each node of the bed: well, GPU 3 lost, driver and library differ, none."""


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Four nodes with a second network, each with a GPU scenario of its own where NVML is found."""
    from fleet_nodes import start  # type: ignore[import-not-found]

    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).parents[1] / "gpu" / "nvmlstub.c"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", library, source],
        check=True,
    )
    env = {name: f"LD_LIBRARY_PATH=/srv/nvml {given}" for name, given in SICK.items() if given}
    nodes = start(NAMES, env=env, second=True)
    (nodes.at / "nvml").mkdir()
    (nodes.at / "stub").write_bytes(library.read_bytes())
    yield nodes
    nodes.close()
