"""How fast a large log of many ranks is read, against grep and Python's re on the same words.

    python benchmarks/logs.py [--size-mb 500] [--ranks 64 1024] [--large-mb 5000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import Row, in_turn, keep, row

from ddp_assist.probes.logs.literals import required
from ddp_assist.probes.logs.reading import read
from ddp_assist.probes.logs.signatures import signatures

PLANTED = (
    "[rank{rank}]:[E1120 19:26:38.678375629 ProcessGroupNCCL.cpp:616] [Rank {rank}] Watchdog "
    "caught collective operation timeout: WorkNCCL(SeqNum=42, OpType=ALLREDUCE, NumelIn=25557032, "
    "NumelOut=25557032, Timeout(ms)=600000) ran for 600021 milliseconds before timing out.\n"
)


def write_log(path: Path, megabytes: int, ranks: int) -> None:
    """Ordinary training output, with one error in the middle."""
    dice = random.Random(7)
    block = "".join(
        f"[rank{dice.randrange(ranks)}]: 2026-03-0{dice.randrange(1, 9)} 10:{n % 60:02d}:"
        f"{n % 59:02d},{n % 1000:03d} INFO train.py:{dice.randrange(400)} epoch {n % 7} step {n} "
        f"loss {dice.random():.5f} lr {dice.random() / 1000:.3e} "
        f"tokens/s {dice.random() * 9e4:.0f}\n"
        for n in range(40_000)
    ).encode()
    blocks = max(1, megabytes * 1_000_000 // len(block))
    with path.open("wb") as log:
        for n in range(blocks):
            log.write(block)
            if n == blocks // 2:
                log.write(PLANTED.format(rank=3).encode())


def timed_re(log: Path, words: list[str], megabytes: int) -> float:
    """Seconds for the whole log, told from its first megabytes: all of it would take minutes."""
    pattern = re.compile("|".join(map(re.escape, words)).encode())
    part = min(2, megabytes)
    with log.open("rb") as opened:
        data = opened.read(part * 1_000_000)
    begun = time.perf_counter()
    sum(1 for _ in pattern.finditer(data))
    return (time.perf_counter() - begun) * megabytes / part


def measure(megabytes: int, ranks: int, rounds: int) -> list[Row]:
    words = sorted({word for each in signatures() for word in required(each.pattern) or ()})
    with tempfile.TemporaryDirectory() as folder:
        log, list_of_words = Path(folder, "job.log"), Path(folder, "words")
        write_log(log, megabytes, ranks)
        with log.open("rb") as opened:  # a word of every line would let grep skip all of it
            ordinary = opened.read(1_000_000).decode()
        words = [word for word in words if word not in ordinary]
        list_of_words.write_text("\n".join(words) + "\n")
        read((str(list_of_words),))  # patterns are compiled once, whatever is read afterwards
        words_of = ("grep", "-c", "-F", "-f", str(list_of_words), str(log))

        def grep() -> None:  # into a pipe: into /dev/null it would end with the first line
            env = {**os.environ, "LC_ALL": "C"}
            assert subprocess.run(words_of, stdout=subprocess.PIPE, env=env, check=False).stdout

        took = in_turn({"ours": lambda: recognise(log), "grep": grep}, rounds)
        python = [timed_re(log, words, megabytes)] * rounds
    size = f"{megabytes} MB" if megabytes < 1_000 else f"{megabytes / 1_000:g} GB"
    what = f"a {size} log of {ranks} ranks against {len(signatures())} signatures"
    more = {"here_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "mb_per_s": round(megabytes / min(took["ours"]), 1), "words": len(words)}  # fmt: skip
    return [
        row(what, "`grep -c -F -f`", took["ours"], took["grep"],
            name=f"{size} log of {ranks}", **more),
        row(what, "Python's `re`, told from its first 2 MB", took["ours"], python),
    ]  # fmt: skip


def recognise(log: Path) -> None:
    """Read anew each time: what was written since is no remembered answer."""
    os.utime(log)
    (found,) = read((str(log),))
    assert "collective-timed-out" in found.hits


def main(argv: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--size-mb", type=int, default=500)
    asked.add_argument("--ranks", type=int, nargs="+", default=[64, 1024])
    asked.add_argument("--large-mb", type=int, default=5_000)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args(argv)
    rows = [r for ranks in given.ranks for r in measure(given.size_mb, ranks, given.rounds)]
    large = measure(given.large_mb, given.ranks[0], 2) if given.large_mb else []
    keep("logs", [*rows, *large])


if __name__ == "__main__":
    main()
