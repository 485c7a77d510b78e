"""Scripts that are right, and scripts with one mistake each, all in our own words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tomllib

from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.script.check import OUTCOMES, look

HERE = Path(__file__).parent
NO_NCCL = Finding("torch", "no-nccl", "the torch has no NCCL", {"nccl": False})


def cases(name: str) -> list[Any]:
    data = tomllib.loads((HERE / name).read_text())
    return [
        pytest.param(case, id=f"{case.get('outcome', '')} {case['name']}".strip())
        for case in data["case"]
    ]


def target(case: dict[str, Any], folder: Path) -> Target:
    """The script and its neighbours on disk, and the launch that the case names."""
    script = folder / case.get("file", "train.py")
    script.write_text(case["code"].lstrip("\n"))
    for name, text in case.get("beside", {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    launcher, _, size = case.get("launch", "none").partition(" ")
    env = case.get("env", {})
    seen = (NO_NCCL,) if case.get("no_nccl") else ()
    if launcher == "none":
        return Target(script=script, env=env, cwd=folder, seen=seen)
    plan = LaunchPlan(
        launcher,
        (launcher, script.name),
        nproc=int(size) if size else 1,
        nnodes=(case["nodes"],) * 2 if "nodes" in case else None,
        script=script.name,
        cwd=folder,
        script_args=tuple(case.get("args", ())),
    )
    return Target(plan=plan, env=env, cwd=folder, seen=seen)


@pytest.mark.parametrize("case", cases("right.toml"))
def test_right_scripts_are_not_blamed(case: dict[str, Any], tmp_path: Path) -> None:
    wrong = [f.sentence for f in look(target(case, tmp_path)) if OUTCOMES.get(f.outcome) != "ok"]
    assert not wrong


@pytest.mark.parametrize("case", cases("wrong.toml"))
def test_mistakes_are_named_where_they_are(case: dict[str, Any], tmp_path: Path) -> None:
    found = list(look(target(case, tmp_path)))
    hits = [f for f in found if f.outcome == case["outcome"]]
    assert hits, [f.sentence for f in found]
    if "at" in case:
        lines = Path(hits[0].data["file"]).read_text().splitlines()
        assert case["at"] in lines[hits[0].data["line"] - 1]
    others = (
        {f.outcome for f in found if OUTCOMES[f.outcome] == "bad"}
        - {case["outcome"]}
        - set(case.get("also", ()))
    )
    assert not others, [f.sentence for f in found]


def test_accelerates_own_scripts_are_not_blamed() -> None:
    scripts = pytest.importorskip("accelerate.test_utils").__path__[0]
    read = 0
    for path in Path(scripts).glob("scripts/**/*.py"):
        plan = LaunchPlan("accelerate", nproc=2, script=str(path), cwd=path.parent)
        relative = re.search(r"^from \.", path.read_text(encoding="utf-8"), re.M)
        if relative or path.name == "__init__.py":
            continue
        found = look(Target(plan=plan, env={}, cwd=path.parent))
        assert not [f.sentence for f in found if OUTCOMES.get(f.outcome, "bad") == "bad"], path
        read += 1
    assert read > 5
