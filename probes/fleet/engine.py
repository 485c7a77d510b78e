"""One connection to each node, kept for all that is asked: ClusterShell over the user's own ssh."""

from __future__ import annotations

import json
import logging
import resource
import secrets
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ClusterShell.Event import EventHandler
from ClusterShell.Task import task_self
from ClusterShell.Worker.Exec import ExecWorker
from ClusterShell.Worker.Ssh import WorkerSsh

from ddp_assist.probes.fleet.parcel import MARK, boot, parcel
from ddp_assist.probes.fleet.reasons import SENTENCES, reason
from ddp_assist.probes.text import clean

CONNECT = 5
START = 20.0
"""Seconds from the begin of a node's connection to our program's first word."""
EACH = 0.3
"""Seconds more for each node, to a limit: so many ssh clients take their time on a small host."""
MANY = 32
"""Log-ins at once; the next begins when one is through, so that each has its time."""
MOST_SAID = 40
# A connection that the user shares is used; none of ours is left behind for others to share.
SSH = (
    "-oBatchMode=yes -oServerAliveInterval=5 -oForwardX11=no -oClearAllForwardings=yes"
    " -oRemoteCommand=none -oControlMaster=no -T"
)
SRUN = ("srun", "--overlap", "--mem=0", "-N1", "-n1", "-Q")
Told = Callable[["Node", str], None]
# What ClusterShell would print of a broken connection is said in that node's line.
logging.getLogger("ClusterShell").setLevel(logging.CRITICAL)


@dataclass(slots=True)
class Node:
    """What one node answered, by request, and why it fell silent."""

    name: str
    state: str = "asked"
    why: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    begun: float = 0.0
    """When its connection began, by our clock."""
    offset: float = 0.0
    """Seconds by which its clock is ahead of ours, at least: how long a word takes is not known."""

    @property
    def alive(self) -> bool:
        return self.state == "ok"


class Fleet(EventHandler):  # type: ignore[misc]
    """All nodes at once: `ask` puts a question to some of them and returns when each has answered,
    fallen silent, or run out of time. ClusterShell's loop works in a thread of its own, in which
    `told` is called as each answer comes."""

    def __init__(
        self, names: Sequence[str], pythons: Sequence[str] = (), slurm: str | None = None,
        told: Told | None = None,
    ) -> None:  # fmt: skip
        """`slurm` is a job's number, empty for the allocation that we are in; None is ssh."""
        self.nodes = {name: Node(name) for name in names}
        self.command = boot(pythons, token := secrets.token_hex(8))
        self.mark = f"{MARK}{token} ".encode()
        self.slurm = slurm
        self.told = told
        self.workers: dict[str, Any] = {}
        self.noise: dict[str, list[str]] = {name: [] for name in names}
        self.first: tuple[str, Mapping[str, Mapping[str, Any]]] = ("", {})
        """A question, and how each node is asked it when it came, whoever is still awaited."""
        self.asked = "hello"
        self.pending = set(names)
        self.waiting = deque(names)
        self.begun: dict[str, float] = {}
        self.came = 0.0
        """When the last node came: as long as they do, this host is busy and nobody is late."""
        self.changed = threading.Condition()
        self.cancel = threading.Event()
        self.thread = threading.Thread(target=self._loop, name="fleet", daemon=True)
        self.ready = threading.Event()
        self.over = False

    def __enter__(self) -> Fleet:
        """Connects to all; returns when each has said hello or failed."""
        _room_for(len(self.nodes))
        self.thread.start()
        self.ready.wait()
        self._post(self._begin_some)
        self._wait(self._latest)
        return self

    def _latest(self, name: str) -> float:
        begun = self.begun.get(name, time.monotonic())
        return min(begun + self.slack, max(begun, self.came)) + START

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Lets go of every lifeline; the agents leave by themselves."""
        self.asked, self.pending = "end", set(self.alive())
        self._post(lambda: [self.workers[name].set_write_eof() for name in self.alive()])
        end = time.monotonic() + 5.0 + self.slack
        self._wait(lambda name: end)
        self._post(self.task.abort)
        self.thread.join(2.0)

    @property
    def slack(self) -> float:
        return EACH * min(len(self.nodes), 8 * MANY)

    def ask(self, question: str, seconds: float, each: Mapping[str, Mapping[str, Any]]) -> None:
        """`each` says what is asked of which node; the answers lie in the nodes then. What
        stands in `first` was asked by now."""
        alive = [name for name in each if self.nodes[name].alive]
        first, self.first = self.first[0], ("", {})
        with self.changed:
            if question != first:
                for name in alive:
                    self.nodes[name].answers.pop(question, None)
            self.asked = question
            self.pending = {n for n in alive if question not in self.nodes[n].answers}
        lines = {n: _line(question, each[n]) for n in alive if question != first}
        self._post(lambda: [self.workers[n].write(lines[n]) for n in lines if self._is_on(n)])
        end = time.monotonic() + seconds + self.slack
        self._wait(lambda name: end)

    def alive(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.alive]

    def stop(self) -> None:
        """From any thread: whoever waits for answers goes on without them."""
        self.cancel.set()
        with self.changed:
            self.changed.notify_all()

    def _is_on(self, name: str) -> bool:
        return self.nodes[name].alive

    def _wait(self, deadline: Callable[[str], float]) -> None:
        """Until nobody is waited for. Who is late is left behind; the others go on."""
        while True:
            with self.changed:
                now = time.monotonic()
                stop = self.over or (self.cancel.is_set() and self.asked != "end")
                late = {n for n in self.pending if stop or deadline(n) <= now}
                self.pending -= late
                if not self.pending and not late:
                    return
                if not late:
                    ends = min(map(deadline, self.pending))
                    self.changed.wait(min(1.0, max(0.01, ends - now)))
                    continue
            self._late(late)

    def _late(self, names: Iterable[str]) -> None:
        for name in names:
            node = self.nodes[name]
            if self.asked == "hello":
                said = "\n".join(self.noise[name])
                self._lose(node, reason("asked", said) if self.slurm is not None else "hangs")
                self._post(lambda name=name: self._abort(name))  # type: ignore[misc]
            elif self.asked != "end":
                why = "it was stopped" if self.cancel.is_set() else "it did not answer in time"
                node.answers.setdefault(self.asked, {"error": why})

    def _abort(self, name: str) -> None:
        if name in self.workers:
            self.workers[name].abort()
        self._begin_some()

    def _lose(self, node: Node, state: str) -> None:
        node.state = state
        node.why = SENTENCES[state].format(node=node.name)
        if self.told:
            self.told(node, "lost")

    # What follows runs in the thread of ClusterShell's loop.

    def _loop(self) -> None:
        self.task = task_self()
        try:
            self.task.set_info("fanout", len(self.nodes) + 1)
            self.task.set_info("connect_timeout", CONNECT)
            self.task.set_info("ssh_options", SSH)
            self.port = self.task.port(handler=self)
            self.ready.set()
            self.task.run()
        finally:
            self.ready.set()
            with self.changed:
                self.over = True
                self.changed.notify_all()
            self.task.abort(kill=True)

    def _post(self, do: Callable[[], object]) -> None:
        if not self.over:
            self.port.msg_send(do)

    def ev_msg(self, port: Any, msg: Callable[[], object]) -> None:
        msg()

    def _begin_some(self) -> None:
        while self.waiting and self._log_ins() < MANY and not self.cancel.is_set():
            self._begin(self.waiting.popleft())

    def _log_ins(self) -> int:
        return sum(1 for name in self.begun if self.nodes[name].state == "asked")

    def _begin(self, name: str) -> None:
        if self.slurm is None:
            worker: Any = WorkerSsh(
                name, handler=self, timeout=None, command=self.command, stderr=True
            )
        else:
            job = [f"--jobid={self.slurm}"] if self.slurm else []
            step = [*SRUN, *job, "-w", name, "sh", "-c", self.command]
            worker = ExecWorker(
                name, handler=self, timeout=None, stderr=True, command=shlex.join(step)
            )
        self.begun[name], self.nodes[name].begun = time.monotonic(), time.time()
        self.workers[name] = worker
        self.task.schedule(worker)
        worker.write(parcel())

    def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
        if sname == "stdout" and msg.startswith(self.mark):
            try:
                answer = json.loads(msg[len(self.mark) :])
            except (ValueError, RecursionError):
                return
            if isinstance(answer, dict):
                self._hear(self.nodes[node], answer)
        elif len(self.noise[node]) < MOST_SAID:
            self.noise[node].append(clean(msg[:400].decode("utf-8", "replace")))

    def _hear(self, node: Node, answer: dict[str, Any]) -> None:
        said = str(answer.get("did"))
        if said == "hello" and node.state == "asked":
            node.state = "ok"
            node.offset = apart(float(answer.get("time", 0.0)), node.begun, time.time())
            self.came = time.monotonic()
            question, each = self.first
            if node.name in each:
                self.workers[node.name].write(_line(question, each[node.name]))
            self._begin_some()
        node.answers[said] = answer
        if self.told:
            self.told(node, said)
        self._done_with(node.name, said)

    def ev_hup(self, worker: Any, node: str, rc: int) -> None:
        known = self.nodes[node]
        if self.asked != "end" and known.state in ("asked", "ok"):
            self._lose(known, reason(known.state, "\n".join(self.noise[node])))
        self._done_with(node, self.asked)
        self._begin_some()

    def _done_with(self, name: str, said: str) -> None:
        with self.changed:
            if said == self.asked:
                self.pending.discard(name)
                if not self.pending:
                    self.changed.notify_all()


def apart(there: float, begun: float, now: float) -> float:
    """By how much a clock is ahead that said `there` at a moment between the two others."""
    return there - min(max(there, begun), now)


def _line(question: str, asked: Mapping[str, Any]) -> bytes:
    return json.dumps({"do": question, **asked}).encode() + b"\n"


def _room_for(count: int) -> None:
    """Three files a connection: the soft limit is raised as far as that needs and we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * count + 256
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
