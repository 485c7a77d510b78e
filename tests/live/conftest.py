"""The modules of this folder, and the table at the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))

from live_proof import Row  # noqa: E402
from live_table import as_text  # noqa: E402

ROWS: list[Row] = []


@pytest.fixture
def rows() -> Iterator[list[Row]]:
    yield ROWS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if ROWS:
        terminalreporter.section("every fault, live")
        terminalreporter.write_line(as_text(ROWS))
