"""What all tests share: private state, and skips that somebody notices."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytest_plugins = ("answers", "asking")


@cache
def can_unshare() -> bool:
    """Whether this machine lets us make namespaces as root."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False)
    return done.returncode == 0


def can(need: str) -> bool:
    if need == "root":
        return os.geteuid() == 0
    if need == "namespaces":
        return can_unshare()
    if need == "gpu":
        return Path("/dev/nvidia0").exists()
    return shutil.which(need, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def pytest_configure(config: pytest.Config) -> None:
    # Who starts us may ignore these (nohup, a job in the background), and children inherit that.
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "needs(*what): root, namespaces, gpu, or a program")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        missing = [need for need in mark.args if not can(need)]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")


# What no machine of this kind has, however it is set up.
EXCUSED = ("needs gpu", "no wheel of")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI a skip of something that this machine can run is a failure."""
    if not os.environ.get("DDP_ASSIST_NO_SKIP"):
        return
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(excuse in reason for excuse in EXCUSED):
            terminalreporter.write_line(f"skipped where it must not be: {report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("DDP_ASSIST_NO_SKIP") or reporter is None:
        return
    reasons = [
        report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        for report in reporter.stats.get("skipped", [])
    ]
    if any(not any(excuse in reason for excuse in EXCUSED) for reason in reasons):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def private_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test touches the user's saved cases or inherits a launch's variables."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    yield
