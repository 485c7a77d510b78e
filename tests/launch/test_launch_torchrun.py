"""torchrun's own parser is the judge of what we write for torchrun."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ddp_assist.app.fixes import launch_meeting
from ddp_assist.app.fixes.launch_edits import BUILDERS
from ddp_assist.app.fixes.model import Situation
from ddp_assist.probes.launch.launchers import ELASTIC
from ddp_assist.probes.launch.options import TORCHRUN
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

run = pytest.importorskip("torch.distributed.run", reason="needs torch")
try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # type: ignore[no-redef]

CASES = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text(encoding="utf-8"))["case"]
LINES = [c["text"] for c in CASES if c.get("says", {}).get("launcher") in ELASTIC]
NAMES = ["another-port", "standalone", "fresh-rdzv-id", "lower-nproc", "is-host", "setsid",
         "own-store-on-restart", "drop-flag"]  # fmt: skip
HOME = {"HOME": "/nowhere/home", "PATH": "/usr/bin:/bin"}


def parsed(plan: LaunchPlan) -> object:
    """What torchrun makes of the words behind its name."""
    words = list(plan.words)
    names = ("torchrun", "torch.distributed.run", "torch.distributed.launch")
    at = next(i for i, w in enumerate(words) if w.rpartition("/")[2] in names)
    return run.get_args_parser().parse_args(words[at + 1 :])


def known_only(plan: LaunchPlan) -> bool:
    return plan.launcher in ELASTIC and not any("$" in w or "`" in w for w in plan.words)


def test_its_options_are_our_options() -> None:
    for action in run.get_args_parser()._actions:
        for spelling in action.option_strings:
            name = TORCHRUN.known(spelling.lstrip("-").replace("_", "-"))
            assert name is not None, spelling
            assert (name in TORCHRUN.flags) == (action.nargs == 0), spelling


@pytest.mark.parametrize("text", LINES)
def test_it_reads_the_line_as_we_do(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plan in read_launch(text, HOME, tmp_path).plans:
        if not known_only(plan) or plan.launcher == "torch.distributed.launch":
            continue
        theirs = parsed(plan)
        assert theirs.training_script == plan.script or plan.option("no-python")  # type: ignore[attr-defined]
        assert theirs.standalone == plan.standalone  # type: ignore[attr-defined]
        assert str(theirs.nproc_per_node) == str(plan.nproc)  # type: ignore[attr-defined]
        low, _, high = str(theirs.nnodes).partition(":")  # type: ignore[attr-defined]
        assert plan.nnodes == (int(low), int(high or low))
        assert theirs.node_rank == (plan.node_rank or 0)  # type: ignore[attr-defined]
        if plan.master_port is not None:
            assert theirs.master_port == int(plan.master_port)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_it_takes_every_corrected_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_meeting, "free_port", lambda: 23456)
    data = {"visible": 1, "option": "--standalone"}
    findings = (Finding("torch", "fine", "", {"version": "2.13.0"}),)
    corrected = 0
    for text in LINES:
        launch = read_launch(text, HOME, tmp_path)
        target = Target(plan=launch.main, launch=launch, env=HOME, cwd=tmp_path)
        about = (Finding("some", "thing", "", data),)
        fix = BUILDERS[name](Situation(target, findings, "x", about))
        if fix is None or fix.launch is None:
            continue
        for plan in fix.launch.plans:
            if known_only(plan) and plan.launcher != "torch.distributed.launch":
                assert parsed(plan) is not None, shlex.join(plan.words)
                corrected += 1
    assert corrected > 0
