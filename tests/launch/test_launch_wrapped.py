"""What stands around a launcher stays as it is: prefixes, pipes, here-documents, other shells."""

from __future__ import annotations

import difflib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.app.fixes import launch_meeting
from ddp_assist.app.fixes.launch_edits import BUILDERS
from ddp_assist.app.fixes.model import Situation
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib  # type: ignore[no-redef]

CASES = tomllib.loads(Path(__file__).with_name("wrapped.toml").read_text(encoding="utf-8"))["case"]
HELD = Finding("port", "held-by-own-job", "", {"port": 29500})
ONLY_BASH = ("&>", "=(", "|&", "pipefail")


@pytest.mark.parametrize("case", CASES, ids=[c["text"].strip()[:40] for c in CASES])
def test_only_the_port_changes(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_meeting, "free_port", lambda: 23456)
    text = case["text"]
    launch = read_launch(text, {"HOME": str(tmp_path), "PATH": "/usr/bin"}, tmp_path)
    assert launch.main is not None
    assert (launch.main.launcher, launch.main.script) == (case["launcher"], case["script"])
    target = Target(plan=launch.main, launch=launch, env={}, cwd=tmp_path)
    fix = BUILDERS["another-port"](Situation(target, (HELD,), "port-held-by-own-job", (HELD,)))
    assert fix is not None
    assert fix.launch is not None
    changed = [
        line
        for line in difflib.ndiff(text.splitlines(), fix.launch.text.splitlines())
        if line.startswith("+ ")
    ]
    assert changed
    assert all("23456" in line for line in changed)
    for shell in ("bash",) if any(w in text for w in ONLY_BASH) else ("bash", "dash"):
        if shutil.which(shell):
            script = fix.launch.shell(tmp_path / "out", {})
            subprocess.run([shell, "-n"], input=script, text=True, check=True)


MAKEFILE = """NPROC ?= 2
PORT := 29500
.PHONY: all prepare
all: prepare
\t@cd src && torchrun --nproc-per-node=$(NPROC) \\
\t  --master-port=$(PORT) train.py --name $$USER 2>&1 | tee log
prepare:
\tmkdir -p out
"""


@pytest.mark.parametrize("words", [["make"], ["make", "all"], ["make", "-C", ".", "all"]])
def test_a_makefile_is_read(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    plan = read_launch(words, {}, tmp_path).main
    assert plan is not None
    assert (plan.launcher, plan.nproc, plan.master_port) == ("torchrun", 2, "29500")
    assert plan.script_path == tmp_path / "src/train.py"
    assert plan.script_args == ("--name", "$USER")
    assert not plan.editable


def test_a_variable_given_to_make_counts(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    plan = read_launch(["make", "all", "NPROC=4"], {}, tmp_path).main
    assert plan is not None
    assert plan.nproc == 4


@pytest.mark.parametrize(
    "text", ["all: all\n\techo\n", "\tx\n", "a: b\nb: a\n", "A = $(A)\nall:\n\t$(A)\n"]
)
def test_odd_makefiles_name_no_launch(text: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(text)
    assert read_launch(["make"], {}, tmp_path).main is None
