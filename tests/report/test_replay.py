"""The same input gives the same words: whatever the hash seed, the language, or the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOG = """\
[W1120 19:40:17.154279118 socket.cpp:663] [c10d] The client socket has failed to connect
Traceback (most recent call last):
  File "train.py", line 3, in <module>
torch.distributed.DistNetworkError: The server socket has failed to listen on any local network \
address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""


def said(log: Path, **env: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "ddp_assist", "diagnose", "--json", "--log", str(log)],
        capture_output=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests/typing"), **env},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    return timeless(json.loads(done.stdout))


def timeless(value: Any) -> Any:
    """Without what differs from one second to the next."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "when")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def test_neither_hash_seed_nor_language_changes_a_word(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(LOG)
    first = said(log, PYTHONHASHSEED="0", LC_ALL="C.UTF-8", LANG="C.UTF-8")
    second = said(log, PYTHONHASHSEED="1", LC_ALL="C", LANG="C")
    assert json.dumps(first) == json.dumps(second)
    assert first["causes"]
