"""However the session ends, the terminal comes back: a real pty, a real process, real signals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODES = ("1049", "1000", "1003", "1006", "2004", "1004")
PATIENCE = 30.0


class Terminal:
    """A pty of 80x24 with ddp-assist in it."""

    def __init__(self, state: Path, **env: str) -> None:
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
            [sys.executable, "-m", "ddp_assist"],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env=full,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def read(self, until: Callable[[], bool]) -> None:
        """Reads what comes until that is true; fails rather than waits for ever."""
        end = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < end, self.bytes[-600:]
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self.bytes += os.read(self.master, 1 << 16)

    def shows(self, text: str) -> None:
        self.read(lambda: text.encode() in self.bytes)

    def ended(self) -> int:
        self.read(lambda: self.child.poll() is not None)
        while select.select([self.master], [], [], 0.2)[0]:
            self.bytes += os.read(self.master, 1 << 16)
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

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    here = Terminal(tmp_path)
    here.shows("What did you see")
    yield here
    here.close()


def test_q_leaves_a_clean_terminal(terminal: Terminal) -> None:
    terminal.type(b"q")
    assert terminal.ended() == 0
    assert terminal.is_restored()


def test_ctrl_c_twice_leaves_too(terminal: Terminal) -> None:
    terminal.type(b"\x03")
    terminal.shows("again")
    terminal.type(b"\x03")
    assert terminal.ended() == 130
    assert terminal.is_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_the_command_restores(terminal: Terminal, number: signal.Signals) -> None:
    os.kill(terminal.child.pid, number)
    assert terminal.ended() == 128 + number
    assert terminal.is_restored()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGHUP]
)
def test_the_death_of_the_screen_restores(terminal: Terminal, number: signal.Signals) -> None:
    os.kill(terminal.screen(), number)
    assert terminal.ended() == 128 + number
    assert terminal.is_restored()


def test_the_screen_goes_when_its_guard_is_killed(terminal: Terminal) -> None:
    screen = terminal.screen()
    os.kill(terminal.child.pid, signal.SIGKILL)
    terminal.read(lambda: not os.path.exists(f"/proc/{screen}") or _is_zombie(screen))


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("term", ["screen-256color", "linux", "vt100", "tmux-256color"])
def test_other_terminals_show_it_too(tmp_path: Path, term: str) -> None:
    here = Terminal(tmp_path, TERM=term)
    here.shows("What did you see")
    here.type(b"q")
    assert here.ended() == 0
    here.close()


def test_a_dumb_terminal_is_refused_with_a_way_on(tmp_path: Path) -> None:
    here = Terminal(tmp_path, TERM="dumb")
    assert here.ended() == 2
    assert b"ddp-assist diagnose" in here.bytes
    assert b"\x1b" not in here.bytes
    here.close()


def test_no_color_means_no_color(tmp_path: Path) -> None:
    here = Terminal(tmp_path, NO_COLOR="1")
    here.shows("What did you see")
    assert b"\x1b[38" not in here.bytes
    assert b";38;" not in here.bytes
    here.type(b"q")
    assert here.ended() == 0
    here.close()


def test_the_mouse_stays_with_the_terminal(terminal: Terminal) -> None:
    assert b"\x1b[?1000h" not in terminal.bytes
    assert b"\x1b[?1003h" not in terminal.bytes
