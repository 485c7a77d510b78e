"""A script that several probes ask about is followed once, until a file of its project changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddp_assist.probes.model import Target
from ddp_assist.probes.script.facts import read_facts


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "part.py").write_text("WORLD = 2\n")
    path = tmp_path / "train.py"
    path.write_text("import part\nimport late\nprint(part.WORLD)\n")
    return path


def test_a_second_probe_takes_what_the_first_one_read(script: Path, tmp_path: Path) -> None:
    target = Target(script=script, env={}, cwd=tmp_path)
    first, second = read_facts(target, script), read_facts(target, script)
    assert second.traces is first.traces
    second.project.module("json")  # what one of them looks for besides is not seen by the other
    assert "json" not in read_facts(target, script).project.sources


@pytest.mark.parametrize("name", ["train.py", "part.py", "late.py"])
def test_a_file_that_is_written_or_comes_is_read(script: Path, tmp_path: Path, name: str) -> None:
    target = Target(script=script, env={}, cwd=tmp_path)
    first = read_facts(target, script)
    (tmp_path / name).write_text("WORLD = 4\n")
    assert read_facts(target, script).traces is not first.traces


def test_other_variables_are_another_question(script: Path, tmp_path: Path) -> None:
    first = read_facts(Target(script=script, env={}, cwd=tmp_path), script)
    other = read_facts(Target(script=script, env={"RANK": "1"}, cwd=tmp_path), script)
    assert other.traces is not first.traces
    assert other.environment == {"RANK": "1"}
    os.utime(script)
    assert read_facts(first.target, script).environment == {}
