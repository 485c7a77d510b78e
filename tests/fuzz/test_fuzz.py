"""A fuzzer that follows the code looks for what random and chosen input did not meet."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = int(os.environ.get("DDP_ASSIST_FUZZ_SECONDS", "15"))
SEEDS = {
    "gate": (b"\x1b]52;c;eA==\x07[rank0]: x", "a\u202eb\u200bc \x9b31m".encode(), b"\xff\xfea\0"),
    "redaction": (b"export API_KEY=", b"https://u:@h/?token= Authorization: Bearer ", b"pwd: "),
    "dumps": (b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94.", b'{"version": "2.10", "entries": [1]}'),
    "emission": (b"--nproc-per-node\0002\0t.py\0it's", b"--master-port=1\0$(x)\0`y`\0-a b"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_nothing_new_breaks_a_promise(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        wheel = sys.version_info >= (3, 11) and platform.machine() == "x86_64"
        pytest.skip("needs atheris" if wheel else "no wheel of atheris for this machine")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)
    done = subprocess.run(
        [sys.executable, str(HERE / "targets.py"), name, str(SECONDS), str(corpus)],
        capture_output=True, text=True, errors="replace", cwd=tmp_path, check=False,
        timeout=SECONDS + 120, env=os.environ | {"PYTHONPATH": str(ROOT / "tests/typing")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-2500:]
    assert "Done " in done.stderr and " 0 runs" not in done.stderr
