"""Runs a command as if nobody were between: output, terminal, signals, exit code."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

PASSED = {signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
PASSED |= {signal.SIGINT, signal.SIGWINCH, signal.SIGCONT}
SENT_BY_A_PROCESS = 0
HEAD, TAIL = 2 << 20, 8 << 20


@dataclass(slots=True)
class Kept:
    """The first and the last of what was printed."""

    file: IO[bytes]
    tail: bytearray = field(default_factory=bytearray)
    size: int = 0
    last: float = field(default_factory=time.monotonic)

    def add(self, data: bytes) -> None:
        self.last = time.monotonic()
        room = max(0, HEAD - self.size)
        self.size += len(data)
        if room:
            self.file.write(data[:room])
        self.tail += data[room:]
        if len(self.tail) > 2 * TAIL:
            del self.tail[:-TAIL]

    def finish(self) -> str:
        self.file.write(self.tail[-TAIL:])
        self.tail.clear()
        self.file.flush()
        return self.file.name


@dataclass(frozen=True, slots=True)
class Ended:
    """How the job ended. A negative code is the signal that ended it."""

    code: int
    asked_for: bool
    """Somebody told us to stop: that is no failure of the job."""
    hung: bool


def run(
    words: Sequence[str],
    kept: Kept,
    stdout_to: int,
    is_hung: Callable[[int], bool],
    on_hang: Callable[[int], bool],
) -> Ended:
    """`on_hang(pid)` is called once; True from it ends the job, which we started ourselves."""
    on_screen = stdout_to == 1 and all(os.isatty(fd) for fd in (0, 1, 2))
    start = _on_terminal if on_screen else _on_pipes
    with start(words, stdout_to) as (child, ways), _signals(child, on_screen) as told:
        hung = _pump(child, ways, kept, is_hung, on_hang)
        code = child.wait()
    return Ended(code, bool(told), hung)


@contextlib.contextmanager
def _on_pipes(
    words: Sequence[str], stdout_to: int
) -> Iterator[tuple[subprocess.Popen[bytes], dict[int, int]]]:
    """One pipe for each place our own output goes to, so that nothing changes its order."""
    same = os.path.sameopenfile(stdout_to, 2)
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if same else subprocess.PIPE
    )
    assert child.stdout is not None
    ways = {child.stdout.fileno(): stdout_to}
    if child.stderr is not None:
        ways[child.stderr.fileno()] = 2
    try:
        yield child, ways
    finally:
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def _on_terminal(
    words: Sequence[str], stdout_to: int
) -> Iterator[tuple[subprocess.Popen[bytes], dict[int, int]]]:
    """A terminal of the job's own, of the same size; ours is raw meanwhile."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(0)
    termios.tcsetattr(slave, termios.TCSANOW, before)
    _same_size(master)
    child = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    tty.setraw(0, termios.TCSANOW)
    try:
        yield child, {master: 1, 0: master}
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.close(master)


def _same_size(master: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))


@contextlib.contextmanager
def _signals(child: subprocess.Popen[bytes], on_screen: bool) -> Iterator[list[int]]:
    """Passes on what a process sends us; what the terminal sends reaches the job by itself."""
    told: list[int] = []
    done = threading.Event()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED)

    def listen() -> None:
        while not done.is_set():
            info = signal.sigtimedwait(PASSED, 0.2)
            if info is None:
                continue
            if info.si_signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
                told.append(info.si_signo)
            if on_screen or info.si_code <= SENT_BY_A_PROCESS:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(info.si_signo)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield told
    finally:
        done.set()
        listener.join(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pump(
    child: subprocess.Popen[bytes],
    ways: dict[int, int],
    kept: Kept,
    is_hung: Callable[[int], bool],
    on_hang: Callable[[int], bool],
) -> bool:
    """Moves bytes until the job closed its output; True when it was ended because it hung."""
    reading = dict(ways)
    told_of_hang = False
    while any(fd != 0 for fd in reading):
        ready, _, _ = select.select(list(reading), [], [], 1.0)
        for source in ready:
            try:
                data = os.read(source, 1 << 16)
            except OSError:
                data = b""
            if not data:
                del reading[source]
                continue
            _write(reading[source], data)
            if source != 0:
                kept.add(data)
        if 0 in reading:
            _same_size(reading[0])
        if not ready and child.poll() is not None:
            return False  # a grandchild keeps the pipe open; the job itself is over
        if not told_of_hang and not ready and is_hung(child.pid):
            told_of_hang = True
            if on_hang(child.pid):
                _end(child)
                return True
    return False


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ends the job we started: first asked, then made to."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        try:
            child.wait(10)
            return
        except subprocess.TimeoutExpired:
            sys.stderr.flush()
