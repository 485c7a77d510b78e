"""Imports torch once, then forks the ranks of each trial that is asked for, one line at a time.

Its parent is the guard, whose pipe is our standard input: a line holds one plan, its end is ours.
Standard library and torch 1.13 or newer, Python 3.8 or newer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, Dict  # noqa: UP035 - Python 3.8

Plan = Dict[str, Any]  # noqa: UP006 - Python 3.8
HERE = os.path.dirname(os.path.abspath(__file__))
OWN_STORE = ("this torch is too old to be given our socket: it opens its own store, which listens "
             "on every interface while the trial runs")  # fmt: skip
PATIENCE = 1.5
"""Seconds that the others have to say what they see after the first rank has failed."""


def load_rank() -> Any:
    """The neighbour by its path, so that this folder need not stand on sys.path."""
    spec = importlib.util.spec_from_file_location("ddp_assist_rank", os.path.join(HERE, "rank.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def import_torch(teller: Any, rank_module: Any) -> Any:
    """Whether it came; the first error of the chain is what is told."""
    with teller.stage("torch-import") as facts:
        import torch
        import torch.distributed

        facts["version"] = str(torch.__version__)
        facts["file"] = str(torch.__file__)
        if not torch.distributed.is_available():
            raise rank_module.Refused("no-distributed", "this torch was built without distributed")
    return torch


def check_backend(torch: Any, plan: Plan, rank_module: Any) -> None:
    """Whether this build of torch has the backend at all; GPUs are the ranks' business."""
    dist = torch.distributed
    if plan["backend"] == "nccl" and not dist.is_nccl_available():
        raise rank_module.Refused("no-nccl", f"torch {torch.__version__} was built without NCCL "
                                  f"(CUDA of the build: {torch.version.cuda})")
    known = getattr(dist, "is_gloo_available", lambda: True)
    if plan["backend"] == "gloo" and not known():
        raise rank_module.Refused("no-gloo", f"torch {torch.__version__} was built without gloo")


def resolve(plan: Plan) -> tuple[int, Any]:
    """The address that the name stands for, IPv4 first as gloo has it."""
    answers = socket.getaddrinfo(plan["addr"], plan["port"] or None, type=socket.SOCK_STREAM)
    answers.sort(key=lambda answer: answer[0] != socket.AF_INET)
    family, _, _, _, where = answers[0]
    plan["ip"] = where[0]
    return family, where


def listen(family: int, where: Any, world: int) -> socket.socket:
    """Our own socket on the chosen address alone, which the store is then given."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(where)
    listener.listen(max(64, world))
    return listener


def takes_a_socket(torch: Any) -> bool:
    """From 2.1 on a store can be given one; its signature is only found in what it tells of it."""
    return "master_listen_fd" in str(torch.distributed.TCPStore.__init__.__doc__)


class Ranks:
    """The processes of one trial, all of them children of this one."""

    def __init__(
        self, plan: Plan, teller: Any, rank_module: Any, listener: socket.socket | None, fork: bool
    ) -> None:
        self.plan, self.teller, self.rank_module = plan, teller, rank_module
        self.listener, self.fork = listener, fork
        self.alive: dict[int, int] = {}

    def start(self) -> bool:
        """Whether all of them could be started."""
        for rank in self.plan["ranks"]:
            fd = self.listener.fileno() if self.listener and rank == 0 else -1
            try:
                pid = os.fork()
            except OSError as problem:
                self.teller.say(event="stage", stage="python", state="failed", seconds=0.0,
                                rank=rank, kind="", errno=problem.errno, type="OSError",
                                error=f"fork: {problem}")
                return False
            if pid == 0:
                self.be(rank, fd)
            self.alive[pid] = rank
        return True

    def be(self, rank: int, fd: int) -> None:
        """In the new process: the rank itself, and never back."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.rank_module.ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != PARENT:
                os._exit(125)
            if self.listener and fd < 0:
                self.listener.close()
            if self.fork:
                self.rank_module.arm(self.plan)
                self.rank_module.play(self.plan, rank, fd if fd >= 0 else None,
                                      self.rank_module.Teller(self.teller.fd, rank))
                code = 0
            else:
                self.exec_fresh(rank, fd)
        except Exception as problem:  # noqa: BLE001 - told as a stage's failure, and it ends here
            sys.stderr.write(f"rank {rank}: {type(problem).__name__}: {problem}\n")
            sys.stderr.flush()
        finally:
            os._exit(code)

    def exec_fresh(self, rank: int, fd: int) -> None:
        for keep in (fd, self.teller.fd):
            if keep >= 0:
                os.set_inheritable(keep, True)
        plan = os.path.join(self.plan["shelter"], f"plan-{rank}.json")
        with open(plan, "w") as out:
            json.dump(self.plan, out)
        os.execv(sys.executable, [sys.executable, os.path.join(HERE, "rank.py"), plan, str(rank),
                                  str(fd), str(self.teller.fd)])

    def reap(self) -> bool:
        """Tell of each rank that ended; whether one of them failed."""
        failed = False
        while self.alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in self.alive:
                number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                code = -number if number else os.WEXITSTATUS(status)
                self.teller.say(event="exit", rank=self.alive.pop(pid), code=code)
                failed = failed or code != 0
        return failed

    def kill(self) -> None:
        for pid in self.alive:
            os.kill(pid, signal.SIGKILL)
        for pid in self.alive:
            os.waitpid(pid, 0)
        self.alive = {}


def until_over(ranks: Ranks, plan: Plan, wake: int, requests: Requests) -> None:
    """Wait for the ranks; a failed one leaves the others a moment to say what they see."""
    poll = select.poll()
    poll.register(wake, select.POLLIN)
    poll.register(0, select.POLLIN)
    until = plan["until"]
    while ranks.alive:
        left = until - time.monotonic()
        if left <= 0:
            break
        ready = dict(poll.poll(left * 1000 + 1))
        if wake in ready:
            os.read(wake, 512)
        if 0 in ready:
            requests.more()  # whatever is said during a trial, or the end of it, calls it off
            break
        if ranks.reap():
            until = min(until, time.monotonic() + PATIENCE)
    ranks.teller.say(event="left", ranks=sorted(ranks.alive.values()))


def hold(
    torch: Any, plan: Plan, teller: Any, rank_module: Any, wake: int, requests: Requests
) -> None:
    """One trial: what is asked once for all ranks, then the ranks."""
    listener = None
    with teller.stage("backend"):
        check_backend(torch, plan, rank_module)
    with teller.stage("name") as facts:
        family, where = resolve(plan)
        facts["ip"] = plan["ip"]
    if plan["init"] != "file" and 0 in plan["ranks"]:
        with teller.stage("listen") as facts:
            listener = listen(family, where, plan["world"])
            facts["port"] = plan["port"] = listener.getsockname()[1]
            if not takes_a_socket(torch):
                listener.close()
                listener, plan["own_store"] = None, True
                if not plan["ip"].startswith("127."):
                    raise rank_module.Refused("old-torch", f"torch {torch.__version__} cannot be "
                                              "given a socket, and listens on every interface")
                teller.say(event="note", note=OWN_STORE)
    fork = threads() == 1
    if not fork:
        teller.say(event="note", note="torch started threads on import, so that forking is not "
                   "safe: every rank is a fresh process")
    try:
        ranks = Ranks(plan, teller, rank_module, listener, fork)
        complete = ranks.start()
    finally:
        if listener:
            listener.close()
    if complete:
        until_over(ranks, plan, wake, requests)
    ranks.kill()


class Requests:
    """Lines of our standard input."""

    def __init__(self) -> None:
        self.pending = b""

    def more(self) -> bool:
        chunk = os.read(0, 65536)
        self.pending += chunk
        return chunk != b""

    def next(self) -> Any:
        while b"\n" not in self.pending:
            if not self.more():
                return None
        line, _, self.pending = self.pending.partition(b"\n")
        return json.loads(line.decode())


PARENT = os.getpid()


def main() -> None:
    rank_module = load_rank()
    events = os.dup(1)
    os.dup2(2, 1)  # what torch, gloo and NCCL print goes to the log and never among the events
    teller = rank_module.Teller(events)
    teller.say(event="stage", stage="python", state="passed", seconds=0.0,
               version=".".join(map(str, sys.version_info[:3])), executable=sys.executable)
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    torch = import_torch(teller, rank_module)
    requests = Requests()
    while True:
        request = requests.next()
        if request is None:
            os._exit(0)
        signal.alarm(int(request["limit"]) + 2)  # the guard's limit, should it be frozen
        if "plan" not in request:
            continue
        try:
            hold(torch, request["plan"], teller, rank_module, wake, requests)
        except (OSError, rank_module.Refused) as problem:  # told already, as a stage's failure
            sys.stderr.write(f"{type(problem).__name__}: {problem}\n")
            sys.stderr.flush()
        teller.say(event="over", trial=request["plan"]["id"])
        if request.get("once"):
            os._exit(0)


if __name__ == "__main__":
    main()
