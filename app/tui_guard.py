"""The parent of the screen: it outlives it, and gives the terminal back however it ended."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import termios
from typing import Any

# Mouse, focus, paste and keyboard modes off, main screen, wrap and cursor on, colours reset.
RESET = (
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\x1b[<u"
    "\x1b[?1049l\x1b[?7h\x1b[?25h\x1b[0m"
)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PR_SET_PDEATHSIG = 1


def start(options: argparse.Namespace) -> int:
    """Runs the guided session in a child and returns its exit code."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os._exit(_screen(options, parent))
    handlers = {number: signal.signal(number, lambda n, _: _tell(child, n)) for number in PASSED_ON}
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = _wait(child)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code > 128:
        _restore(terminal, before)
    return code


def _tell(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _wait(child: int) -> int:
    """Waits through stops: ctrl+z stops the child, then us, and `fg` wakes both."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.kill(os.getpid(), signal.SIGSTOP)
            _tell(child, signal.SIGCONT)
            continue
        return (
            os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        )


def _restore(terminal: int, before: list[Any]) -> None:
    with contextlib.suppress(OSError, termios.error):
        os.write(terminal, RESET.encode("ascii"))
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _screen(options: argparse.Namespace, parent: int) -> int:
    """In the child: the session ends with its guard, so that nothing reads the terminal alone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)
    if os.getppid() != parent:
        return 129
    os.environ.setdefault("TEXTUAL_THEME", "ansi-dark")
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    if os.environ.get("TERM", "").startswith("screen") and "TMUX" not in os.environ:
        os.environ.pop("COLORTERM", None)  # GNU screen misreads the 24-bit colours this promises
    from ddp_assist.app.tui import run

    try:
        return run(options)
    except BaseException as fault:  # noqa: BLE001 - the traceback must not reach the screen
        from ddp_assist.app.report.crash import write_crash

        path = write_crash(fault, sys.argv)
        os.write(2, f"ddp-assist: internal error, see {path}\n".encode())
        return 4
    finally:
        sys.stdout.flush()
