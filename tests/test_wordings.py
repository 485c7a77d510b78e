"""People mostly paste one line: each of these must lead to a cause that fits, or to none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CASES = [json.loads(line) for line in (HERE / "wordings.jsonl").read_text("utf-8").splitlines()]
_spec = importlib.util.spec_from_file_location("score_cases", HERE / "score_cases.py")
assert _spec and _spec.loader
score = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(score)


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_first_cause_fits(case: dict[str, Any], tmp_path: Path) -> None:
    causes = [cause.cause for cause in score.told(case["text"], tmp_path).causes]
    first, _ = score.right(case, causes)
    assert first, f"{case['text']!r}: wanted one of {case['accept']}, got {causes[:3]}"
