"""What NCCL 2.28.9 itself wrote on an H200: one rank that does well, asked by RAS and dumped."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.app.diagnose import diagnose
from ddp_assist.app.question import Question
from ddp_assist.probes.logs.flight_recorder import look as dumps
from ddp_assist.probes.logs.ras import look as ras
from ddp_assist.probes.model import Target

REAL = Path(__file__).with_name("real_gpu")


@pytest.mark.parametrize("name", ["ras.txt", "ras.json"])
def test_a_healthy_answer_of_ras(name: str) -> None:
    found = list(ras(Target(logs=(str(REAL / name),))))
    assert [f.outcome for f in found] == ["healthy"]


def test_a_healthy_dump_of_nccl() -> None:
    (found,) = dumps(Target(logs=(str(REAL / "nccl_trace_rank_0"),)))
    assert found.outcome == "healthy"
    assert found.evidence[0].lines == ("last collective of group 0: 5",)


# Two ranks of NCCL on one H200, each on a host of its own as NCCL sees it (NCCL_HOSTID), with a
# limit of ten seconds and the flight recorder on.
TWO_RANKS = {
    "skip": ("collective-skipped", "rank 1 stopped after collective 3 and never called 4"),
    "order": ("collective-order", "rank 0: all_reduce, rank 1: broadcast"),
    "killed": ("worker-crashed-first", "no dump of rank 1"),
    "oom": ("worker-crashed-first", "rank 1 failed first: torch.OutOfMemoryError"),
}


@pytest.mark.parametrize("name", TWO_RANKS)
def test_what_two_ranks_of_nccl_left(name: str) -> None:
    cause, said = TWO_RANKS[name]
    found = diagnose(Question(logs=(str(REAL / name),), env={}))
    assert [each.cause for each in found.causes][0] == cause
    assert any(said in finding.sentence for finding in found.findings)
