"""64 waiting ranks among 2,000 processes: found, judged, with stacks, and as a live table.

The ranks are stand-ins without torch: the same names of threads, the same connections (each to the
store and to every other), the same frames for py-spy, and 10 MB instead of 140.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from measuring import Row, command, in_turn, keep, row
from processes import sleepers

from ddp_assist.app.jobs import alive
from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs.find import find_jobs
from ddp_assist.probes.jobs.live import live

RANK = """
import ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None)
libc.prctl(1, 9)
rank, world, folder = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), sys.argv[1]
def named(name):
    libc.prctl(15, name.encode())
    threading.Event().wait()
for name in ("gloo_tcp_loop", "pt_gloo_runloop", "pt_gloo_runloop", *["pt_autograd"] * 8):
    threading.Thread(target=named, args=(name,), daemon=True).start()
heard = socket.create_server(("127.0.0.1", 0), backlog=world)
with open(f"{folder}/{rank}.tmp", "w") as f:
    f.write(str(heard.getsockname()[1]))
os.rename(f"{folder}/{rank}.tmp", f"{folder}/{rank}")
if rank == 0:
    store = socket.create_server(("127.0.0.1", int(os.environ["MASTER_PORT"])), backlog=world)
kept = []
while True:
    try:
        kept.append(socket.create_connection(("127.0.0.1", int(os.environ["MASTER_PORT"]))))
        break
    except OSError:
        time.sleep(0.3)
for other in range(rank):
    while not os.path.exists(f"{folder}/{other}"):
        time.sleep(0.3)
    port = int(open(f"{folder}/{other}").read())
    kept.append(socket.create_connection(("127.0.0.1", port)))
for _ in range(world - 1 - rank):
    kept.append(heard.accept()[0])
if rank == 0:
    kept += [store.accept()[0] for _ in range(world)]
open(f"{folder}/up{rank}", "w").close()
sys.path.insert(0, folder + "/site-packages/torch/distributed")
import distributed_c10d
if rank == 7:
    time.sleep(3600)
distributed_c10d.all_reduce()
"""
WAITS = "import time\ndef all_reduce():\n    time.sleep(3600)\n"


def cpu(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        used = time.process_time()
        work()
        took.append(time.process_time() - used)
    return statistics.median(took)


def measured(ranks: int, times: int) -> list[Row]:
    verdict = next(j["verdict"] for j in alive(True) if len(j["ranks"]) == ranks)
    assert verdict["cause"], verdict
    ps = command("ps", "-eo", "pid,ppid,uid,stat,args")
    sides: dict[str, Callable[[], object]] = {
        "found": lambda: find_jobs(snapshot()), "a rescan of the live table": live,
        "with a verdict": alive, "ps": ps,
    }  # fmt: skip
    took = in_turn(sides, times)
    took["with stacks"] = in_turn({"with stacks": lambda: alive(True)}, 3)["with stacks"]
    there = f"{ranks} hung ranks among {len(psutil.pids()):,} processes"
    rows = [
        row(f"{there}: {name}", "`ps`", took[name], took["ps"][: len(took[name])], says=there,
            name="jobs" if name == "with a verdict" else None)
        for name in ("found", "a rescan of the live table", "with a verdict", "with stacks")
    ]  # fmt: skip
    share = cpu(live, times) / 3
    return [*rows, {"what": "share of a core of a rescan every 3 s", "share": round(share, 4)}]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--ranks", type=int, default=64)
    p.add_argument("--processes", type=int, default=2000)
    p.add_argument("--times", type=int, default=7)
    given = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "site-packages/torch/distributed")
        library.mkdir(parents=True)
        (library / "distributed_c10d.py").write_text(WAITS)
        script = Path(folder, "train.py")
        script.write_text(RANK)
        env = {"WORLD_SIZE": str(given.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29871"}
        ranks = [
            subprocess.Popen([sys.executable, str(script), folder],
                             env=os.environ | env | {"RANK": str(n)})
            for n in range(given.ranks)
        ]  # fmt: skip
        try:
            while not all(Path(folder, f"up{n}").exists() for n in range(given.ranks)):
                time.sleep(0.2)
            with sleepers(max(0, given.processes - len(psutil.pids())), b"sleep"):
                time.sleep(7)  # so long must it be quiet before a wait is called one
                found = measured(given.ranks, given.times)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
    keep("jobs", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
