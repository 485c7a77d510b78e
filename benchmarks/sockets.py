"""Listeners, and who has one port, among 10 to 10,000 sockets; against ss and lsof.

    python benchmarks/sockets.py [--counts 10 1000 10000] [--rounds 9]

A tenth of the sockets listen, the others are the two ends of connections, all in one other process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence

from measuring import Row, command, in_turn, keep, row

from ddp_assist.probes.network.sockets import LISTEN, on_port, owner, tcp

HOLDER = """
import resource, socket, struct, sys
count = int(sys.argv[1])
hard = max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], count + 100)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(max(1, count // 10))]
held = []
for number in range((count - len(servers)) // 2):
    server = servers[number % len(servers)]
    held.append(socket.create_connection(server.getsockname()))
    held.append(server.accept()[0])
    for end in held[-2:]:  # the end of this process leaves nothing in TIME_WAIT
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print(servers[0].getsockname()[1], flush=True)
sys.stdin.read()
"""


def whose(port: int) -> int:
    listening = next(s for s in on_port(port) if s.state == "listen")
    pid = owner(listening.inode)
    assert pid is not None
    return pid


def measure(count: int, rounds: int) -> list[Row]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin and holder.stdout
        port = int(holder.stdout.readline())
        assert whose(port) == holder.pid
        listeners: dict[str, Callable[[], object]] = {
            "ours": lambda: tcp(LISTEN),
            "`ss -tln`": command("ss", "-tln"),
            "`ss -tlnp`": command("ss", "-tlnp"),
            "`lsof`": command("lsof", "-nP", "-iTCP", "-sTCP:LISTEN"),
        }
        owners: dict[str, Callable[[], object]] = {
            "ours": lambda: whose(port),
            "`ss -tlnp`": command("ss", "-tlnp", f"sport = :{port}"),
            "`lsof`": command("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN"),
        }
        there = len(tcp())
        rows = [
            *_rows(f"the listeners among {count:,} sockets", listeners, rounds, sockets=there),
            *_rows(f"who has a port, among {count:,} sockets", owners, rounds, sockets=there),
        ]
        holder.stdin.close()
        return rows


def _rows(
    what: str, sides: dict[str, Callable[[], object]], rounds: int, **more: object
) -> list[Row]:
    took = in_turn(sides, rounds)
    shown = "who has" in what and "10,000" in what
    return [
        row(what, peer, took["ours"], took[peer], says=what,
            name="owner" if shown and "ss" in peer else None, **more)
        for peer in took if peer != "ours"
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args(argv)
    keep("sockets", [r for count in asked.counts for r in measure(count, asked.rounds)])


if __name__ == "__main__":
    main()
