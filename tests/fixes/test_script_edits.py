"""Each correction: what it changes, that the result reads clean, that the rest stays as it is."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest
import tomllib

from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.app.fixes.script_edits import BUILDERS, CURES
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.script.check import OUTCOMES, look
from ddp_assist.probes.script.read import parse

WRONG = Path(__file__).parents[1] / "script" / "wrong.toml"
CASES = tomllib.loads(WRONG.read_text())["case"]


def target(case: dict[str, Any], folder: Path) -> Target:
    script = folder / case.get("file", "train.py")
    script.write_text(case["code"].lstrip("\n"))
    for name, text in case.get("beside", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    launcher, _, size = case.get("launch", "python").partition(" ")
    plan = LaunchPlan(
        launcher, (launcher,), nproc=int(size) if size else 1, script=script.name, cwd=folder,
        nnodes=(case["nodes"],) * 2 if "nodes" in case else None,
    )  # fmt: skip
    seen = (Finding("torch", "no-nccl", "", {"nccl": False}),) if case.get("no_nccl") else ()
    return Target(plan=plan, env=case.get("env", {}), cwd=folder, seen=seen)


def fixes(target: Target, outcome: str) -> dict[str, Fix]:
    found = tuple(look(target))
    situation = Situation(target, found, outcome, tuple(f for f in found if f.outcome == outcome))
    made = {n: BUILDERS[n](situation) for n, c in CURES.items() if outcome in c.causes}
    return {name: fix for name, fix in made.items() if fix is not None}


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{c['outcome']} {c['name']}") for c in CASES])
def test_a_correction_reads_clean_or_is_a_step(case: dict[str, Any], tmp_path: Path) -> None:
    where = target(case, tmp_path)
    made = fixes(where, case["outcome"])
    for fix in made.values():
        assert fix.files or fix.steps
        assert not (fix.files and fix.steps)
        if not fix.files:
            continue
        texts = {e.path: e.after for e in fix.files}
        for edit in fix.files:
            assert parse(edit.path, edit.after).problem is None
            assert edit.path.read_text() == edit.before  # the user's file is left alone
        for path, text in texts.items():
            path.write_text(text)
        after = [f for f in look(where) if f.outcome == case["outcome"]]
        for edit in fix.files:
            edit.path.write_text(edit.before)
        assert not after


EDITED = [
    ("port-differs-per-rank", "f-string in update, class, keyword", "same-port-for-all"),
    ("port-differs-per-rank", "picked in each worker", "same-port-for-all"),
    ("launcher-port-overridden", "in a setup function", "setdefault-master"),
    ("launcher-port-overridden", "a fixed tcp address", "setdefault-master"),
    ("store-hosted-twice", "is_master True in spawned workers", "one-store-host"),
    ("store-not-hosted", "False everywhere in workers", "one-store-host"),
    ("store-misused", "dict in a function", "store-set-get"),
    ("store-misused", "megabytes as the third argument", "store-set-get"),
    ("store-misused", "stop and disconnect", "store-set-get"),
    ("missing-env", "spawn without an address, in a helper", "master-env-before-init"),
    ("init-method-malformed", "no scheme", "env-init-method"),
    ("local-rank-as-rank", "read by getenv", "rank-from-env"),
    ("local-rank-argument", "demanded under torchrun", "local-rank-from-env"),
    ("process-group-twice", "in a class and in main", "init-once"),
    ("name-missing-in-script", "in a worker", "add-import"),
    ("name-missing-in-script", "an empty if", "fill-empty-body"),
    ("missing-main-guard", "after a few settings", "add-main-guard"),
    ("port-lost-after-pick", "the data are loaded between the pick and the workers",
     "hold-the-port"),
    ("shape-mismatch", "a width chosen by the rank, in a function", "same-shape-for-all"),
    ("spawn-target-invalid", "no tuple", "spawn-target-rank"),
    ("unpicklable-object", "local function", "move-function-to-module"),
    ("lock-not-shared", "acquire in a class", "lock-from-context"),
    ("fork-after-cuda", "a fork context", "spawn-not-fork"),
    ("start-method-already-set", "twice in main", "set-start-method-once"),
    ("daemonic-parent", "children of a daemon", "no-daemon"),
    ("context-dropped", "join=False, and nothing keeps it", "join-the-context"),
    ("world-size-mismatch", "four told, two started", "world-size-of-started"),
    ("collective-skipped", "rank of a spawned worker", "collective-for-all"),
    ("unused-parameters", "a head that is never called", "find-unused-parameters"),
    ("cpu-tensor-on-nccl", "ones without a device", "tensor-to-device"),
    ("gpu-global-rank-index", "set_device with the rank", "gpu-by-local-rank"),
    ("gpu-shared-by-ranks", ".cuda() and nobody chose", "gpu-by-local-rank"),
]


@pytest.mark.parametrize(("outcome", "name", "builder"), EDITED)
def test_the_edit_is_made_and_small(outcome: str, name: str, builder: str, tmp_path: Path) -> None:
    case = next(c for c in CASES if c["outcome"] == outcome and c["name"] == name)
    fix = fixes(target(case, tmp_path), outcome)[builder]
    assert fix.files
    for edit in fix.files:
        before, after = edit.before.splitlines(), edit.after.splitlines()
        same = difflib.SequenceMatcher(None, before, after).get_matching_blocks()
        assert sum(b.size for b in same) >= len(before) * 0.6


def test_comments_line_ends_and_encoding_stay(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    code = (
        "# -*- coding: latin-1 -*-\r\nimport os  # système\r\nimport torch.distributed as dist\r\n"
        "import torch.multiprocessing as mp\r\n\r\n\r\ndef f(rank, n):\r\n"
        "    os.environ['MASTER_ADDR'] = 'localhost'   # é\r\n"
        "    os.environ['MASTER_PORT'] = str(29500 + rank)   # à part\r\n"
        "    dist.init_process_group('gloo', rank=rank, world_size=n)\r\n\r\n\r\n"
        "if __name__ == '__main__':\r\n    mp.spawn(f, (2,), 2)\r\n"
    )
    script.write_bytes(code.encode("latin-1"))
    where = Target(script=script, env={}, cwd=tmp_path)
    fix = fixes(where, "port-differs-per-rank")["same-port-for-all"]
    assert fix.files[0].after == code.replace("str(29500 + rank)", "str(29500)")


def test_what_else_is_wrong_is_said(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch.distributed as dist\nimport torch.multiprocessing as mp\n\n"
        "def f(rank, n):\n    time.sleep(1)\n"
        "    dist.init_process_group('gloo', rank=rank, world_size=n)\n\n"
        "if __name__ == '__main__':\n    mp.spawn(f, (2,), 2)\n"
    )
    fix = fixes(Target(script=script, env={}, cwd=tmp_path), "name-missing-in-script")["add-import"]
    assert "MASTER_PORT" in fix.does_not


def test_a_notebook_gets_steps_only(tmp_path: Path) -> None:
    script = tmp_path / "a.ipynb"
    script.write_text('{"cells": [{"cell_type": "code", "source": ["print(os.getcwd())"]}]}')
    fix = fixes(Target(script=script, env={}, cwd=tmp_path), "name-missing-in-script")["add-import"]
    assert fix.steps
    assert not fix.files


def test_every_cure_names_its_causes() -> None:
    bad = {o for o, w in OUTCOMES.items() if w == "bad"}
    cured = {cause for cure in CURES.values() for cause in cure.causes}
    # Of these the cure is another launch, or to share the work.
    assert bad - cured == {"framework-not-distributed", "module-in-other-python", "rank0-busy"}
