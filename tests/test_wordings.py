"""People mostly paste one line: each of these must lead to a cause that fits, or to none."""

from __future__ import annotations

import json
import re
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


ONE_ERROR = re.compile(r"(?:\[rank\d\]: )?[\w.]*(?:Error|Exception): .*")
ERRORS = [c for c in CASES if c["accept"] and ONE_ERROR.fullmatch(c["text"].strip())]
BELOW = """Traceback (most recent call last):
  File "/w/fit.py", line 9, in main
    go()
  File "/opt/v/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 99, in f
    g()
"""


@pytest.mark.parametrize("above", ["", BELOW], ids=["alone", "traced"])
def test_an_error_with_its_rank_or_its_traceback_is_the_same(above: str, tmp_path: Path) -> None:
    lost = []
    for case in ERRORS:
        error = re.sub(r"^\[rank\d\]: ", "", case["text"].strip())
        text = "".join(f"[rank1]: {line}\n" for line in (above + error).splitlines())
        causes = [cause.cause for cause in told(text, tmp_path).causes]
        if not right(case, causes)[0]:
            lost.append((case["id"], causes[:3]))
    assert not lost


BEFORE = """W1127 09:00:00 7 torch/distributed/run.py:792] Setting OMP_NUM_THREADS for each process
[rank0]: UserWarning: barrier(): using the device under current context.
"""
AFTER = """[rank0]: Traceback (most recent call last):
[rank0]:   File "/w/fit.py", line 88, in <module>
[rank0]:     step()
[rank0]:   File "/opt/v/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 9, in f
[rank0]:     work.wait()
[rank0]: RuntimeError: [/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:4011
E1127 09:10:31.000000 70 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: 1) local_rank: 1 (pid: 101) of binary: /opt/v/bin/python
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : 1 (pid: 101)
"""  # noqa: E501


def test_in_a_whole_log_it_is_not_outdone_by_the_table_and_by_who_followed(tmp_path: Path) -> None:
    some = [case for case in CASES if case["accept"]][::3]
    lost = []
    for case in some:
        causes = [c.cause for c in told(BEFORE + case["text"] + "\n" + AFTER, tmp_path).causes]
        if not right(case, causes)[0]:
            lost.append((case["id"], causes[:3]))
    # Of some, as of a bare "unhandled system error", a peer that left is itself an explanation.
    assert len(lost) <= 0.04 * len(some), lost
