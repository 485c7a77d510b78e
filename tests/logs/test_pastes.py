"""What browsers, terminals, launchers and word processors do to a pasted line changes no answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.probes.logs.log import look
from ddp_assist.probes.logs.reading import scan_bytes
from ddp_assist.probes.logs.scan import Scanner, bare
from ddp_assist.probes.logs.signatures import read
from ddp_assist.probes.logs.unwrapped import unwrapped
from ddp_assist.probes.model import Target

LONG = (
    "RuntimeError: DDP expects same model across all ranks, but Rank 3 has 77 params, "
    "while rank 0 has inconsistent 0 params."
)
KEY = "KeyError: 'MASTER_ADDR'"


def seen(text: str) -> set[str]:
    return set(scan_bytes("paste", text.encode()).hits)


@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_lines_that_a_terminal_broke_are_put_together(width: int) -> None:
    broken = "\n".join(LONG[at : at + width] for at in range(0, len(LONG), width))
    assert "ddp-peer-has-no-params" in seen(broken)


def test_lines_that_a_mail_broke_at_blanks_are_put_together() -> None:
    broken = "DDP expects same model across all ranks, but Rank 3 has 77 params, while\n"
    assert "ddp-peer-has-no-params" in seen(broken + "rank 0 has inconsistent 0 params.")


def test_what_begins_a_line_of_its_own_is_not_joined() -> None:
    full = "x" * 80
    for fresh in ("[rank1]: y", "Traceback (most recent call last):", "ValueError: z", "E1120 1"):
        assert unwrapped([(1, full), (2, fresh)]) == [(1, full), (2, fresh)]
    assert unwrapped([(1, full), (2, "yyy")]) == [(1, full + "yyy")]
    assert unwrapped([(1, "short"), (2, "lines")]) == [(1, "short"), (2, "lines")]


@pytest.mark.parametrize(
    "dress",
    [
        "KeyError: &#39;MASTER_ADDR&#39;",
        "KeyError: \u2018MASTER_ADDR\u2019",
        "`KeyError: 'MASTER_ADDR'`",
        "> KeyError: 'MASTER_ADDR'",
        "[default3]:KeyError: 'MASTER_ADDR'",
        "(RayTrainWorker pid=7, ip=10.0.0.8) [rank2]: KeyError: 'MASTER_ADDR'",
        "[1,mpirank:0,algo-1]<stderr>:KeyError: 'MASTER_ADDR'",
        "trainer-2  | KeyError: 'MASTER_ADDR'",
        "2026-03-01T08:00:00.123456789Z stderr F KeyError: 'MASTER_ADDR'",
    ],
)
def test_dressed_up_lines_are_known(dress: str) -> None:
    assert "variable-key-error" in seen(dress)


def test_labels_go_and_the_line_stays() -> None:
    assert bare(b"[rank3]: [default0]: x: y") == b"x: y"
    assert bare(b"    indented") == b"    indented"


def test_a_pattern_may_hold_two_numbers_against_each_other() -> None:
    text = """
    [[signature]]
    id = "too-many"
    weight = "bad"
    says = "{came} of {size}"
    pattern = 'size=(?P<size>\\d+), count=(?P<came>\\d+)'
    more = ["came", "size"]
    examples = ["size=2, count=3"]
    """
    scanner = Scanner(read(text))
    assert [hit.groups for hit in scanner.scan_bytes(b"size=2, count=13")] == [
        {"size": "2", "came": "13"}
    ]
    assert not list(scanner.scan_bytes(b"size=2, count=2\nsize=20, count=3"))


def test_two_ranks_that_say_the_same_are_met_across_their_labels() -> None:
    line = "Initializing distributed: GLOBAL_RANK: 1, MEMBER: 2/4"
    assert "rank-announced-twice" in seen(f"0: {line}\n1: {line}\n")
    other = line.replace("RANK: 1, MEMBER: 2", "RANK: 0, MEMBER: 1")
    assert "rank-announced-twice" not in seen(f"0: {line}\n1: {other}\n")


def test_a_bare_error_of_a_rank_counts_only_where_nothing_bad_is_known(tmp_path: Path) -> None:
    log = tmp_path / "paste.log"

    def outcomes(text: str) -> set[str]:
        log.write_text(text)
        return {finding.outcome for finding in look(Target(logs=(str(log),)))}

    bare = "[rank2]: IndexError: list index out of range\n"
    assert "rank-raised" in outcomes(bare)
    assert "rank-raised" not in outcomes(bare + KEY + "\n")
