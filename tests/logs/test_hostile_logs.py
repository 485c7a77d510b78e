from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from make_hostile import Sample, samples  # type: ignore[import-not-found]

from ddp_assist.probes.logs import log
from ddp_assist.probes.logs.reading import read, scan_bytes
from ddp_assist.probes.logs.source import NotALog, sources
from ddp_assist.probes.model import Target


def examined(path: Path) -> dict[str, dict[str, object]]:
    return {f.outcome: dict(f.data) for f in log.look(Target(logs=(str(path),)))}


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_each_says_what_is_right(sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / "job.log"
    path.write_bytes(sample.data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = examined(path)
    if sample.refused == "empty":
        assert set(found) == {"empty"}
    elif sample.refused:
        assert sample.refused in str(found["unknown"]["unreadable"])
    elif sample.line is not None:
        assert found["address-in-use"]["line"] == sample.line
    else:
        assert not {"unknown", "address-in-use"} & set(found)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 << 10  # what this one log cost, not what the suite had loaded already


def test_a_bomb_and_a_cut_archive_say_so(tmp_path: Path) -> None:
    by_name = {sample.name: sample.data for sample in samples()}
    for name, word in (("gz-bomb", "stopped after"), ("gz-cut", "truncated")):
        path = tmp_path / name
        path.write_bytes(by_name[name])
        (one,) = read((str(path),))
        assert any(word in note for note in one.notes), one.notes


def test_no_fifo_device_or_loop_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in (str(tmp_path / "fifo"), "/dev/zero", str(tmp_path / "loop"), "/no/such", "a\0b"):
        with pytest.raises(NotALog):
            sources(name)


def test_a_folder_of_ranks(tmp_path: Path) -> None:
    for rank in range(3):
        (tmp_path / "attempt_0" / str(rank)).mkdir(parents=True)
        text = "x EADDRINUSE, address already in use\n" if rank == 2 else ""
        (tmp_path / "attempt_0" / str(rank) / "stderr.log").write_text(text)
    found = examined(tmp_path)
    assert found["address-in-use"]["rank"] == 2
    assert "empty" not in found


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("none_ab12/attempt_0/3/stderr.log", 3),
        ("logs/9912_5.out", 5),
        ("rank_07.log", 7),
        ("node1/rank12.txt", 12),
        ("2.err", 2),
        ("slurm-812.out", None),
        ("worker-0f3a-01000000-2211.err", None),
        ("train.log", None),
    ],
)
def test_the_rank_in_the_name_of_a_file(name: str, rank: int | None, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("KeyError: 'RANK'\n")
    (source,) = sources(str(tmp_path))
    assert source.rank == rank


def test_a_log_that_vanishes_between_two_looks(tmp_path: Path) -> None:
    path = tmp_path / "gone.log"
    path.write_text("hello\n")
    (source,) = sources(str(path))
    path.unlink()
    with pytest.raises(NotALog):
        list(source.blocks())


def test_nothing_known_shows_the_first_suspicious_line_of_each_rank() -> None:
    text = b"[rank0]: zorg error one\n[rank0]: zorg error two\n[rank1]: frob failed\n"
    one = scan_bytes("paste", text)
    assert not one.hits
    finding = log._nothing_known([one])
    assert [each["line"] for each in finding.data["suspicious"]] == [1, 3]
