"""People mostly paste one line: each of these must lead to a cause that fits, or to none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scoring import right, told

HERE = Path(__file__).parent
CASES = [json.loads(line) for line in (HERE / "wordings.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_first_cause_fits(case: dict[str, Any], tmp_path: Path) -> None:
    causes = [cause.cause for cause in told(case["text"], tmp_path).causes]
    first, _ = right(case, causes)
    assert first, f"{case['text']!r}: wanted one of {case['accept']}, got {causes[:3]}"
