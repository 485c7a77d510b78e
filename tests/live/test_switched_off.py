"""The proof leans on every part: with one eye, one branch or one cure off, it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from live_box import BIN, OUTSIDE
from live_fault import Variation, faults

from ddp_assist.app import diagnose as asking
from ddp_assist.app import prove, tree
from ddp_assist.app.fixes import catalogue
from ddp_assist.probes.catalogue import probes

OFF = [
    ("probe", "script", "no-address-for-spawn"),
    ("probe", "plan", "last-rank-missing"),
    ("probe", "env", "agent-store-left-exported"),
    ("probe", "limits", "few-open-files"),
    ("probe", "interface", "interface-not-there"),
    ("branch", "script.store-not-hosted", "all-clients-alike"),
    ("branch", "script.collective-skipped", "only-rank-zero-reduces"),
    ("branch", "plan.rank-never-started", "last-rank-missing"),
    ("branch", "script.fork-with-threads", "forked-with-a-held-lock"),
    ("cure", "host-by-rank", "all-clients-alike"),
    ("cure", "master-addr", "address-with-port"),
    ("cure", "raise-nofile", "few-open-files"),
    ("cure", "unset-env", "pet-left-exported"),
    ("cure", "collective-for-all", "only-rank-zero-reduces"),
]


def answer(name: str, folder: Path) -> tuple[str | None, bool]:
    """The first cause before the start, and whether something to run comes with it."""
    fault = faults()[name].varied(Variation(port=23456))
    for file, text in fault.files.items():
        (folder / file).write_text(text)
    (folder / "launch.sh").write_text(fault.launch)
    env = {"PATH": f"{BIN}:{OUTSIDE}", **fault.exported}
    found = asking.diagnose(asking.Question(launch=("bash", "launch.sh"), cwd=folder, env=env))
    built = prove.fixes(found)
    first = found.causes[0].cause if found.causes else None
    return first, any(f.cause == first and (f.launch or f.files) for f in built)


@pytest.mark.parametrize(("what", "part", "fault"), OFF)
def test_the_proof_fails_without(
    what: str, part: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = faults()[fault].right
    cause, cured = answer(fault, tmp_path)
    assert cause in right and cured
    if what == "probe":
        monkeypatch.setattr(asking, "probes", lambda: [p for p in probes() if p.id != part])
    elif what == "branch":
        whole = tree.load()
        steps = {
            name: replace(step, on={key: to for key, to in step.on.items() if key != part})
            for name, step in whole.steps.items()
        }
        assert steps != whole.steps
        monkeypatch.setattr(asking, "load", lambda: replace(whole, steps=steps))
    else:
        known = catalogue.builders()
        assert part in known
        monkeypatch.setattr(
            prove, "builders", lambda: {n: b for n, b in known.items() if n != part}
        )
    cause, cured = answer(fault, tmp_path)
    assert cause not in right or not cured
