"""accelerate's and DeepSpeed's own parsers are the judges of what we read and write for them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ddp_assist.app.fixes import launch_meeting
from ddp_assist.app.fixes.launch_edits import BUILDERS
from ddp_assist.app.fixes.model import Situation
from ddp_assist.probes.launch.options import ACCELERATE, DEEPSPEED, Table
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # type: ignore[no-redef]

CASES = tomllib.loads(Path(__file__).with_name("corpus.toml").read_text(encoding="utf-8"))["case"]
HOME = {"HOME": "/nowhere/home", "PATH": "/usr/bin:/bin"}
BEGINS = {"accelerate": ("launch", "commands.launch"), "deepspeed": ("deepspeed", "runner")}


@dataclass(frozen=True)
class Judge:
    launcher: str
    table: Table
    parse: Callable[[list[str]], argparse.Namespace]
    parser: argparse.ArgumentParser

    @property
    def lines(self) -> list[str]:
        return [c["text"] for c in CASES if c.get("says", {}).get("launcher") == self.launcher]

    def behind(self, plan: LaunchPlan) -> list[str] | None:
        """The words behind the launcher's name, where all of them are known and understood."""
        if plan.launcher != self.launcher or plan.not_understood:
            return None
        words = list(plan.words)
        at = next((i for i, w in enumerate(words) if w.endswith(BEGINS[self.launcher])), None)
        return None if at is None or any(c in w for w in words for c in "$`") else words[at + 1 :]


def accelerate() -> Judge:
    launch = pytest.importorskip("accelerate.commands.launch", reason="needs accelerate")
    parser = launch.launch_command_parser()
    return Judge("accelerate", ACCELERATE, parser.parse_args, parser)


def deepspeed() -> Judge:
    """Its parser is made and used in one function, so it is caught in between."""
    runner = pytest.importorskip("deepspeed.launcher.runner", reason="no wheel of deepspeed")
    made: list[argparse.ArgumentParser] = []

    parse = argparse.ArgumentParser.parse_args

    def kept(self: argparse.ArgumentParser, args: list[str]) -> argparse.Namespace:
        made.append(self)
        return parse(self, args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", kept)
        runner.parse_args(["train.py"])
    return Judge("deepspeed", DEEPSPEED, runner.parse_args, made[0])


@pytest.fixture(scope="module", params=[accelerate, deepspeed])
def judge(request: pytest.FixtureRequest) -> Judge:
    made = request.param()
    assert isinstance(made, Judge)
    return made


def test_its_options_are_our_options(judge: Judge) -> None:
    for action in judge.parser._actions:
        for spelling in action.option_strings:
            name = judge.table.known(spelling.lstrip("-").replace("_", "-"))
            assert name is not None, spelling
            assert (name in judge.table.flags) == (action.nargs == 0), spelling


def test_it_reads_the_line_as_we_do(judge: Judge, tmp_path: Path) -> None:
    seen = 0
    for text in judge.lines:
        for plan in read_launch(text, HOME, tmp_path).plans:
            words = judge.behind(plan)
            if words is None:
                continue
            theirs, seen = vars(judge.parse(words)), seen + 1
            script = theirs.get("training_script") or theirs.get("user_script")
            rest = theirs.get("training_script_args") or theirs.get("user_args") or []
            port = theirs.get("main_process_port") or theirs.get("master_port")
            assert script == plan.script, text
            assert tuple(rest) == plan.script_args, text
            if plan.master_port is not None:
                assert str(port) == plan.master_port, text
    assert seen > 10


@pytest.mark.parametrize("name", ["another-port", "lower-nproc", "drop-flag"])
def test_it_takes_every_corrected_line(
    judge: Judge, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_meeting, "free_port", lambda: 23456)
    option = {"accelerate": "--main_process_port", "deepspeed": "--master_port"}[judge.launcher]
    about = (Finding("some", "thing", "", {"visible": 1, "option": option}),)
    corrected = 0
    for text in judge.lines:
        read = read_launch(text, HOME, tmp_path)
        target = Target(plan=read.main, launch=read, env=HOME, cwd=tmp_path)
        fix = BUILDERS[name](Situation(target, (), "x", about))
        for plan in fix.launch.plans if fix is not None and fix.launch is not None else ():
            words = judge.behind(plan)
            if words is not None:
                assert judge.parse(words), shlex.join(plan.words)
                corrected += 1
    assert corrected > 0
