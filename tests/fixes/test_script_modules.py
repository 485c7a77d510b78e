"""A module that is missing: found in the working directory, left out, or to be installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from ddp_assist.app.diagnose import Diagnosis, Question, conclude, diagnose
from ddp_assist.app.export import corrected
from ddp_assist.app.fixes.catalogue import builders
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.app.prove import all_of, by_page
from ddp_assist.probes.model import Finding, Target

TORCHRUN = str(Path(sys.executable).with_name("torchrun"))
TRAIN = """import torch
import torch.distributed as dist
{wanted}


def main():
    dist.init_process_group("gloo")
    ones = torch.ones(1)
    dist.all_reduce(ones)
    print("TRAINED", ones.item(){used})
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
"""


def fixes(folder: Path, wanted: str, used: str = "", script: str = "t.py") -> list[Fix]:
    (folder / script).parent.mkdir(exist_ok=True)
    (folder / script).write_text(TRAIN.format(wanted=wanted, used=used))
    launch = (TORCHRUN, "--standalone", "--nproc-per-node=2", script)
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    diagnosis = diagnose(Question(launch=launch, env=env, cwd=folder))
    assert diagnosis.causes[0].cause == "worker-crashed-first"
    assert diagnosis.causes[0].certainty == "certain"
    found = all_of(diagnosis, None)
    if found[0].badge == "holds":
        with corrected(found[0], diagnosis) as words:
            ran = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert ran.stdout.count("TRAINED") == ran.stdout.count(" 2.0") == 2, ran.stderr[-600:]
    return found


def test_an_import_that_nothing_uses_is_left_out(tmp_path: Path) -> None:
    first, second = fixes(tmp_path, "import json, tokenizerz\nfrom more_tokens import x as y")
    assert first.badge == "holds" and "import json\npass\n" in first.files[0].after
    assert "install" in second.title and "pip install ..." in second.steps[0]


def test_one_that_is_used_has_to_be_installed(tmp_path: Path) -> None:
    for wanted, used in (
        ("import tokenizerz", ", tokenizerz.x"),
        ("import tokenizerz.fast as t", ", t"),
        ("from tokenizerz import *", ""),
        ("import tokenizerz\n__all__ = []", ""),
        ("import tokenizerz\nx: 'tokenizerz.T' = 1", ""),
    ):
        (only,) = fixes(tmp_path, wanted, used)
        assert only.badge == "not-tried" and sys.executable in only.steps[0]


def test_a_module_of_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("x = 1\n")
    first, *_ = fixes(tmp_path, "from models.net import x", ", x * 0", "scripts/t.py")
    assert first.badge == "holds" and f"PYTHONPATH={tmp_path}" in (first.launch or first).text  # type: ignore[union-attr]


def test_the_shells_own_python_is_taken_where_it_has_all(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    (site / "torch.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (site / "tokenizerz.py").write_text("x = 0\n")
    (tmp_path / "t.py").write_text(TRAIN.format(wanted="from tokenizerz import x", used=", x"))
    env = {"PATH": f"{tmp_path}/env/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    launch = (TORCHRUN, "--standalone", "--nproc-per-node=2", "t.py")
    diagnosis = diagnose(Question(launch=launch, env=env, cwd=tmp_path))
    assert diagnosis.causes[0].cause == "launcher-other-python"
    first = all_of(diagnosis, None)[0]
    assert first.badge == "holds" and first.launch is not None
    words = ["bash", "-c", first.launch.text]
    ran = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ran.stdout.count("TRAINED") == ran.stdout.count(" 2.0") == 2, ran.stderr[-600:]


def test_it_is_told_whatever_else_is_wrong() -> None:
    said = tuple(
        Finding(*key.split("."), key, {})
        for key in ("script.module-missing", "endpoint.nobody-there", "port.held-by-orphan")
    )
    asked = frozenset(f.probe for f in said)
    causes = conclude(Diagnosis(Question(), Target(), said, asked=asked)).causes
    assert {"worker-crashed-first", "host-unreachable"} <= {c.cause for c in causes}


def test_a_distribution_that_another_node_has_is_named() -> None:
    data = {"module": "yaml", "interpreter": "/x/python", "provider": "PyYAML 6.0.3",
            "where": "t.py:1", "nodes": "node[2-3]"}  # fmt: skip
    said = Finding("fleet", "module-missing", "node[2-3] lack yaml", data)
    situation = Situation(Target(), (said,), "worker-crashed-first", (said,))
    fix = builders()["install-module"](situation)
    assert fix is not None
    assert fix.steps[0] == "Install it on node[2-3]: `/x/python -m pip install PyYAML==6.0.3`."
    assert builders()["install-module"](Situation(Target(), (), "worker-crashed-first")) is None
    assert "traceback" in "".join(by_page("worker-crashed-first", ()).steps)
