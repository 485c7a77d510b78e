"""The conversation with all nodes: look, reach for each other, meet; one connection each."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ddp_assist.probes.fleet import halves
from ddp_assist.probes.fleet.compare import compare, folded, kinds, merged, torch_version
from ddp_assist.probes.fleet.engine import Fleet, Node
from ddp_assist.probes.fleet.links import FULL, addresses, judge, main_address, pairs
from ddp_assist.probes.fleet.part import alike
from ddp_assist.probes.model import Evidence, Finding

DEFAULT_PORT = 29500
LOOK = 40.0
LINKS = 12.0
ALONE = 45.0
"""For one rank of each node by itself: torch is imported then."""
TRIAL = 10.0
"""For ranks that meet: torch is there by then."""
SLOWER = 30.0
"""Times what a rank took by itself, so that busy nodes are given more."""
MOST = 50.0
NARROW = 90.0
Words = Sequence[str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where ranks are to meet, and what is set on each node for it, over what the launch says."""

    address: str
    port: int
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    launches: Mapping[str, Words] = field(default_factory=dict)
    backend: str = "gloo"


@dataclass(slots=True)
class Meeting:
    """A context: the connections live as long. `told` hears of each answer as it comes."""

    names: Sequence[str]
    launch: Words = ()
    cwd: str = "/"
    pythons: Words = ()
    """Interpreters of the training environment, where it may lie on the nodes."""
    try_it: bool = True
    fleet: Fleet = field(kw_only=True)
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What each node is to see of the scheduler's variables."""
    modules: Mapping[str, Any] | None = None
    """What the script was seen to import here, for each node to look for."""
    ways: list[dict[str, Any]] = field(default_factory=list)
    tried: dict[str, dict[str, Any]] = field(default_factory=dict)
    able: list[str] = field(default_factory=list)
    """The nodes of a trial in the order of their ranks."""
    mains: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    """What some node takes a name for."""
    hub: str | None = None
    port: int = DEFAULT_PORT
    patience: float = TRIAL
    culprits: halves.Culprits | None = None
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def __enter__(self) -> Meeting:
        self.fleet.first = ("look", {name: self._asked(name) for name in self.names})
        self.fleet.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.fleet.__exit__(kind, fault, trace)

    @property
    def nodes(self) -> list[Node]:
        return [self.fleet.nodes[name] for name in self.names]

    @property
    def seen(self) -> list[str]:
        """Nodes whose answers can be used."""
        return [n.name for n in self.nodes if n.alive and "links" in n.answers.get("look", {})]

    def look_at(self, name: str) -> Mapping[str, Any]:
        look: Mapping[str, Any] = self.fleet.nodes[name].answers["look"]
        return look

    def hold(self) -> None:
        """Everything that is asked of nodes before anybody thinks of a cure."""
        self.look()
        if len(self.seen) > 1:
            self.find_hub()
            self.reach()
            if self.try_it:
                self.meet()

    def look(self) -> None:
        self.fleet.ask("look", LOOK, {name: self._asked(name) for name in self.fleet.alive()})

    def _asked(self, name: str, launch: Words | None = None) -> dict[str, Any]:
        return {
            "name": name,
            "launch": list(self.launch if launch is None else launch),
            "cwd": self.cwd,
            "pythons": list(self.pythons),
            "env": dict(self.env.get(name, {})),
            "names": list(self.names[:FULL]),
            "modules": self.modules,
            "seconds": LOOK - 5,
        }

    def look_again(self, launches: Mapping[str, Words], port: int) -> tuple[Finding, ...]:
        """What the nodes, their comparison and their ways say of other launches."""
        before = {name: self.look_at(name) for name in launches}
        self.fleet.ask("look", LOOK, {n: self._asked(n, words) for n, words in launches.items()})
        nodes = [self.fleet.nodes[name] for name in launches]
        mains = {n: main_address(self.fleet.nodes[n], self.known) for n in launches}
        ways = [w for w in self.ways if w["kind"] == "data" or w["port"] == port]
        found = (*compare(nodes), *judge(ways, mains, self.hub), *merged(nodes))
        for name, look in before.items():
            self.fleet.nodes[name].answers["look"] = look
        return found

    def find_hub(self) -> None:
        """The node where the ranks are to meet, and the address at which each node is known."""
        known = self.known
        for look in map(self.look_at, self.seen):
            for name, found in look["names"].items():
                for address in found:
                    if not address.startswith("127.") and address != "::1":
                        known.setdefault(name, address)
        self.mains = {n: main_address(self.fleet.nodes[n], known) for n in self.seen}
        owners = {a: n for n in reversed(self.seen) for a in addresses(self.look_at(n))}
        for look in map(self.look_at, self.seen):
            for host, port in look["endpoints"]:
                self.port = port or self.port
                at = known.get(host, host)
                mine = [n for n in self.seen if alike(host, n, self.look_at(n)["host"])]
                owner = owners.get(at) or next(iter(mine), None)
                if owner is not None:
                    self.hub = owner
                    return

    def reach(self) -> None:
        """Real connections between nodes, on the meeting port and on ports like gloo's."""
        self.ways += self.connections(pairs(self.seen, self.hub or self.seen[0]), [self.port])

    def connections(
        self, between: Sequence[tuple[str, str]], ports: Sequence[int], data: int = 1
    ) -> list[dict[str, Any]]:
        """From the first to the second of each pair: on `ports` at the hub, on others anywhere."""
        doors = {name for pair in between for name in pair}
        asked = {"token": self.token, "ports": list(ports), "data": data}
        self.fleet.ask("listen", LINKS, dict.fromkeys(doors, asked))
        open_at = {n: self.fleet.nodes[n].answers.get("listen", {}).get("doors", []) for n in doors}
        each: dict[str, dict[str, Any]] = {n: {"token": self.token, "doors": []} for n in doors}
        for one, other in between:
            each[one]["doors"] += [
                {**door, "from": one, "to": other}
                for door in open_at[other]
                if not (door["kind"] == "port" and self.hub not in (None, other))
            ]
        self.fleet.ask("connect", LINKS, {n: asked for n, asked in each.items() if asked["doors"]})
        return [
            way
            for name in doors
            for way in self.fleet.nodes[name].answers.get("connect", {}).get("ways", [])
        ]

    def gpus(self, name: str) -> int:
        return _gpus(self.fleet.nodes[name])

    @property
    def with_torch(self) -> list[str]:
        """Nodes that can take part in a trial, the hub first."""
        able = [n for n in self.seen if has_torch(self.fleet.nodes[n]) and self.mains.get(n)]
        return sorted(able, key=lambda name: name != self.hub) if len(able) <= FULL else []

    def place(self, hub: str, is_meant: bool = False) -> Place:
        """Where the launch would have them meet; its port only where nobody holds it. `is_meant`
        where it has been corrected to meet there."""
        held = [w for w in self.ways if w["to"] == hub and w["kind"] == "port" and w["taken"]]
        here = is_meant or self.hub == hub
        port = self.port if here and not held else 20000 + secrets.randbelow(9000)
        return Place(self.mains[hub], port)

    def meet(self) -> None:
        """Ranks of all nodes at once; where that fails, halves and pairs until one is named."""
        self.able = self.with_torch
        if len(self.able) < 2:
            return
        alone = [((name,), Place(self.mains[name], 0)) for name in self.able]
        self.tried = {n: a for one in self.trial(alone, ALONE) for n, a in one.items()}
        self.patience = min(MOST, TRIAL + SLOWER * max(map(_worked, self.tried.values())))
        if not joined(self.tried):
            self.culprits = halves.Culprits([n for n in self.able if not self._came(n)])
            self.able = [name for name in self.able if self._came(name)]
        if len(self.able) < 2:
            return
        place = self.place(self.able[0])
        self.tried |= self.trial([(tuple(self.able), place)], self.patience)[0]
        # Where a way is shut the trial only confirms it.
        shut = any(w["outcome"] != "reached" for w in self.ways if w["address"] == place.address)
        if not joined(self.tried) and not shut and self.culprits is None:
            self._narrow(place)
        if joined(self.tried) and all(_gpus(self.fleet.nodes[n]) for n in self.able):
            nccl = Place(place.address, place.port, place.env, place.launches, "nccl")
            self.tried = self.trial([(tuple(self.able), nccl)], MOST)[0]
            if not joined(self.tried):
                self._narrow(nccl)

    def _came(self, name: str) -> bool:
        return self.tried.get(name, {}).get("outcome") == "joined"

    def trial(
        self, groups: Sequence[tuple[halves.Group, Place]], seconds: float
    ) -> list[dict[str, dict[str, Any]]]:
        """Groups that share no node, each with a rendezvous of its own at its first node."""
        each: dict[str, dict[str, Any]] = {}
        for names, place in groups:
            spec = {
                "backend": place.backend,
                "nproc": len(names),
                "addr": place.address,
                "port": place.port,
                "key": secrets.token_hex(16),
                "deadline": seconds,
            }
            for rank, name in enumerate(names):
                env = {**place.env.get(name, {})}
                each[name] = {
                    **self._asked(name, place.launches.get(name)),
                    "spec": {**spec, "ranks": [rank], "env": env},
                }
        self.fleet.ask("trial", seconds + 5, each)
        return [
            {n: self.fleet.nodes[n].answers.get("trial", {"error": "it ended"}) for n in names}
            for names, _ in groups
        ]

    def _narrow(self, place: Place) -> None:
        end = time.monotonic() + NARROW

        def tries(groups: Sequence[halves.Group]) -> list[bool]:
            if time.monotonic() > end or self.fleet.cancel.is_set():
                raise halves.OutOfTime
            at = [
                (g, Place(self.mains[g[0]], place.port, place.env, place.launches, place.backend))
                for g in groups
            ]
            return [joined(answers) for answers in self.trial(at, self.patience)]

        self.culprits = halves.find(tuple(self.able), tries)

    def findings(self) -> tuple[Finding, ...]:
        met = self.tried if joined(self.tried) else ()
        found = [*compare(self.nodes, met), *judge(self.ways, self.mains, self.hub)]
        found += [*self._coverage(), *self._trial_said(), *merged(self.nodes)]
        if not any(f.probe == "fleet" for f in found):
            sentence = f"{folded(self.names)} are alike and reach each other"
            found.insert(0, Finding("fleet", "alike", sentence))
        return tuple(found)

    def _trial_said(self) -> Iterator[Finding]:
        if not self.tried:
            return
        failed = {n: a for n, a in self.tried.items() if a.get("outcome") != "joined"}
        backend = next((a["backend"] for a in self.tried.values() if "backend" in a), "gloo")
        data = {"nodes": list(self.tried), "failed": list(failed), "backend": backend}
        if not failed:
            sentence = f"{backend} ranks on {folded(self.tried)} met and reduced"
            yield Finding("fleet", "trial-joined", sentence, data)
            return
        lines = [f"{n}: {a.get('sentence') or a.get('error')}" for n, a in failed.items()]
        absent = {n for a in failed.values() for n in _missing(a, list(self.tried))}
        who = f" (missing: {folded(absent)})" if 0 < len(absent) < len(self.tried) else ""
        sentence = f"{backend} ranks did not meet{who}: {lines[0]}"
        yield Finding("fleet", "trial-failed", sentence, data, (Evidence("a trial", tuple(lines)),))
        if self.culprits is not None:
            yield from self._named(self.culprits)

    def _named(self, culprits: halves.Culprits) -> Iterator[Finding]:
        evidence = (Evidence("trials of halves and pairs", tuple(culprits.lines[:40])),)
        for name in culprits.nodes:
            rest = f"; {folded(culprits.without)} meet without it" if culprits.without else ""
            said = self.tried.get(name, {}).get("sentence") or ""
            sentence = f"{name} is the one that can't meet the others{rest}: {said}".rstrip(": ")
            yield Finding("fleet", "culprit-node", sentence, {"node": name}, evidence)
        for one, other in culprits.links:
            sentence = f"{one} and {other} do not meet each other"
            if len(self.able) > 2:
                sentence += ", though each of them meets others"
            data = {"from": one, "to": other}
            yield Finding("fleet", "culprit-link", sentence, data, evidence)
        torch = {name: torch_version(self.look_at(name)) for name in self.able}
        well = {torch[name] for name in culprits.without}
        odd = {torch.get(name, "") for name in culprits.nodes}
        if len(well) == 1 and len(odd) == 1 and odd.isdisjoint(well | {""}):
            who, others = folded(culprits.nodes), folded(culprits.without)
            sentence = (
                f"{who} with torch {min(odd)} can't meet {others} with {min(well)}, which meet"
            )
            told = {"nodes": culprits.nodes, "version": min(odd), "others": min(well)}
            yield Finding("fleet", "torch-parts-them", sentence, told, evidence)

    def _coverage(self) -> Iterator[Finding]:
        seen = len(self.seen)
        if seen > FULL:
            tried = len({(w["from"], w["to"]) for w in self.ways})
            sentence = f"{tried} of {seen * (seen - 1)} pairs were tried: hub, ring and random ones"
            yield Finding("fleet", "coverage", sentence, {"tried": tried})

    def table(self) -> list[dict[str, Any]]:
        groups = kinds(self.nodes)
        return [
            {"node": n.name, "state": n.state, "group": group, "why": n.why or apart}
            for n in self.nodes
            for group, apart in [groups.get(n.name, (None, ""))]
        ]

    def links(self) -> list[dict[str, Any]]:
        keys = ("from", "to", "port", "outcome", "address", "link", "kind")
        return [{key: way[key] for key in keys} for way in self.ways]


def joined(answers: Mapping[str, Mapping[str, Any]]) -> bool:
    return bool(answers) and all(a.get("outcome") == "joined" for a in answers.values())


def _worked(answer: Mapping[str, Any]) -> float:
    """Seconds that a rank was at work, the start of its interpreter and of torch left out."""
    stages = answer.get("stages", ())
    return float(sum(s["seconds"] for s in stages if s["stage"] not in ("python", "torch-import")))


def _missing(answer: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The nodes of the ranks that one node's trial did not see come."""
    ranks = answer.get("missing") or ()
    return [names[rank] for rank in ranks if isinstance(rank, int) and 0 <= rank < len(names)]


def has_torch(node: Node) -> bool:
    return bool(torch_version(node.answers["look"]))


def _gpus(node: Node) -> int:
    """GPUs that NVML has seen well, with a torch that has NCCL."""
    found = node.answers["look"]["findings"]
    nccl = any(f["probe"] == "torch" and f["data"].get("nccl_version") for f in found)
    counts = [f["data"].get("count") or 0 for f in found if f["probe"] == "gpu"]
    return max(counts, default=0) if nccl else 0
