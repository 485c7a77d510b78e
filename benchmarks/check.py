"""`check --json` as a whole against `python -m torch.utils.collect_env`: JSON on stdout."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

PEERS = {
    "check": [sys.executable, "-m", "ddp_assist", "check", "--json"],
    "collect_env": [sys.executable, "-m", "torch.utils.collect_env"],
}


def run(command: list[str]) -> tuple[float, int, int]:
    """Seconds, peak memory of the process in KiB, exit code."""
    began = time.perf_counter()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - began, usage.ru_maxrss, child.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    peers = {}
    for name, command in PEERS.items():
        runs = [run(command) for _ in range(asked.times)]
        peers[name] = {
            "command": command[1:],
            "median_s": round(statistics.median(r[0] for r in runs), 3),
            "best_s": round(min(r[0] for r in runs), 3),
            "peak_mb": round(max(r[1] for r in runs) / 1024, 1),
            "exit_codes": sorted({r[2] for r in runs}),
        }
    share = peers["check"]["median_s"] / peers["collect_env"]["median_s"]  # type: ignore[operator]
    result = {
        "benchmark": "check",
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "peers": peers,
        "check_over_collect_env": round(share, 3),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
