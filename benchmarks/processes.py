"""One pass over /proc against psutil and ps, with 200 and 2,000 processes.

    python benchmarks/processes.py [--counts 200 2000] [--rounds 9]
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil
from measuring import Row, command, in_turn, keep, row

from ddp_assist.probes.host.processes import snapshot

PDEATHSIG, SET_NAME = 1, 15
SAME = [
    "pid", "ppid", "uids", "name", "status", "num_threads", "create_time", "cpu_times",
    "memory_info",
]  # fmt: skip
PS = ("ps", "-eo", "pid,ppid,uid,comm,stat,nlwp,lstart,time,rss")


@contextmanager
def sleepers(count: int, name: bytes = b"") -> Iterator[None]:
    """Processes that only wait; the kernel ends them with us."""
    libc = ctypes.CDLL(None)
    started = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            libc.prctl(PDEATHSIG, signal.SIGKILL)
            if name:
                libc.prctl(SET_NAME, name)
            signal.pause()
            os._exit(0)
        started.append(pid)
    try:
        yield
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
        for pid in started:
            os.waitpid(pid, 0)


def psutil_anew() -> object:
    """psutil keeps its objects between calls; a program that looks once has none."""
    psutil.process_iter.cache_clear()
    return [p.info for p in psutil.process_iter(SAME)]


SIDES: dict[str, Callable[[], object]] = {
    "ours": snapshot,
    "psutil, looked once": psutil_anew,
    "psutil, looked again": lambda: [p.info for p in psutil.process_iter(SAME)],
    "`ps`": command(*PS),
}


def measure(count: int, rounds: int) -> list[Row]:
    with sleepers(max(0, count - len(psutil.pids()))):
        took = in_turn(SIDES, rounds)
        there = len(snapshot())
    return [
        row(f"one pass over {count:,} processes", peer, took["ours"], took[peer], processes=there,
            name="pass" if count >= 2_000 and "once" in peer else None)
        for peer in took if peer != "ours"
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args(argv)
    keep("processes", [r for count in asked.counts for r in measure(count, asked.rounds)])


if __name__ == "__main__":
    main()
