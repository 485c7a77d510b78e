"""Runs a command as if nobody were between: output, terminal, signals, exit code."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from ddp_assist.app import own_terminal
from ddp_assist.probes.host.processes import look, snapshot

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PASSED = {*ENDINGS, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT,
          signal.SIGTSTP}  # fmt: skip
SENT_BY_A_PROCESS = 0
GRACE = 60.0
"""Whoever asked a job to end, and saw it end within this, needs no diagnosis."""
PATIENCE = 10.0
"""For so long a process that was asked to end may take to do it."""
HEAD, TAIL = 2 << 20, 8 << 20


@dataclass(slots=True)
class Kept:
    """The first and the last of what was printed."""

    file: IO[bytes]
    name: str
    """By which others open the file."""
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

    def so_far(self) -> str:
        """The name of a file with what there is now; more may come."""
        self.file.flush()
        at = self.file.tell()
        self.file.write(self.tail[-TAIL:])
        self.file.flush()
        self.file.seek(at)
        return self.name


@dataclass(frozen=True, slots=True)
class Ended:
    """How the job ended. A negative code is the signal that ended it."""

    code: int
    asked_for: bool
    """Somebody told it to stop: that is no failure of the job."""
    hung: bool


class _Job:
    """What was started: our direct child, and the process that the user's command became."""

    def __init__(self, child: int, pid: int, popen: subprocess.Popen[bytes] | None) -> None:
        self.child, self.pid, self.popen = child, pid, popen
        self.code: int | None = None
        self.asked = float("-inf")
        self.cooked: list[Any] = []
        """The settings of our terminal before it was made raw."""

    def poll(self) -> int | None:
        """Its code once it ended. A stopped one stops us as well, until somebody continues us."""
        if self.code is None:
            if self.popen is not None:
                self.code = self.popen.poll()
                return self.code
            pid, status = os.waitpid(self.child, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                self._stop_as_well()
                os.kill(self.child, signal.SIGCONT)
            elif pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def _stop_as_well(self) -> None:
        """The shell that waits for us must see us stopped, on a terminal as it was."""
        raw = termios.tcgetattr(0)
        termios.tcsetattr(0, termios.TCSADRAIN, self.cooked)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})
        termios.tcsetattr(0, termios.TCSANOW, raw)

    def wait(self, seconds: float) -> bool:
        ends = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > ends:
                return False
            time.sleep(0.02)
        return True

    def send(self, number: int) -> None:
        if number in ENDINGS:
            self.asked = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


_Started = tuple[_Job, dict[int, int]]


def run(
    words: Sequence[str], kept: Kept, stdout_to: int, is_hung: Callable[[int], bool]
) -> Ended:
    """`is_hung(pid)` is asked about once a second; True ends the job, which we started ourselves.

    Raises OSError where the command can't be started.
    """
    on_screen = stdout_to == 1 and all(os.isatty(fd) for fd in (0, 1, 2))
    mask: set[signal.Signals | int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, PASSED))
    try:
        way = _on_terminal if on_screen else _on_pipes
        with way(words, stdout_to, mask) as (job, ways), _signals(job, on_screen) as woken:
            hung = _pump(job, ways, kept, is_hung, woken)
            while not job.wait(1.0):
                pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert job.code is not None
    return Ended(job.code, time.monotonic() - job.asked < GRACE, hung)


@contextlib.contextmanager
def _on_pipes(
    words: Sequence[str], stdout_to: int, mask: set[signal.Signals | int]
) -> Iterator[_Started]:
    """What goes to a terminal goes through one, what goes elsewhere through a pipe.

    One way for each place our own output goes to, so that nothing changes its order.
    """
    ours: list[int] = []
    theirs: dict[int, int] = {}
    ways: dict[int, int] = {}
    for fd, to in ((1, stdout_to), (2, 2)):
        if fd == 2 and os.path.sameopenfile(stdout_to, 2):
            theirs[2] = theirs[1]
            break
        reading, writing = own_terminal.plain(to) if os.isatty(to) else os.pipe()
        ours.append(reading)
        theirs[fd], ways[reading] = writing, to
    try:
        popen = subprocess.Popen(
            words, stdout=theirs[1], stderr=theirs[2],
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask),
        )  # fmt: skip
    finally:
        for fd in set(theirs.values()):
            os.close(fd)
    try:
        yield _Job(popen.pid, popen.pid, popen), ways
    finally:
        for fd in ours:
            with contextlib.suppress(OSError):
                os.close(fd)


@contextlib.contextmanager
def _on_terminal(
    words: Sequence[str], stdout_to: int, mask: set[signal.Signals | int]
) -> Iterator[_Started]:
    """A terminal of the job's own; ours is raw meanwhile."""
    before = termios.tcgetattr(0)
    guard, pid, master = own_terminal.start(words, mask)
    tty.setraw(0, termios.TCSANOW)
    try:
        job = _Job(guard, pid, None)
        job.cooked = before
        yield job, {master: 1, 0: master}
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        os.close(master)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Our own words, on a terminal that is raw because the job's own one does all the rest."""
    if not os.isatty(0) or os.tcgetpgrp(0) != os.getpgrp():
        yield
        return
    raw = termios.tcgetattr(0)
    ours = [raw[0], raw[1] | termios.OPOST | termios.ONLCR, *raw[2:]]
    termios.tcsetattr(0, termios.TCSADRAIN, ours)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, raw)


@contextlib.contextmanager
def _signals(job: _Job, on_screen: bool) -> Iterator[int]:
    """Passes on what a process sends us; what the terminal sends reaches the job by itself.

    Yields what becomes readable when a signal came, so that whoever waits looks again.
    """
    done = threading.Event()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)

    def listen() -> None:
        while not done.is_set():
            info = signal.sigtimedwait(PASSED, 0.2)
            if info is None or done.is_set():
                continue
            by_process = info.si_code <= SENT_BY_A_PROCESS
            if not by_process and info.si_signo in ENDINGS:
                job.asked = time.monotonic()
            if by_process or (on_screen and info.si_signo != signal.SIGWINCH):
                job.send(info.si_signo)
            if info.si_signo == signal.SIGTSTP and not on_screen:
                os.kill(os.getpid(), signal.SIGSTOP)
            with contextlib.suppress(BlockingIOError):
                os.write(wake, b"!")

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield woken
    finally:
        done.set()
        os.kill(os.getpid(), signal.SIGWINCH)  # the listener takes it and sees that it is done
        listener.join(1)
        os.close(woken)
        os.close(wake)


def _pump(
    job: _Job, ways: dict[int, int], kept: Kept, is_hung: Callable[[int], bool], woken: int
) -> bool:
    """Moves bytes until the job closed its output; True when it was ended because it hung."""
    reading = dict(ways)
    asked = time.monotonic()
    while any(fd != 0 for fd in reading):
        ready, _, _ = select.select([*reading, woken], [], [], 0.5)
        if woken in ready:
            os.read(woken, 64)
            if 0 in reading:
                own_terminal.same_size(reading[0])
        ready = [fd for fd in ready if fd != woken]
        for source in ready:
            _move(job, source, reading, kept)
        ended = job.poll() is not None
        if not ready and ended:
            return False  # a grandchild keeps the pipe open; the job itself is over
        now = time.monotonic()
        if not ended and now - asked >= 1.0:
            asked = now
            if is_hung(job.pid):
                _end(job)
                return True
    return False


def _move(job: _Job, source: int, reading: dict[int, int], kept: Kept) -> None:
    try:
        data = os.read(source, 1 << 16)
    except OSError:
        data = b""
    if not data:
        del reading[source]
        return
    if source == 0:
        if own_terminal.interrupts(data, reading[0]):
            job.asked = time.monotonic()
    else:
        kept.add(data)
    try:
        _write(reading[source], data)
    except OSError:
        # Whoever read our output is gone: the job meets the same at its next word.
        del reading[source]
        job.asked = time.monotonic()
        if source != 0:
            with open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), source)


def _write(to: int, data: bytes) -> None:
    while data:
        data = data[os.write(to, data) :]


def _end(job: _Job) -> None:
    """Ends the job we started: first asked, then made to; then those that a dead shell left."""
    family = {p.pid: p.started for p in snapshot().descendants(job.pid)}
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(job.pid, number)
        if job.wait(PATIENCE):
            break
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _alive(family):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        ends = time.monotonic() + PATIENCE
        while _alive(family) and time.monotonic() < ends:
            time.sleep(0.05)


def _alive(family: Mapping[int, int]) -> list[int]:
    """Those of these processes that still run; a pid that another process has by now is not one."""
    now = [(pid, look(pid)) for pid in family]
    return [pid for pid, p in now if p and p.started == family[pid] and p.state not in "ZX"]
