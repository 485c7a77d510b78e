"""What NCCL 2.28.9 itself wrote on an H200: one rank that does well, asked by RAS and dumped."""

from __future__ import annotations

from pathlib import Path

import pytest

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
