"""How fast a large log of 64 ranks is read, against grep and Python's re on the same words.

python benchmarks/logs.py [--size-mb 500] [--ranks 64] prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def timed_grep(log: Path, words: Path) -> float:
    begun = time.perf_counter()
    subprocess.run(
        ["grep", "-c", "-F", "-f", str(words), str(log)], check=False, capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return time.perf_counter() - begun


def timed_re(log: Path, words: list[str], megabytes: int) -> float:
    """Seconds for the whole log, told from its first megabytes: all of it would take minutes."""
    pattern = re.compile("|".join(map(re.escape, words)).encode())
    part = min(8, megabytes)
    with log.open("rb") as opened:
        data = opened.read(part * 1_000_000)
    begun = time.perf_counter()
    sum(1 for _ in pattern.finditer(data))
    return (time.perf_counter() - begun) * megabytes / part


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--size-mb", type=int, default=500)
    asked.add_argument("--ranks", type=int, default=64)
    given = asked.parse_args()
    words = sorted({word for each in signatures() for word in required(each.pattern) or ()})
    with tempfile.TemporaryDirectory() as folder:
        log, list_of_words = Path(folder, "job.log"), Path(folder, "words")
        write_log(log, given.size_mb, given.ranks)
        list_of_words.write_text("\n".join(words) + "\n")
        read((str(list_of_words),))  # patterns are compiled once, whatever is read afterwards
        begun = time.perf_counter()
        found = read((str(log),))
        ours = time.perf_counter() - begun
        grep = min(timed_grep(log, list_of_words) for _ in range(2))
        python = timed_re(log, words, given.size_mb)
        size = log.stat().st_size / 1e6
    json.dump({
        "size_mb": round(size, 1), "signatures": len(signatures()), "words": len(words),
        "seconds": round(ours, 3), "mb_per_s": round(size / ours, 1),
        "grep_seconds": round(grep, 3), "python_re_seconds": round(python, 1),
        "times_grep": round(grep / ours, 2), "times_python_re": round(python / ours, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "found": sorted(found[0].hits),
    }, sys.stdout, indent=1)  # fmt: skip
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
