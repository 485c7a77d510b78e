"""Corrected scripts are run, with real torch and two ranks, and do what was meant."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib

from ddp_assist.app.diagnose import Question, target_of
from ddp_assist.app.fixes.model import Situation
from ddp_assist.app.fixes.script_edits import BUILDERS, CURES
from ddp_assist.probes.script.check import OUTCOMES, look

CASES = tomllib.loads((Path(__file__).parent / "runs.toml").read_text())["case"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c['cause']} {c['name']}") for c in CASES])
def test_the_corrected_script_runs(case: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    code = re.sub(r"\bPORT\b", str(free_port()), case["code"])
    script.write_text(code.lstrip("\n"))
    launch = case.get("sh", "python train.py")
    env = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
           "TMPDIR": str(tmp_path)}  # fmt: skip
    where = target_of(Question(launch=(launch,), env=env, cwd=tmp_path))
    seen = tuple(look(where))
    bad = [f for f in seen if OUTCOMES[f.outcome] == "bad"]
    assert {f.outcome for f in bad} == {case["cause"]}
    situation = Situation(where, seen, case["cause"], tuple(bad))
    made = [BUILDERS[n](situation) for n, c in CURES.items() if case["cause"] in c.causes]
    edits = [edit for fix in made if fix is not None for edit in fix.files]
    assert [e.path for e in edits] == [script]
    script.write_text(edits[0].after)
    assert not [f.sentence for f in look(where) if OUTCOMES[f.outcome] != "ok"]
    done = subprocess.run(
        ["sh", "-c", launch], cwd=tmp_path, env=env, timeout=120, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    for text in case["says"]:
        assert text in done.stdout, f"{edits[0].diff}\n{done.stdout}"
    assert done.returncode == 0, done.stdout
