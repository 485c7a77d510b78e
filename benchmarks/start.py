"""From exec to the first screen, in a pty of 80x24, against a hello-world of the same framework.

A hello-world is the least that Textual can do; its own demo is an app of ordinary size. All are
started in turn, so that a busy machine is busy for each of them.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from statistics import median

from measuring import OURS, keep, row

HELLO = """
from textual.app import App
from textual.widgets import Static
class Hello(App):
    BINDINGS = [("q", "quit", "Quit")]
    def compose(self):
        yield Static("Hello, World!")
Hello().run()
"""
LEAST = "a hello-world in Textual"
ROUNDS = 7
QUIET = 2.0
IDLE = 3.0
# What is started, what stands on its first screen, and the key that it answers.
APPS: dict[str, tuple[list[str], bytes, bytes]] = {
    "ddp-assist": (OURS, b"What did you see", b"\x1b[B"),
    LEAST: ([sys.executable, "-c", HELLO], b"Hello, World!", b""),
    "python -m textual": ([sys.executable, "-m", "textual"], b"Textual", b"\x1b[B"),
}


@dataclass
class Seen:
    paint: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    key: list[float] = field(default_factory=list)


def measure(command: list[str], text: bytes, key: bytes, state: str, seen: Seen) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "TMUX", "NO_COLOR", "COLORTERM")}
    env |= {"TERM": "xterm-256color", "XDG_STATE_HOME": state, "LANG": "C.UTF-8"}
    begun = time.perf_counter()
    child = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
    )
    got = b""
    while text not in got:
        got += os.read(master, 1 << 16)
    seen.paint.append(time.perf_counter() - begun)
    while select.select([master], [], [], QUIET)[0]:
        got += os.read(master, 1 << 16)
    seen.bytes.append(len(got))
    pid = deepest(child.pid)
    before = cpu(pid)
    end, idle = time.monotonic() + IDLE, 0
    while (left := end - time.monotonic()) > 0:
        if select.select([master], [], [], left)[0]:
            idle += len(os.read(master, 1 << 16))
    seen.idle.append(idle / IDLE)
    seen.cpu.append((cpu(pid) - before) / IDLE * 100)
    seen.memory.append(resident(pid))
    if key:
        begun = time.perf_counter()
        os.write(master, key)
        os.read(master, 1 << 16)
        seen.key.append(time.perf_counter() - begun)
    child.kill()
    child.wait()
    os.close(master)
    os.close(slave)


def deepest(pid: int) -> int:
    """The process that draws: ours is a child of the one that gives the terminal back."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        below = children.read().split()
    return int(below[0]) if below else pid


def cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Megabytes of its own; a page that it shares with its parent counts half."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as maps:
        return next(int(line.split()[1]) for line in maps if line.startswith("Pss:")) / 1024


def main() -> None:
    results = {name: Seen() for name in APPS}
    with tempfile.TemporaryDirectory(prefix="ddp-assist-bench-") as state:
        for _ in range(int(os.environ.get("ROUNDS", ROUNDS))):
            for name, (command, text, key) in APPS.items():
                measure(command, text, key, state, results[name])
    ours = results["ddp-assist"]
    rows = []
    for name, peer in results.items():
        if peer is not ours:
            rows.append(
                row(
                    "exec to the first screen, 80x24", name, ours.paint, peer.paint,
                    name="first screen" if name == LEAST else f"first screen, {name}",
                    says="the first screen, from exec in an 80x24 terminal",
                    here_mb=median(ours.memory), peer_mb=median(peer.memory),
                    here_bytes=median(ours.bytes), peer_bytes=median(peer.bytes),
                    here_idle_bytes_s=median(ours.idle), here_idle_cpu_percent=median(ours.cpu),
                    here_key_s=median(ours.key),
                )
            )  # fmt: skip
    keep("start", rows)


if __name__ == "__main__":
    main()
