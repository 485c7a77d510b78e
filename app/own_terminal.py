"""A job on a terminal of its own that behaves as the user's: Ctrl-C, Ctrl-Z, resizing, colours.

A guard leads the session and starts the job in a process group of its own, as a shell does: the
kernel ignores Ctrl-Z in a group whose parent is not in its session.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import resource
import signal
import termios
from collections.abc import Sequence
from typing import NoReturn


def start(words: Sequence[str], mask: set[signal.Signals | int]) -> tuple[int, int, int]:
    """The guard's pid, the job's pid, and our end of the terminal. Raises OSError like exec."""
    master, slave = pty.openpty()
    termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(0))
    same_size(master)
    told, tell = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.close(told)
        os.close(master)
        _guard(words, slave, tell, mask)
    os.close(tell)
    os.close(slave)
    with os.fdopen(told, "rb") as answer:
        kind, _, number = answer.read().decode().rpartition(" ")
    if "failed" in kind or not number:
        os.waitpid(guard, 0)
        os.close(master)
        code = int(number or 2)
        raise OSError(code, os.strerror(code), words[0])
    return guard, int(number), master


def same_size(master: int, like: int = 0) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(like, termios.TIOCGWINSZ, bytes(8)))


def interrupts(typed: bytes, master: int) -> bool:
    """Whether the job's terminal turns one of these keys into a signal that ends it."""
    try:
        settings = termios.tcgetattr(master)
    except termios.error:
        return False
    keys = [settings[6][which] for which in (termios.VINTR, termios.VQUIT)]
    return bool(settings[3] & termios.ISIG) and any(key in typed for key in keys)


def plain(like: int) -> tuple[int, int]:
    """A terminal for output only; the one behind it does the rest, so this one changes no byte."""
    master, slave = pty.openpty()
    settings = termios.tcgetattr(like)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    same_size(master, like)
    return master, slave


def _guard(
    words: Sequence[str], slave: int, tell: int, mask: set[signal.Signals | int]
) -> NoReturn:
    """Starts the job, stops when it stops, ends as it ends."""
    try:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for number in (signal.SIGTTOU, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            _exec(words, slave, tell, mask)
        os.write(tell, f"job {job}".encode())
        os.close(tell)
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            os.kill(os.getpid(), signal.SIGSTOP)
            os.tcsetpgrp(slave, job)
            os.killpg(job, signal.SIGCONT)
        # Nobody who stays behind shall be told that the terminal hung up.
        with contextlib.suppress(OSError):
            os.tcsetpgrp(slave, os.getpgrp())
        if os.WIFSIGNALED(status):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {os.WTERMSIG(status)})
            os.kill(os.getpid(), os.WTERMSIG(status))
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    finally:
        os._exit(127)


def _exec(words: Sequence[str], slave: int, tell: int, mask: set[signal.Signals | int]) -> NoReturn:
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(slave, os.getpgrp())
        for number in (signal.SIGTTOU, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT,
                       signal.SIGPIPE, signal.SIGXFSZ):  # fmt: skip
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        if slave > 2:
            os.close(slave)
        os.execvp(words[0], list(words))
    except OSError as why:
        os.write(tell, f" failed {why.errno}".encode())
    finally:
        os._exit(127)
