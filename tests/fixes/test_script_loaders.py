"""Loaders without workers: what workers need goes too, and real torch takes what is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ddp_assist.app.fixes.catalogue import builders
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Target
from ddp_assist.probes.script.sharing import may_share

SCRIPT = """import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
{before}
dist.init_process_group("gloo")
{code}
"""


def target(code: str, folder: Path, before: str = "") -> Target:
    (folder / "t.py").write_text(SCRIPT.format(code=code, before=before))
    read = read_launch("torchrun --nproc-per-node=2 t.py", {}, folder)
    return Target(plan=read.main, launch=read, env={}, cwd=folder)


def built(code: str, folder: Path, before: str = "") -> Fix | None:
    situation = Situation(target(code, folder, before), (), "shm-too-small")
    return builders()["no-loader-workers"](situation)


@pytest.mark.parametrize(
    ("code", "after"),
    [
        ("DataLoader(range(9), num_workers=4)", "DataLoader(range(9), num_workers=0)"),
        ("DataLoader(range(9), 2, False, None, None, 4)",
         "DataLoader(range(9), 2, False, None, None, 0)"),
        ("DataLoader(range(9), num_workers=2, prefetch_factor=4, persistent_workers=True)",
         "DataLoader(range(9), num_workers=0, prefetch_factor=None, persistent_workers=False)"),
        ("DataLoader(range(9), num_workers=2, timeout=30, multiprocessing_context='fork')",
         "DataLoader(range(9), num_workers=0, timeout=0, multiprocessing_context=None)"),
    ],
)  # fmt: skip
def test_no_workers_are_left(code: str, after: str, tmp_path: Path) -> None:
    assert may_share(target(code, tmp_path))
    fix = built(code, tmp_path)
    assert fix is not None
    (edit,) = fix.files
    assert after in edit.after
    (tmp_path / "t.py").write_text(edit.after)
    assert not may_share(Target(plan=fix.launch.main, launch=fix.launch, env={}, cwd=tmp_path))  # type: ignore[union-attr]
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader
    assert list(eval(re.sub("^DataLoader", "loader", after), {"loader": loader, "range": range}))  # noqa: S307


def test_where_there_are_none_nothing_is_offered(tmp_path: Path) -> None:
    assert built("DataLoader(range(9))", tmp_path) is None
    assert built("DataLoader(range(9), num_workers=0)", tmp_path) is None
    assert built("DataLoader(range(9), num_workers=2)", tmp_path, "import transformers") is None


@pytest.mark.parametrize(
    ("code", "before", "shares"),
    [
        ("x = torch.ones(1)", "", False),
        ("DataLoader(range(9))", "", False),
        ("DataLoader(range(9), num_workers=0)", "", False),
        ("DataLoader(range(9), num_workers=n)", "n = 2", True),
        ("q = mp.Queue()", "import torch.multiprocessing as mp", True),
        ("x = torch.ones(1).share_memory_()", "", True),
        ("x = torch.ones(1)", "import lightning", True),
        ("x = torch.ones(1)", "backend = 'nccl'", True),
        ("x = (", "", True),
    ],
)
def test_who_hands_data_over(code: str, before: str, shares: bool, tmp_path: Path) -> None:
    assert may_share(target(code, tmp_path, before)) == shares


def test_what_is_not_read_may_share(tmp_path: Path) -> None:
    assert may_share(Target(env={}, cwd=tmp_path))
