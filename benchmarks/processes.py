"""One pass over /proc against psutil and ps, with 200 and 2,000 processes: JSON on stdout."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from ddp_assist.probes.host.processes import snapshot

PDEATHSIG = 1
SAME = [
    "pid", "ppid", "uids", "name", "status", "num_threads", "create_time", "cpu_times",
    "memory_info",
]  # fmt: skip
PS = ["ps", "-eo", "pid,ppid,uid,comm,stat,nlwp,lstart,time,rss"]


def sleepers(count: int) -> list[int]:
    """Processes that only wait; the kernel ends them with us."""
    libc = ctypes.CDLL(None)
    started = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            libc.prctl(PDEATHSIG, signal.SIGKILL)
            signal.pause()
            os._exit(0)
        started.append(pid)
    return started


def milliseconds(work: Callable[[], object], times: int) -> dict[str, float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return {"median": round(statistics.median(took), 3), "best": round(min(took), 3)}


def psutil_anew() -> object:
    """psutil keeps its objects between calls; a program that looks once has none."""
    psutil.process_iter.cache_clear()
    return [p.info for p in psutil.process_iter(SAME)]


def measure(count: int, times: int) -> dict[str, object]:
    started = sleepers(max(0, count - len(psutil.pids())))
    try:
        ours = milliseconds(snapshot, times)
        ours_argv = milliseconds(lambda: [p.argv for p in snapshot()], times)
        anew = milliseconds(psutil_anew, times)
        again = milliseconds(lambda: [p.info for p in psutil.process_iter(SAME)], times)
        argv = milliseconds(
            lambda: [p.info for p in psutil.process_iter([*SAME, "cmdline"])], times
        )
        run_ps = lambda: subprocess.run(PS, capture_output=True, check=True)  # noqa: E731
        ps = milliseconds(run_ps, times)
        return {
            "processes": len(snapshot()),
            "ours_ms": ours,
            "ours_with_argv_ms": ours_argv,
            "psutil_ms": anew,
            "psutil_again_ms": again,
            "psutil_with_argv_again_ms": argv,
            "ps_ms": ps,
            "psutil_over_ours": round(anew["median"] / ours["median"], 2),
            "psutil_again_over_ours": round(again["median"] / ours["median"], 2),
            "ps_over_ours": round(ps["median"] / ours["median"], 2),
        }
    finally:
        for pid in started:
            os.kill(pid, signal.SIGKILL)
        for pid in started:
            os.waitpid(pid, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--times", type=int, default=9)
    asked = parser.parse_args()
    result = {
        "benchmark": "processes",
        "python": sys.version.split()[0],
        "psutil": psutil.__version__,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "runs": [measure(count, asked.times) for count in asked.counts],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
