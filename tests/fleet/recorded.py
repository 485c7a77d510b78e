"""Many nodes behind a stub of the connections: each question is answered from a recorded answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ddp_assist.app.diagnose import Question
from ddp_assist.app.fleet import Hosts
from ddp_assist.probes.fleet.engine import Node

LOOK = json.loads(Path(__file__).with_name("recorded_look.json").read_text())
"""What one node of the bed told, healthy, with a launch."""
ODD = {"torch": 7, "silent": 11, "dead": 13}
"""By number: the node with another torch, the one that nobody reaches, the one that never came."""


class Recorded:
    """Answers as a `Fleet` does, at once."""

    def __init__(self, names: list[str]) -> None:
        self.nodes = {name: Node(name) for name in names}
        self.number = {name: at for at, name in enumerate(names)}
        self.cancel = threading.Event()
        self.told: Any = None
        self.thread = SimpleNamespace()

    def __enter__(self) -> Recorded:
        for name, node in self.nodes.items():
            dead = self.number[name] == ODD["dead"]
            node.state, node.why = ("timed-out", "no answer") if dead else ("ok", "")
        return self

    def __exit__(self, *_: object) -> None:
        return

    def alive(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.alive]

    def stop(self) -> None:
        self.cancel.set()

    def ask(self, question: str, seconds: float, each: Mapping[str, Mapping[str, Any]]) -> None:
        for name, asked in each.items():
            answer = getattr(self, question)(name, asked)
            # Through JSON, as over a connection: nothing is shared between the nodes.
            self.nodes[name].answers[question] = json.loads(json.dumps(answer))
            if self.told:
                self.told(self.nodes[name], question)

    def address(self, name: str) -> str:
        number = self.number[name] + 1
        return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"

    def look(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        text = json.dumps(LOOK).replace("10.99.0.1", self.address(name)).replace("node1", "n0")
        if self.number[name] == ODD["torch"]:
            text = text.replace("2.13.0", "2.4.1")
        own, master = self.address(name), self.address("n0")
        told = {"host": name, "reached-at": [own], "names": {"n0": [master]}}
        return {**json.loads(text), **told}

    def listen(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        doors = [("port", port) for port in asked["ports"]] + [("data", 40000)]
        at = {"link": "eth0", "address": self.address(name), "taken": ""}
        return {"doors": [{**at, "port": port, "kind": kind} for kind, port in doors]}

    def connect(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "ways": [
                {**door, "outcome": "silent" if self.number[door["to"]] == ODD["silent"]
                 else "reached"}
                for door in asked["doors"]
            ]
        }  # fmt: skip


def hosts(count: int) -> Hosts:
    """Nodes n0 to n(count-1), of which three are odd."""
    line = "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint n0:29500 train.py"
    names = [f"n{number}" for number in range(count)]
    many = Hosts(Question(launch=(line,), env={}), names, trial=False)
    many.meeting.fleet = Recorded(names)  # type: ignore[assignment]
    return many
