"""A stub of the driver's library, compiled once: its answers are steered by STUB_ variables."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def built(folder: Path, *options: str) -> Path:
    """The stub under the name by which the loader looks for the driver's library."""
    source = Path(__file__).with_name("nvmlstub.c")
    name = "libnvidia-ml.so.1"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{name}", *options]
    subprocess.run([*command, "-o", str(folder / name), str(source)], check=True)
    return folder


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("old-nvml"), "-DOLD")
