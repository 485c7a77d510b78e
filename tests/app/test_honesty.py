"""Whatever happens to a probe, the verdict is never that all is well."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from ddp_assist.app import diagnose as walk
from ddp_assist.app.cli import OK
from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.app.verbs.diagnose import exit_code
from ddp_assist.probes.catalogue import probes
from ddp_assist.probes.model import Finding, Probe, Target

NEVER = threading.Event()
ASKED = [probe for probe in probes() if not probe.disturbs]
"""What is looked at without a word of the user's."""


def raises(target: Target) -> Iterable[Finding]:
    raise PermissionError(13, "Permission denied")


def hangs(target: Target) -> Iterable[Finding]:
    NEVER.wait()
    return []


def garbage(target: Target) -> Iterable[Finding]:
    return [Finding("?", "no such outcome", "\x1b[2J")]


@pytest.mark.parametrize("fault", [raises, hangs, garbage])
@pytest.mark.parametrize("broken", ASKED, ids=lambda p: p.id)
def test_a_probe_that_fails_is_never_good_news(
    broken: Probe,
    fault: Callable[[Target], Iterable[Finding]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('hello')\n")
    asked = replace(broken, look=fault, deadline=0.2, applies=lambda target: True)
    monkeypatch.setattr(walk, "probes", lambda: (asked,))
    seen = diagnose(Question(launch=("python3", str(script)), env={}, cwd=tmp_path))
    assert [f.outcome for f in seen.findings] == ["unknown"]
    assert exit_code(seen) != OK
