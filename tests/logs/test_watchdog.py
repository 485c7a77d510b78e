"""The watchdogs of several ranks held against each other: what is no difference."""

from __future__ import annotations

import pytest

from ddp_assist.probes.logs.ranks import taken_apart
from ddp_assist.probes.logs.watchdog import ranks_apart

HEAD = "[rank{0}]:[E1104 08:10:38.678 ProcessGroupNCCL.cpp:616] [PG ID 3 PG GUID {1}(x) Rank {2}] "
BARE = "[rank{0}]:[E1104 08:10:38.678 ProcessGroupNCCL.cpp:616] [Rank {1}] "


def bare(rank: int, member: int, number: int, kind: str, size: int) -> str:
    """As some versions write it: the group is named on another line, if at all."""
    return BARE.format(rank, member) + waits(rank, 0, number, kind, size).rpartition("] ")[2]


def waits(rank: int, group: int, number: int, kind: str, size: int) -> str:
    sizes = f"NumelIn={size}, NumelOut={size}"
    work = f"WorkNCCL(SeqNum={number}, OpType={kind}, {sizes}, Timeout(ms)=6)"
    said = f"Watchdog caught collective operation timeout: {work} ran for 7 milliseconds"
    return HEAD.format(rank, group, rank) + said


def queue(rank: int, group: int, last: int) -> str:
    said = f"Timeout at NCCL work: {last}, last enqueued NCCL work: {last}, last completed: 7."
    return HEAD.format(rank, group, rank) + said


def found(*lines: str) -> str | None:
    apart = ranks_apart([taken_apart("job.log", n, text) for n, text in enumerate(lines, 1)])
    return apart.outcome if apart else None


@pytest.mark.parametrize(
    ("lines", "outcome"),
    [
        ([waits(r, 0, 8, "ALLREDUCE", 4) for r in range(4)], None),
        ([waits(0, 0, 8, "ALLREDUCE", 4)], None),
        ([waits(0, 0, 8, "ALLREDUCE", 4), waits(1, 3, 9, "BROADCAST", 2)], None),
        ([queue(0, 0, 8), queue(1, 3, 7)], None),
        ([waits(0, 0, 8, "SEND", 4), waits(1, 0, 8, "RECV", 4)], None),
        ([waits(0, 0, 8, "ALLTOALL_BASE", 4), waits(1, 0, 8, "ALLTOALL_BASE", 6)], None),
        ([bare(0, 0, 8, "ALLREDUCE", 4), bare(1, 1, 8, "ALLREDUCE", 5)], "size-differs"),
        # Rank 3 is member 1 of a part of the job, and so its lines are of another group.
        ([bare(0, 0, 8, "ALLREDUCE", 4), bare(3, 1, 9, "BROADCAST", 2)], None),
        ([bare(0, 0, 8, "ALLREDUCE", 4), bare(0, 0, 3, "BROADCAST", 4), bare(1, 1, 8, "REDUCE", 4)],
         None),
        ([bare(0, 0, 8, "GATHER", 4), queue(0, 6, 8), bare(1, 1, 7, "REDUCE", 4), queue(1, 5, 7)],
         None),
        ([bare(0, 0, 8, "GATHER", 4), queue(0, 6, 8), bare(1, 1, 8, "REDUCE", 4), queue(1, 6, 8)],
         "op-differs"),
        # A rank reports what it waited for first, and then what stood behind that.
        ([waits(r, 0, n, "ALLREDUCE", 4) for n in (8, 9) for r in (0, 1)], None),
        ([waits(0, 0, 8, "ALLREDUCE", 4), waits(1, 0, 8, "BROADCAST", 4)], "op-differs"),
        ([waits(0, 0, 8, "ALLREDUCE", 4), waits(1, 0, 8, "ALLREDUCE", 5)], "size-differs"),
        ([waits(0, 0, 8, "ALLREDUCE", 4), waits(1, 0, 7, "ALLREDUCE", 4)],
         "number-differs"),
        ([queue(0, 0, 8), queue(1, 0, 7), queue(2, 0, 8)], "rank-behind"),
        ([queue(0, 0, 8), queue(1, 0, 7), queue(2, 0, 7)], None),
    ],
)  # fmt: skip
def test_only_what_ranks_of_one_group_must_share_is_compared(
    lines: list[str], outcome: str | None
) -> None:
    assert found(*lines) == outcome
