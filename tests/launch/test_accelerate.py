"""Which accelerate takes another port by itself is told by its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.probes.launch.accelerate import steps_aside
from ddp_assist.probes.launch.read import read_launch


@pytest.mark.parametrize(
    ("launch", "source", "aside"),
    [
        ("accelerate launch --num_processes 2 t.py", "in a standalone-like mode by", True),
        ("accelerate launch --num_machines 1 t.py", "in a standalone-like mode by", True),
        ("accelerate launch --num_machines 2 t.py", "in a standalone-like mode by", False),
        ("torchrun t.py", "in a standalone-like mode by", False),
        ("accelerate launch t.py", "another process is utilizing it", False),
        ("accelerate launch t.py", None, False),
    ],
)
def test_who_steps_aside(launch: str, source: str | None, aside: bool, tmp_path: Path) -> None:
    for name in ("accelerate", "torchrun"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.touch(0o755)
    utils = tmp_path / "lib" / "python3.12" / "site-packages" / "accelerate" / "utils"
    utils.mkdir(parents=True)
    if source is not None:
        (utils / "launch.py").write_text(source)
    env = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert steps_aside(read_launch(launch, env, tmp_path).main, env) == aside
