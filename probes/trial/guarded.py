"""The asker's side of a guard: start it, send it requests, read its events, let it end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ddp_assist.probes.text import clean
from ddp_assist.probes.trial.shelter import Shelter, sweep

CHILDREN = Path(__file__).parent / "children"
WORKER = str(CHILDREN / "worker.py")
MARK = "DDP_ASSIST_TRIAL"
LONGEST_LINE = 65536
LOG_TAIL = 4 << 20
RANK_VARIABLES = {
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip
# From its first instruction on; before Python 3.11 the guard does it itself, a moment later.
OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {}
RANK_PREFIXES = ("TORCHELASTIC_", "PET_", "DDP_ASSIST_")
Event = dict[str, Any]


class NotStarted(Exception):
    """The interpreter could not be started at all."""


def launch_env(own: Mapping[str, str | None]) -> dict[str, str]:
    """Ours and the launch's, without what says which rank somebody is."""
    return {
        name: value
        for name, value in {**os.environ, **own}.items()
        if value is not None
        and name not in RANK_VARIABLES
        and not name.startswith(RANK_PREFIXES)
    }


def environment(own: Mapping[str, str | None], shelter: Path, mark: str) -> dict[str, str]:
    """What the children get: the launch's environment, kept small and harmless, and our mark."""
    env = launch_env(own)
    # One thread a library: pools cost start-up time and make forking unsafe.
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("OPENBLAS_NUM_THREADS", "1")
    return env | {
        MARK: mark,
        "TMPDIR": str(shelter),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class Guard:
    """One guard process and the worker below it; ends them when left."""

    def __init__(
        self,
        python: str,
        env: Mapping[str, str | None],
        cwd: str | None,
        limit: float,
        command: Callable[[Path], tuple[str, ...]] = lambda shelter: (WORKER,),
        namespace: bool = False,
        alarm: float | None = None,
    ) -> None:
        """`command` says, for a shelter, what the interpreter runs below the guard, and `alarm`
        when the kernel ends it, should the guard be frozen; else it is `limit`."""
        self.id = secrets.token_hex(8)
        try:
            sweep()
            self.shelter = Shelter()
        except OSError as problem:
            raise NotStarted(f"no private directory for the trial: {problem}") from problem
        self.limit = time.monotonic() + limit
        self.pending: dict[int, bytes] = {}
        self.over = False
        self.log_from = 0
        arguments = [str(CHILDREN / "guard.py"), str(self.shelter.path), f"{limit:.3f}"]
        arguments += [f"{alarm or limit:.3f}"]
        arguments += (["--namespace"] if namespace else []) + ["--", python]
        try:
            log = os.open(self.shelter.path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            self.log = os.fdopen(log, "rb")
            self.process = subprocess.Popen(
                [python, *arguments, *command(self.shelter.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                env=environment(env, self.shelter.path, self.id),
                cwd=cwd,
                pass_fds=(self.shelter.lock,),
                **OWN_GROUP,
            )
        except OSError as problem:
            self.shelter.release()
            raise NotStarted(_why_not(python, cwd, problem)) from problem
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdin.fileno(), False)
        os.set_blocking(self.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.listen(self.stdout.fileno())

    def listen(self, fd: int) -> None:
        """Events come from there, too."""
        self.pending[fd] = b""
        self.selector.register(fd, selectors.EVENT_READ)

    def forget(self, fd: int) -> None:
        self.selector.unregister(fd)
        del self.pending[fd]

    def send(self, limit: float, **request: Any) -> None:
        """A line for the worker, and `limit`: the seconds that the guard then has to live."""
        line = json.dumps({"limit": limit, **request}).encode() + b"\n"
        if len(line) > 32768:
            raise NotStarted("the environment of the launch is too large to be handed to a trial")
        self.limit = time.monotonic() + limit
        try:
            os.write(self.stdin.fileno(), line)
        except (BrokenPipeError, BlockingIOError):
            self.over = True  # the guard has ended or is frozen: its events, or their lack, tell

    def events(self, until: float, cancel: threading.Event | None = None) -> Iterator[Event]:
        """What is told until then. A line that is no event yields {"event": "noise"}."""
        while not self.over and not (cancel is not None and cancel.is_set()):
            for fd in self.pending:
                while b"\n" in self.pending[fd]:
                    line, _, self.pending[fd] = self.pending[fd].partition(b"\n")
                    yield _event(line)
            left = max(0.0, until - time.monotonic())
            ready = self.selector.select(min(left, 0.05) if cancel is not None else left)
            if not ready and time.monotonic() >= until:
                return
            for key, _ in ready:
                self._read(key.fd)

    def _read(self, fd: int) -> None:
        chunk = os.read(fd, 65536)
        self.pending[fd] += chunk if b"\n" in chunk else chunk[: LONGEST_LINE]
        if not chunk or len(self.pending[fd]) > LONGEST_LINE + 65536:
            self.over = True  # the guard has ended, or what is there is no program of ours

    def killed(self) -> bool:
        """Whether somebody killed the guard; it never ends by a signal of its own accord."""
        if self.over:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(0.2) < 0
        return False

    def end(self, patience: float = 1.0) -> str:
        """Close the lifeline, see the guard end (it sweeps first), and give back the log."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()  # our own child; the kernel ends the worker and its ranks with it
            self.process.wait()
        self.selector.close()
        self.stdout.close()
        text = self.tail()
        self.log.close()
        self.shelter.release()
        return text

    def begin_log(self) -> None:
        """What was printed before belongs to another trial."""
        self.log_from = os.fstat(self.log.fileno()).st_size

    def tail(self) -> str:
        """The end of what torch and the ranks of this trial printed."""
        size = os.fstat(self.log.fileno()).st_size
        text = os.pread(self.log.fileno(), LOG_TAIL, max(self.log_from, size - LOG_TAIL))
        return clean(text)


def _event(line: bytes) -> Event:
    """Foreign words enter here, and pass the gate."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if isinstance(event, dict) and isinstance(event.get("event"), str):
        return {name: clean(it) if isinstance(it, str) else it for name, it in event.items()}
    return {"event": "noise", "text": clean(line[:200])}


def _why_not(python: str, cwd: str | None, problem: OSError) -> str:
    if isinstance(problem, BlockingIOError):
        soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        return f"no further process may be started (RLIMIT_NPROC of this user is {soft})"
    if cwd is not None and not os.path.isdir(cwd):
        return f"there is no directory {cwd}"
    return f"{python} cannot be run: {problem.strerror}"
