"""The same faults in many styles, judged by the tree as a user sees it: the right cause first."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.diagnose import Diagnosis, Question, conclude, target_of
from ddp_assist.probes.launch.check import PROBES as PLAN
from ddp_assist.probes.model import Finding
from ddp_assist.probes.runner import run
from ddp_assist.probes.script.check import PROBES as SCRIPT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent / "variants"
WITHOUT_NCCL = Finding("torch", "without-nccl", "the torch has no NCCL", {"nccl": False})
LAUNCH = "python train.py"


def cases(*names: str) -> list[Any]:
    found = []
    for name in names:
        for case in tomllib.loads((HERE / f"{name}.toml").read_text())["case"]:
            found.append(pytest.param(case, id=f"{case.get('cause', '')} {case['name']}".strip()))
    return found


def diagnosis(case: dict[str, Any], folder: Path) -> Diagnosis:
    """What the launch and the script alone tell, without a look at the machine."""
    files = {case.get("file", "train.py"): case["code"].lstrip("\n"), **case.get("beside", {})}
    text = case.get("sh", LAUNCH).strip() + "\n"
    for name, content in {**files, "launch.sh": text}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    shell = "sbatch" if "#SBATCH" in text else "bash"
    env = {"HOME": str(folder), "PATH": "/usr/bin:/bin", **case.get("env", {})}
    question = Question(launch=(shell, "launch.sh"), env=env, cwd=folder)
    seen = (WITHOUT_NCCL,) if case.get("cpu") else ()
    target = replace(target_of(question), seen=seen)
    seen += run([*PLAN, *SCRIPT], target, None, None, 60.0)
    asked = frozenset({"plan", "script"})
    return conclude(Diagnosis(question, replace(target, seen=seen), seen, asked=asked))


@pytest.mark.parametrize("case", cases("meeting", "script", "ranks", "mixed"))
def test_the_cause_comes_first(case: dict[str, Any], tmp_path: Path) -> None:
    causes = [c.cause for c in diagnosis(case, tmp_path).causes]
    assert causes[:1]
    assert causes[0] in {case["cause"], *case.get("accept", ())}


@pytest.mark.parametrize("case", cases("styles"))
def test_the_cause_comes_first_and_where_it_is(case: dict[str, Any], tmp_path: Path) -> None:
    causes = diagnosis(case, tmp_path).causes
    assert causes[:1]
    assert causes[0].cause in {case["cause"], *case.get("accept", ())}
    if "at" not in case:  # a folder, or a notebook
        return
    at = case["at"]
    seen = next(f.data for f in causes[0].speaks_for if f.data.get("line"))
    line = Path(seen["file"]).read_text().splitlines()[seen["line"] - 1]
    assert any(part in line for part in ([at] if isinstance(at, str) else at)), line


@pytest.mark.parametrize("case", cases("right", "styles_right"))
def test_right_scripts_have_no_cause(case: dict[str, Any], tmp_path: Path) -> None:
    found = diagnosis(case, tmp_path)
    named = [(c.cause, c.speaks_for) for c in found.causes if c.certainty != "possible"]
    assert not named
