"""From a key to what it changes on the screen: at rest, and while probes, a trial and a log run.

    python benchmarks/keys.py [--size-mb 500] [--keys 40]

The peer is Textual's own demo at rest, with the same key, in the same run.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

from logs import write_log
from measuring import OURS, keep, row

DOWN, UP = b"\x1b[B", b"\x1b[A"


class Screen:
    """An app on a pty, whose keys are timed."""

    def __init__(self, command: list[str], state: str, cwd: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {k: v for k, v in os.environ.items() if k not in ("CI", "TMUX", "NO_COLOR")}
        env |= {"TERM": "xterm-256color", "XDG_STATE_HOME": state, "LANG": "C.UTF-8"}
        self.child = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.got = b""

    def until(self, text: bytes) -> None:
        while text not in self.got:
            self.got += os.read(self.master, 1 << 16)

    def go(self, key: bytes, text: bytes) -> None:
        self.got = b""
        os.write(self.master, key)
        self.until(text)

    def keys(self, count: int) -> list[float]:
        """Each key after the screen has been still for a moment, so that the answer is its own."""
        took = []
        for number in range(count):
            while select.select([self.master], [], [], 0.03)[0]:
                self.got += os.read(self.master, 1 << 16)
            begun = time.perf_counter()
            os.write(self.master, UP if number % 2 else DOWN)
            self.got += os.read(self.master, 1 << 16)
            took.append(time.perf_counter() - begun)
        return took

    def close(self) -> None:
        self.child.terminate()
        while select.select([self.master], [], [], 5)[0]:
            try:
                os.read(self.master, 1 << 16)
            except OSError:  # the last of it has left the terminal
                break
        self.child.wait(20)
        os.close(self.master)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=int, default=500)
    parser.add_argument("--keys", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ddp-assist-bench-") as folder:
        log = Path(folder, "job.log")
        write_log(log, asked.size_mb, 64)
        launch = ["torchrun", "--nproc-per-node=2", "train.py"]
        Path(folder, "train.py").write_text("import torch.distributed as dist\n")
        peer = Screen([sys.executable, "-m", "textual"], folder, folder)
        peer.until(b"Textual")
        theirs = peer.keys(asked.keys)
        peer.close()
        ours = Screen(OURS, folder, folder)
        ours.until(b"What did you see")
        rest = ours.keys(asked.keys)
        ours.close()
        ours = Screen([*OURS, "--log", str(log), "--", *launch], folder, folder)
        ours.until(b"What did you see")
        ours.go(b"t", b"not started yet")
        ours.go(b"\r", b"running ...")
        ours.go(b"b", b"What did you see")
        busy = ours.keys(asked.keys)
        ours.close()
    name = "`python -m textual` at rest"
    during = f"a key, while probes, a trial and a {asked.size_mb} MB log run"
    more = {"most_s": max(busy), "most_at_rest_s": max(rest)}
    keep("keys", [row("a key, at rest", name, rest, theirs, name="rest"),
                  row(during, name, busy, theirs, name="busy", **more)])  # fmt: skip


if __name__ == "__main__":
    main()
