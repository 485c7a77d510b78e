"""A log that grows while it is read: every known line is told once, and none is cut in two."""

from __future__ import annotations

from pathlib import Path

from ddp_assist.probes.logs.following import Followed

IN_USE = b"[W socket.cpp:464] [c10d] The server socket has failed to bind to [::]:23456 "
IN_USE_END = b"(errno: 98 - Address already in use).\n"
ORDINARY = b"the data set has 9 parts\n"


def told(followed: Followed, *, ended: bool = False) -> list[tuple[str, int]]:
    return [(hit.signature.id, hit.line) for hit in followed.look(ended=ended)]


def test_a_line_is_told_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    followed = Followed(str(log))
    assert told(followed) == []
    with log.open("wb", buffering=0) as out:
        out.write(ORDINARY * 3 + IN_USE)
        assert told(followed) == []
        out.write(IN_USE_END)
        assert ("store-port-taken", 4) in told(followed)
        assert told(followed) == []
        out.write(ORDINARY * 9_000)
        assert told(followed) == []
        out.write(b"KeyError: 'MASTER_ADDR'")
        assert told(followed) == []
    assert ("variable-key-error", 9_005) in told(followed, ended=True)


def test_what_reaches_over_lines_is_known_when_its_last_line_comes(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    followed = Followed(str(log))
    announced = b"Initializing distributed: GLOBAL_RANK: 0, MEMBER: 1/4\n"
    with log.open("wb", buffering=0) as out:
        out.write(announced)
        assert told(followed) == []
        out.write(announced)
        assert told(followed) == [("rank-announced-twice", 1)]


def test_a_log_that_is_cut_or_replaced_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_bytes(ORDINARY * 5)
    followed = Followed(str(log))
    assert told(followed) == []
    log.write_bytes(IN_USE + IN_USE_END)
    assert ("store-port-taken", 1) in told(followed)
    log.rename(tmp_path / "job.log.1")
    log.write_bytes(ORDINARY + IN_USE + IN_USE_END)
    assert ("store-port-taken", 2) in told(followed)
