"""Questions to a child: answers, deadlines, crashes, noise."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ddp_assist.probes.child import ask

HEAD = "import sys, json, os, signal, time\nasked = json.load(sys.stdin)\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "child_script.py"


def test_it_answers(script: Path) -> None:
    script.write_text(
        HEAD + "print(json.dumps(asked + 1)); print(json.dumps([sys.flags.isolated]))"
    )
    answer = ask(script, 41, deadline=20)
    assert (answer.ended, answer.values, answer.value, answer.code) == ("well", (42, [1]), [1], 0)


def test_noise_is_no_answer(script: Path) -> None:
    script.write_text(HEAD + "print('welcome \\xff'); print('{\"a\": 1}'); print('[' * 60000)")
    answer = ask(script, None, deadline=20)
    assert answer.values == ({"a": 1},) and "welcome" in answer.said


def test_what_was_said_before_a_hang_counts(script: Path) -> None:
    script.write_text(HEAD + "print(1, flush=True); time.sleep(600)")
    answer = ask(script, None, deadline=1.5)
    assert (answer.ended, answer.values) == ("deadline", (1,))
    assert "1.5 s" in answer.because


def test_a_hanging_child_and_its_children_are_gone(script: Path) -> None:
    script.write_text(
        HEAD + "pid = os.fork() or time.sleep(600)\nprint(pid, flush=True); time.sleep(600)"
    )
    answer = ask(script, None, deadline=1.5)
    (grandchild,) = answer.values
    deadline = time.monotonic() + 10
    while Path(f"/proc/{grandchild}").exists():
        assert time.monotonic() < deadline, "a grandchild survived"
        time.sleep(0.01)


def test_a_child_that_ignores_signals_is_ended(script: Path) -> None:
    ignore = "for s in range(1, 32):\n    s in (9, 19) or signal.signal(s, signal.SIG_IGN)\n"
    script.write_text(HEAD + ignore + "print(os.getpid(), flush=True); time.sleep(600)")
    answer = ask(script, None, deadline=1.5)
    assert answer.ended == "deadline" and not Path(f"/proc/{answer.value}").exists()


@pytest.mark.parametrize(
    ("code", "because"),
    [
        ("os.abort()", "SIGABRT"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("sys.exit(7)", "exit code 7"),
        ("raise ValueError('so')", "exit code 1"),
    ],
)
def test_a_crash_is_told(script: Path, code: str, because: str) -> None:
    script.write_text(HEAD + "print(5, flush=True)\n" + code)
    answer = ask(script, None, deadline=20)
    assert (answer.ended, answer.values) == ("died", (5,)) and because in answer.because


def test_what_can_not_be_started(script: Path) -> None:
    script.write_text(HEAD)
    for python in ("/nowhere/python", str(script.parent), "a\0b"):
        answer = ask(script, None, deadline=5, python=python)
        assert answer.ended == "not-started" and answer.values == ()
    huge = ask(script, None, deadline=5, env={"A": "x" * 3_000_000})
    assert huge.ended == "not-started" and "could not be started" in huge.because


def test_a_deaf_child_that_never_reads(script: Path) -> None:
    script.write_text("print(3)")
    answer = ask(script, "x" * 1_000_000, deadline=20)
    assert answer.ended == "well" and answer.value == 3


def test_the_environment_counts_only_where_it_must(script: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "strange_module.py").write_text("said = 'hi'")
    script.write_text(HEAD + "import strange_module; print(json.dumps(strange_module.said))")
    env = dict(os.environ, PYTHONPATH=str(tmp_path / "lib"))
    assert ask(script, None, deadline=20, env=env).ended == "died"
    assert ask(script, None, deadline=20, env=env, isolated=False).value == "hi"
