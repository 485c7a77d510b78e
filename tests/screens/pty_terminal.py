"""A real terminal: a pty with a process in it, and what that has drawn on it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[2]
MODES = ("1049", "1000", "1003", "1006", "2004", "1004")
PATIENCE = 90.0
OURS = (sys.executable, "-m", "ddp_assist")


class Terminal:
    """A pty of 80x24 with ddp-assist in it, or whatever else is to be looked at."""

    def __init__(self, state: Path, *words: str, command: Sequence[str] = OURS, **env: str) -> None:
        self.picture = pyte.Screen(80, 24)
        self.stream = pyte.ByteStream(self.picture)
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.bytes = b""
        clean = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "TMUX")}
        full = clean | {
            "TERM": "xterm-256color",
            "PYTHONPATH": str(ROOT / "tests/typing"),
            "XDG_STATE_HOME": str(state),
            **env,
        }
        self.child = subprocess.Popen(
            [*command, *words],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env=full,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def read(self, until: Callable[[], bool]) -> None:
        """Reads what comes until that is true; fails rather than waits for ever."""
        end = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < end, "\n".join(self.picture.display)
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self._take()

    def _take(self) -> None:
        got = os.read(self.master, 1 << 16)
        self.bytes += got
        self.stream.feed(got)

    @property
    def text(self) -> str:
        """What stands on the screen now, as one run of words."""
        return " ".join(" ".join(self.picture.display).split())

    def shows(self, text: str) -> None:
        self.read(lambda: text in self.text)

    def ended(self) -> int:
        self.read(lambda: self.child.poll() is not None)
        while select.select([self.master], [], [], 0.2)[0]:
            self._take()
        return self.child.returncode

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def screen(self) -> int:
        """The pid of the child that draws."""
        path = f"/proc/{self.child.pid}/task/{self.child.pid}/children"
        with open(path, encoding="ascii") as children:
            return int(children.read().split()[0])

    def is_restored(self) -> bool:
        off = all(
            self.bytes.rfind(f"\x1b[?{mode}l".encode())
            >= self.bytes.rfind(f"\x1b[?{mode}h".encode())
            for mode in MODES
        )
        shown = self.bytes.rfind(b"\x1b[?25h") >= self.bytes.rfind(b"\x1b[?25l")
        now = termios.tcgetattr(self.slave)
        return off and shown and now[:4] == self.before[:4]

    @property
    def closed(self) -> bool:
        return self.master < 0

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)
        os.close(self.master)
        os.close(self.slave)
        self.master = -1
