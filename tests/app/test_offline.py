"""All that is local works where there is no network at all but loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOG = "RuntimeError: Distributed package doesn't have NCCL built in\n"


@pytest.mark.needs("namespaces", "ip")
@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (["check", "--json"], {0, 1, 5}),
        (["diagnose", "--json", "--log", "x.log"], {1}),
        (["trial", "--json"], {0}),
        (["jobs", "--json"], {0, 1}),
        (["redact", "x.log"], {0}),
        (["explain", "fd-limit"], {0}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_without_a_network(words: list[str], codes: set[int], tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text(LOG)
    inner = 'ip link set lo up && exec "$@"'
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", inner, "sh", sys.executable, "-m", "ddp_assist", *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/typing")},
    )  # fmt: skip
    assert done.returncode in codes, done.stdout[-800:] + done.stderr[-800:]
    assert done.stdout and "Traceback" not in done.stderr
    if "--json" in words:
        json.loads(done.stdout)
