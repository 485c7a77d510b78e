"""The parent of everything a trial starts, and the one who ends it all, whoever else is killed.

    guard.py SHELTER LIMIT ALARM [--namespace] -- COMMAND...

LIMIT is how many seconds the guard has to live, ALARM after how many the kernel ends COMMAND.

Standard input is the lifeline: when its other end closes, by whatever death, the trial ends. Lines
that come in are handed to COMMAND; a line's "limit" is how many seconds the guard then has to live.
Standard library only, Python 3.8 and newer, one thread, and never torch: what hangs is a child.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import runpy
import select
import shutil
import signal
import sys
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


def say(**event: Any) -> None:
    """One line to the asker; when it is gone there is nobody to tell."""
    try:
        os.write(1, (json.dumps(event) + "\n").encode())
    except OSError:
        return


def die_with(parent: int) -> None:
    """SIGKILL to this process when its parent ends, also when it has ended already."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() not in (parent, 0):  # 0: the parent is outside of this PID namespace
        os._exit(125)


def enter_namespace() -> str:
    """A PID namespace for what is started next, or the reason why there is none."""
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWPID if uid == 0 else CLONE_NEWPID | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        return os.strerror(ctypes.get_errno())
    if flags & CLONE_NEWUSER:
        for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                           ("gid_map", f"{gid} {gid} 1")):
            with open("/proc/self/" + name, "w") as mapping:
                mapping.write(line)
    return ""


def become(command: list[str], seconds: float) -> None:
    """COMMAND, with an alarm of the kernel's that ends it should all who watch it be frozen."""
    signal.alarm(int(seconds) + 2)
    os.execv(command[0], command)


def first_of_namespace(command: list[str], seconds: float) -> None:
    """The init of a PID namespace: starts COMMAND, reaps, and ends with it (and all in it)."""
    child = os.fork()
    if child == 0:
        become(command, seconds)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            os._exit(code & 255)


def start(command: list[str], namespace: bool, seconds: float) -> tuple[int, int]:
    """COMMAND with our standard output and error, and a pipe that we write to as its input."""
    me = os.getpid()
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        os.set_blocking(ours, False)
        return pid, ours
    try:
        signal.set_wakeup_fd(-1)
        for number in WATCHED:
            signal.signal(number, signal.SIG_DFL)
        die_with(me)
        os.dup2(theirs, 0)
        if namespace:
            first_of_namespace(command, seconds)
        become(command, seconds)
    except OSError as problem:
        say(event="refused", errno=problem.errno, error=str(problem))
    os._exit(126)


def children() -> list[int]:
    """Pids whose parent is this process; orphans of the trial are, because it is a subreaper."""
    me = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == me:
                found.append(int(name))
    return found


def sweep() -> int:
    """Kill and reap until no descendant is left; a killed parent hands its children to us."""
    killed = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return killed
        if pid == 0:
            for child in children():
                os.kill(child, signal.SIGKILL)  # ours until reaped, so the pid cannot be reused
                killed += 1
            time.sleep(0.002)


def watch(worker: int, pipe: int, limit: float) -> tuple[str, int | None]:
    """Until the worker ends, the lifeline closes, a signal comes or the time is over."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(WAKE, select.POLLIN)
    pending = b""
    while True:
        left = limit - time.monotonic()
        if left <= 0:
            return "limit", None
        ready = dict(poll.poll(left * 1000))
        if WAKE in ready:
            came = set(os.read(WAKE, 512))
            if came - {signal.SIGCHLD}:
                return "signal", None
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return "gone", None
                if pid == worker:
                    return "gone", status
                if pid == 0:
                    break
        if 0 in ready:
            chunk = os.read(0, 65536)
            if not chunk:
                return "lifeline", None
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                limit = time.monotonic() + float(json.loads(line.decode())["limit"])
                try:
                    os.write(pipe, line + b"\n")
                except OSError as problem:
                    if problem.errno not in (errno.EPIPE, errno.EAGAIN):
                        raise


WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WAKE = -1


def main(argv: list[str]) -> None:
    global WAKE
    shelter, seconds, alarm, began = argv[0], float(argv[1]), float(argv[2]), time.time()
    limit = time.monotonic() + seconds
    command = argv[argv.index("--") + 1:]
    namespace = "--namespace" in argv[: argv.index("--")]
    # A group of its own within the session: ^C does not reach it, and if it is stopped while its
    # asker dies, the kernel wakes the orphaned group with SIGHUP and SIGCONT.
    os.setpgid(0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    WAKE, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in WATCHED:
        signal.signal(number, lambda *_: None)
    if namespace:
        why = enter_namespace()
        say(event="namespace", have=not why, why=why)
        namespace = not why
    try:
        worker, pipe = start(command, namespace, alarm)
    except OSError as problem:
        say(event="refused", errno=problem.errno, error=str(problem))
        ended, status = "refused", None
    else:
        ended, status = watch(worker, pipe, limit)
    killed = sweep()
    runpy.run_path(os.path.join(HERE, "leftovers.py"))["sweep"](began)
    shutil.rmtree(shelter, ignore_errors=True)
    code = None
    if status is not None:
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    os.set_blocking(1, False)  # an asker that is frozen reads nothing, and must not hold us
    say(event="ended", by=ended, code=code, killed=killed)


if __name__ == "__main__":
    main(sys.argv[1:])
