"""One connection to each node, kept for all that is asked: ClusterShell over the user's own ssh."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ClusterShell.Event import EventHandler
from ClusterShell.Task import task_self
from ClusterShell.Worker.Exec import ExecWorker
from ClusterShell.Worker.Ssh import WorkerSsh

from ddp_assist.probes.fleet.parcel import MARK, boot, parcel
from ddp_assist.probes.text import clean

CONNECT = 5
START = 15.0
"""Seconds from the connection's begin to our program's first word."""
EACH = 0.3
"""Seconds more for each node: so many ssh clients take their time on a small host."""
MOST_SAID = 40

# What OpenSSH, shells and Python say, the first that fits; all of ssh's own end with code 255.
REASONS = (
    ("host-key-changed", r"REMOTE HOST IDENTIFICATION HAS CHANGED"),
    ("host-key-unknown", r"Host key verification failed|No \S+ host key is known"),
    ("name-unknown", r"Could not resolve hostname"),
    ("banner-timeout", r"timed out during banner exchange|Connection to \S+ port \d+ timed out"),
    ("timed-out", r"Connection timed out|Operation timed out"),
    ("refused", r"Connection refused"),
    ("no-route", r"No route to host|Network is unreachable"),
    ("password-wanted", r"Permission denied \(|Too many authentication failures"),
    ("closed", r"Connection closed by|kex_exchange_identification|Connection reset by"),
    ("python-too-old", r"python-too-old|SyntaxError"),
    ("no-python", r"python\S*: (?:command )?not found|No such file or directory: \S*python"
     r"|python\S*: No such file|Command .python\S*. not found|Unknown command:? \S*python"),
    ("no-room", r"No usable temporary directory|Read-only file system|No space left on device"),
    ("no-slurm-step", r"srun: error"),
)  # fmt: skip
SENTENCES = {
    "host-key-changed": "ssh refuses it, because its host key has changed: ssh-keygen -R {node}",
    "host-key-unknown": "ssh does not know its host key: log in once by hand",
    "name-unknown": "its name does not resolve here",
    "banner-timeout": "it takes the connection, but its ssh server says nothing",
    "timed-out": "ssh gets no answer: a firewall, or the host is down",
    "refused": "ssh is refused: no ssh server runs there",
    "no-route": "there is no route to it",
    "password-wanted": "ssh wants a password or another key: set up a key or an agent",
    "closed": "it closed the ssh connection at once",
    "python-too-old": "its Python is older than 3.10: name another one with --python",
    "no-python": "there is no Python by that name: name one with --python",
    "no-room": "its temporary folder can't be written to",
    "no-slurm-step": "Slurm started no step there",
    "hangs": "the log-in worked, but nothing was said in time: does its shell start-up hang?",
    "died": "the connection ended in the middle",
}


@dataclass(slots=True)
class Node:
    """What one node answered, by request, and why it fell silent."""

    name: str
    state: str = "asked"
    why: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    offset: float = 0.0
    """Seconds by which its clock is ahead of ours, good to the time the line took."""

    @property
    def alive(self) -> bool:
        return self.state == "ok"


class Fleet(EventHandler):  # type: ignore[misc]
    """Rounds of one question each: `ask` puts it to nodes, the next round begins when all said."""

    def __init__(self, names: Sequence[str], python: str = "python3", slurm: bool = False) -> None:
        self.nodes = {name: Node(name) for name in names}
        self.python, self.slurm = python, slurm
        self.token = secrets.token_hex(8)
        self.task = task_self()
        self.workers: dict[str, Any] = {}
        self.noise: dict[str, list[str]] = {name: [] for name in names}
        self.pending: set[str] = set()
        self.asked = "hello"
        self.next: Callable[[], None] = self.end
        self.timer: Any = None

    def run(self, then: Callable[[], None]) -> None:
        """Connects to all, calls `then` when each has said hello or failed; returns at the end."""
        self.task.set_info("fanout", max(64, len(self.nodes)))
        self.task.set_info("connect_timeout", CONNECT)
        self.task.set_info("ssh_options", "-oBatchMode=yes -oServerAliveInterval=5 -T")
        self.pending, self.next = set(self.nodes), then
        self._until(START + EACH * len(self.nodes))
        command = boot(self.python, self.token)
        for name in self.nodes:
            if self.slurm:
                step = ["srun", "--overlap", "-N1", "-n1", "-w", name, "-Q", "sh", "-c", command]
                worker: Any = ExecWorker(
                    name, handler=self, timeout=None, stderr=True,
                    command=" ".join(map(shlex.quote, step)),
                )  # fmt: skip
            else:
                worker = WorkerSsh(name, handler=self, timeout=None, command=command, stderr=True)
            self.workers[name] = worker
            self.task.schedule(worker)
            worker.write(parcel())
        try:
            self.task.run()
        finally:
            self.task.abort()

    def ask(
        self, question: str, seconds: float, then: Callable[[], None],
        each: Mapping[str, Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """The next round: `each` says what is asked of which node."""
        self.asked, self.next = question, then
        chosen = {name for name in each if self.nodes[name].alive}
        self.pending = set(chosen)
        self._until(seconds + EACH * len(self.nodes))
        for name in chosen:
            line = json.dumps({"do": question, **each[name]})
            self.workers[name].write(line.encode() + b"\n")
        self._over()

    def end(self) -> None:
        """Lets go of every lifeline; the agents leave by themselves."""
        self._until(5.0 + EACH * len(self.nodes))
        self.asked, self.next = "end", self.task.abort
        self.pending = {name for name, node in self.nodes.items() if node.alive}
        for name in self.pending:
            self.workers[name].set_write_eof()
        if not self.pending:
            self.task.abort()

    def alive(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.alive]

    def _until(self, seconds: float) -> None:
        if self.timer is not None:
            self.timer.invalidate()
        self.timer = self.task.timer(seconds, handler=self, autoclose=True)

    def _over(self) -> None:
        if not self.pending:
            self.next()

    def ev_timer(self, timer: Any) -> None:
        """Who has not answered by now is left behind; the others go on."""
        late, self.pending = self.pending, set()
        for name in late:
            node = self.nodes[name]
            if self.asked == "hello":
                self._lose(node, "hangs")
            elif self.asked != "end":
                node.answers.setdefault(self.asked, {"error": "it did not answer in time"})
        self.next()

    def _lose(self, node: Node, state: str) -> None:
        node.state = state
        node.why = SENTENCES[state].format(node=node.name)
        self.workers[node.name].abort()

    def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
        mark = f"{MARK}{self.token} ".encode()
        if sname == "stdout" and msg.startswith(mark):
            try:
                answer = json.loads(msg[len(mark) :])
            except (ValueError, RecursionError):
                return
            if isinstance(answer, dict):
                self._hear(self.nodes[node], answer)
        elif len(self.noise[node]) < MOST_SAID:
            self.noise[node].append(clean(msg[:400].decode("utf-8", "replace")))

    def _hear(self, node: Node, answer: dict[str, Any]) -> None:
        said = str(answer.get("did"))
        node.answers[said] = answer
        if said == "hello":
            node.state = "ok"
            node.offset = float(answer.get("time", 0.0)) - time.time()
        if said == self.asked and node.name in self.pending:
            self.pending.discard(node.name)
            self._over()

    def ev_hup(self, worker: Any, node: str, rc: int) -> None:
        known = self.nodes[node]
        if self.asked != "end" and known.state in ("asked", "ok"):
            known.state = reason(known.state, "\n".join(self.noise[node]))
            known.why = SENTENCES[known.state].format(node=node)
        if node in self.pending:
            self.pending.discard(node)
            self._over()


def reason(state: str, said: str) -> str:
    """Which way a connection failed, by what was said."""
    if state == "ok":
        return "died"
    return next((name for name, pattern in REASONS if re.search(pattern, said)), "died")
