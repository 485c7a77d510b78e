"""Listeners, and who has one port, among 10 to 10,000 sockets; against ss and lsof: JSON on stdout.

A tenth of the sockets listen, the others are the two ends of connections, all in one other process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from ddp_assist.probes.network.sockets import LISTEN, on_port, owner, tcp

HOLDER = """
import resource, socket, sys
count = int(sys.argv[1])
hard = max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], count + 100)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(max(1, count // 10))]
held = []
for number in range((count - len(servers)) // 2):
    server = servers[number % len(servers)]
    held.append(socket.create_connection(server.getsockname()))
    held.append(server.accept()[0])
print(servers[0].getsockname()[1], flush=True)
sys.stdin.read()
"""


def milliseconds(work: Callable[[], object], times: int) -> dict[str, float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return {"median": round(statistics.median(took), 3), "best": round(min(took), 3)}


def program(*words: str) -> Callable[[], object]:
    return lambda: subprocess.run(words, capture_output=True, check=True)


def whose(port: int) -> int:
    listening = next(s for s in on_port(port) if s.state == "listen")
    pid = owner(listening.inode)
    assert pid is not None
    return pid


def measure(count: int, times: int) -> dict[str, object]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin and holder.stdout
        port = int(holder.stdout.readline())
        assert whose(port) == holder.pid
        asked: dict[str, dict[str, Callable[[], object]]] = {
            "listeners": {
                "ours": lambda: tcp(LISTEN),
                "ss -tln": program("ss", "-tln"),
                "ss -tlnp": program("ss", "-tlnp"),
            },
            "owner": {
                "ours": lambda: whose(port),
                "ss -tlnp sport": program("ss", "-tlnp", f"sport = :{port}"),
            },
        }
        if shutil.which("lsof"):
            asked["listeners"]["lsof"] = program("lsof", "-nP", "-iTCP", "-sTCP:LISTEN")
            asked["owner"]["lsof"] = program("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN")
        run: dict[str, object] = {"sockets": len(tcp()), "listeners_here": len(tcp(LISTEN))}
        for what, ways in asked.items():
            took = {way: milliseconds(work, times) for way, work in ways.items()}
            ours = took["ours"]["median"]
            run[f"{what}_ms"] = took
            run[f"{what}_over_ours"] = {
                way: round(each["median"] / ours, 2) for way, each in took.items() if way != "ours"
            }
        holder.stdin.close()
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 1000, 10000])
    parser.add_argument("--times", type=int, default=9)
    asked = parser.parse_args()
    result = {
        "benchmark": "sockets",
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "processes": len([name for name in os.listdir("/proc") if name.isdecimal()]),
        "runs": [measure(count, asked.times) for count in asked.counts],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
