"""The conversation with all nodes: look, listen, connect, try; one connection each throughout."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddp_assist.probes.fleet.compare import compare, folded, kinds, merged
from ddp_assist.probes.fleet.engine import Fleet, Node
from ddp_assist.probes.fleet.links import FULL, judge, main_address, pairs
from ddp_assist.probes.model import Evidence, Finding

DEFAULT_PORT = 29500
LOOK = 40.0
LINKS = 12.0
TRIAL = 30.0


@dataclass(slots=True)
class Meeting:
    """What is asked of the nodes, and what came of it."""

    names: Sequence[str]
    launch: Sequence[str] = ()
    cwd: str = "/"
    python: str = "python3"
    slurm: bool = False
    try_it: bool = True
    ways: list[dict[str, Any]] = field(default_factory=list)
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)
    able: list[str] = field(default_factory=list)
    """The nodes of a trial in the order of their ranks."""
    mains: dict[str, str] = field(default_factory=dict)
    hub: str | None = None
    port: int | None = DEFAULT_PORT
    fleet: Fleet = field(init=False)
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.names, self.python, self.slurm)

    @property
    def nodes(self) -> list[Node]:
        return [self.fleet.nodes[name] for name in self.names]

    def hold(self) -> tuple[Finding, ...]:
        self.fleet.run(self._look)
        found = [*compare(self.nodes), *judge(self.ways, self.mains, self.hub), *self._coverage()]
        found += [*self._trial_said(), *merged(self.nodes)]
        if not any(f.probe == "fleet" for f in found):
            sentence = f"{folded(self.names)} are alike and reach each other"
            found.insert(0, Finding("fleet", "alike", sentence))
        return tuple(found)

    def _look(self) -> None:
        asked = {
            "launch": list(self.launch),
            "cwd": self.cwd,
            "python": "" if self.python == "python3" else self.python,
            "names": list(self.names),
            "seconds": LOOK - 5,
        }
        self.fleet.ask("look", LOOK, self._listen, dict.fromkeys(self.fleet.alive(), asked))

    def _seen(self) -> list[str]:
        """Nodes whose answers can be used."""
        nodes = self.fleet.nodes
        return [n for n in self.fleet.alive() if "links" in nodes[n].answers.get("look", {})]

    def _listen(self) -> None:
        seen = self._seen()
        if len(seen) < 2:
            self.fleet.end()
            return
        self._find_hub(seen)
        asked = {"token": self.token, "port": self.port}
        self.fleet.ask("listen", LINKS, self._connect, dict.fromkeys(seen, asked))

    def _find_hub(self, seen: Sequence[str]) -> None:
        """The node where the ranks are to meet, and the address at which each node is known."""
        looks = {name: self.fleet.nodes[name].answers["look"] for name in seen}
        known: dict[str, str] = {}
        for look in looks.values():
            for name, addresses in look["names"].items():
                for address in addresses:
                    if not address.startswith("127.") and address != "::1":
                        known.setdefault(name, address)
        self.mains = {name: main_address(self.fleet.nodes[name], known) for name in seen}
        for look in looks.values():
            for host, port in look["endpoints"]:
                at = known.get(host, host)
                owner = [n for n in seen if host == n or at in _addresses(looks[n])]
                if owner:
                    self.hub, self.port = owner[0], port or DEFAULT_PORT
                    return

    def _connect(self) -> None:
        doors = {
            name: self.fleet.nodes[name].answers.get("listen", {}).get("doors", [])
            for name in self._seen()
        }
        each: dict[str, dict[str, Any]] = {
            name: {"token": self.token, "doors": []} for name in doors
        }
        for one, other in pairs(list(doors), self.hub or next(iter(doors))):
            each[one]["doors"] += [
                {**door, "from": one, "to": other}
                for door in doors[other]
                if not (door["kind"] == "port" and self.hub not in (None, other))
            ]
        self.fleet.ask("connect", LINKS, self._try, each)

    def _try(self) -> None:
        for name in self._seen():
            self.ways += self.fleet.nodes[name].answers.get("connect", {}).get("ways", [])
        seen = self._seen()
        able = [n for n in seen if _has_torch(self.fleet.nodes[n])]
        if not self.try_it or len(able) < 2 or len(able) > FULL:
            self.fleet.end()
            return
        hub = self.hub if self.hub in able else able[0]
        able.sort(key=lambda name: name != hub)
        spec = {
            "nproc": len(able),
            "addr": self.mains[hub],
            "port": 20000 + secrets.randbelow(9000),
            "key": secrets.token_hex(16),
            # Where a way is shut the trial only confirms it.
            "deadline": 10.0 if any(w["outcome"] != "reached" for w in self.ways) else TRIAL - 5,
        }
        self.able = able
        each = {name: {"spec": {**spec, "ranks": [rank]}} for rank, name in enumerate(able)}
        self.fleet.ask("trial", TRIAL, self._done, each)

    def _done(self) -> None:
        for name in self.able:
            answer = self.fleet.nodes[name].answers.get("trial")
            self.tried[name] = answer or {"error": "the connection ended"}
        self.fleet.end()

    def _trial_said(self) -> Iterator[Finding]:
        if not self.tried:
            return
        failed = {n: a for n, a in self.tried.items() if a.get("outcome") != "joined"}
        data = {"nodes": list(self.tried), "failed": list(failed)}
        if not failed:
            sentence = f"gloo ranks on {folded(self.tried)} met and reduced"
            yield Finding("fleet", "trial-joined", sentence, data)
            return
        lines = [f"{n}: {a.get('sentence') or a.get('error')}" for n, a in failed.items()]
        absent = {n for a in failed.values() for n in _missing(a, list(self.tried))}
        who = f" (missing: {folded(absent)})" if 0 < len(absent) < len(self.tried) else ""
        sentence = f"gloo ranks did not meet{who}: {lines[0]}"
        yield Finding("fleet", "trial-failed", sentence, data, (Evidence("a trial", tuple(lines)),))

    def _coverage(self) -> Iterator[Finding]:
        seen = len(self._seen())
        if seen > FULL:
            tried = len({(w["from"], w["to"]) for w in self.ways})
            sentence = f"{tried} of {seen * (seen - 1)} pairs were tried: hub, ring and random ones"
            yield Finding("fleet", "coverage", sentence, {"tried": tried})

    def table(self) -> list[dict[str, Any]]:
        groups = kinds(self.nodes)
        return [
            {"node": n.name, "state": n.state, "group": groups.get(n.name), "why": n.why}
            for n in self.nodes
        ]

    def links(self) -> list[dict[str, Any]]:
        keys = ("from", "to", "port", "outcome", "address", "link", "kind")
        return [{key: way[key] for key in keys} for way in self.ways]


def _missing(answer: dict[str, Any], names: Sequence[str]) -> list[str]:
    """The nodes of the ranks that one node's trial did not see come."""
    ranks = answer.get("missing") or ()
    return [names[rank] for rank in ranks if isinstance(rank, int) and 0 <= rank < len(names)]


def _addresses(look: Any) -> set[str]:
    return {address for link in look["links"] for address in link["addresses"]}


def _has_torch(node: Node) -> bool:
    return any(
        f["probe"] == "torch" and f["data"].get("version")
        for f in node.answers["look"]["findings"]
    )
