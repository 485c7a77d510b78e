"""Processes started alike get a rank each, in the launch and in the script at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.app.fixes.catalogue import builders
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Target
from ddp_assist.probes.script.check import look

ALIKE = """from torch.distributed import TCPStore
store = TCPStore("localhost", 29511, 2{master})
print(store.get("x"))
"""


def built(launch: str, master: str, folder: Path) -> Fix | None:
    (folder / "s.py").write_text(ALIKE.format(master=master))
    env = {"PATH": "/usr/bin:/bin"}
    read = read_launch(launch, env, folder)
    target = Target(plan=read.main, launch=read, env=env, cwd=folder)
    found = tuple(look(target))
    wrong = tuple(f for f in found if f.outcome.startswith("store-"))
    cause = wrong[0].outcome if wrong else "store-not-hosted"
    return builders()["host-by-rank"](Situation(target, found, cause, wrong))


@pytest.mark.parametrize(
    ("launch", "numbered"),
    [
        ("python s.py & python s.py &\nwait", "RANK=0 python s.py & RANK=1 python s.py &\nwait"),
        ("X=1 python s.py &\nnohup python s.py &\nwait",
         "X=1 RANK=0 python s.py &\nnohup env RANK=1 python s.py &\nwait"),
        ("for i in 0 1; do\n  python s.py &\ndone\nwait",
         "for i in 0 1; do\n  env RANK=$i python s.py &\ndone\nwait"),
        ("for me in {0..2}; do python s.py & done",
         "for me in {0..2}; do env RANK=$me python s.py & done"),
        ("for i in $(seq 0 1); do python s.py & done",
         "for i in $(seq 0 1); do env RANK=$i python s.py & done"),
        ("RANK=0 python s.py & RANK=1 python s.py", "RANK=0 python s.py & RANK=1 python s.py"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("master", ["", ", is_master=False", ", True", ", is_master=True"])
def test_each_gets_a_rank_and_one_hosts(
    launch: str, numbered: str, master: str, tmp_path: Path
) -> None:
    fix = built(launch, master, tmp_path)
    assert fix is not None and fix.launch is not None
    assert fix.launch.text == numbered
    (edit,) = fix.files
    assert 'os.environ["RANK"] == "0")' in edit.after and "import os\n" in edit.after
    (tmp_path / "s.py").write_text(edit.after)
    read = read_launch(fix.launch.text, {}, tmp_path)
    again = look(Target(plan=read.main, launch=read, env={}, cwd=tmp_path))
    assert not [f for f in again if f.outcome.startswith("store-")]


@pytest.mark.parametrize(
    "launch",
    [
        "python s.py",
        "python s.py 0 & python s.py 1",
        "for i in a b; do python s.py & done",
        "torchrun --nproc-per-node=2 s.py",
    ],
)
def test_who_differs_already_is_left_alone(launch: str, tmp_path: Path) -> None:
    assert built(launch, "", tmp_path) is None


def test_another_script_of_the_launch_may_host(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(ALIKE.format(master=""))
    for second, named in (("s.py", True), ("h.py", False)):
        read = read_launch(f"python s.py & python {second}", {}, tmp_path)
        found = look(Target(plan=read.main, launch=read, env={}, cwd=tmp_path))
        assert any(f.outcome == "store-not-hosted" for f in found) == named
