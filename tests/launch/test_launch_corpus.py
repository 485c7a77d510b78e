"""Launch lines of all launchers are read as they are meant, judged rightly, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.launch.check import OUTCOMES, look
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.launch.write import rewritten
from ddp_assist.probes.model import Target

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # type: ignore[no-redef]

CASES = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text(encoding="utf-8"))["case"]
HOME = {"HOME": "/nowhere/home", "PATH": "/usr/bin:/bin"}


def simple(value: Any) -> Any:
    if isinstance(value, (tuple, frozenset, set)):
        return sorted(value) if isinstance(value, (frozenset, set)) else list(value)
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("case", CASES, ids=[f"{i:03d}" for i in range(len(CASES))])
def test_line(case: dict[str, Any], tmp_path: Path) -> None:
    launch = read_launch(case["text"], HOME, tmp_path)
    says = dict(case.get("says", {}))
    if "plans" in says:
        assert len(launch.plans) == says.pop("plans")
    plan = launch.main
    for name, wanted in says.items():
        found = simple(getattr(plan, name))
        if name == "env":
            assert wanted.items() <= dict(found).items()
        elif name == "unset":
            assert set(wanted) <= set(found)
        else:
            assert found == (wanted.format(cwd=tmp_path) if name == "cwd" else wanted), name

    target = Target(plan=plan, launch=launch, env=HOME, cwd=tmp_path)
    bad = {f.outcome for f in look(target) if OUTCOMES[f.outcome] == "bad"}
    assert bad == set(case.get("bad", ()))

    assert rewritten(launch, []).text == launch.text == case["text"]
    for one in launch.plans:
        if one.script_span and one.script and launch.text[slice(*one.script_span)].isidentifier():
            assert launch.text[slice(*one.script_span)] == one.script


def test_the_corpus_is_large_and_has_every_launcher() -> None:
    assert len(CASES) >= 150
    launchers = {case["says"].get("launcher") for case in CASES if "says" in case}
    assert launchers >= {
        "torchrun", "torch.distributed.run", "torch.distributed.launch", "accelerate", "deepspeed",
        "srun", "mpirun", "python", "lightning", "composer", "colossalai",
    }  # fmt: skip


def test_every_bad_outcome_is_in_the_corpus_or_in_a_test_of_its_own() -> None:
    seen = {outcome for case in CASES for outcome in case.get("bad", ())}
    elsewhere = {"env-left-exported", "nccl-not-in-build", "missing-env", "local-rank-argument"}
    assert {o for o, weight in OUTCOMES.items() if weight == "bad"} == seen | elsewhere
