"""What the nodes answered, laid side by side: the odd one out first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ClusterShell.NodeSet import NodeSet

from ddp_assist.probes.fleet.engine import Node
from ddp_assist.probes.model import Evidence, Finding, unknown

CLOCK = 5.0
"""Seconds apart that confuse nobody's reading of the logs."""
# Different on purpose: each node's own address, device or rank.
OWN = ("NCCL_HOSTID", "NCCL_TOPO_FILE", "TORCHELASTIC_", "MASTER_")


def folded(names: Iterable[str]) -> str:
    return str(NodeSet.fromlist(list(names)))


def groups(values: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Equal values with their nodes, the rarest first."""
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    return sorted(by_value.items(), key=lambda item: (len(item[1]), item[1]))


def compare(nodes: Sequence[Node]) -> Iterator[Finding]:
    for node in nodes:
        if not node.alive:
            yield unknown("fleet", f"{node.name}: {node.why}", node=node.name, state=node.state)
    seen = {n.name: n.answers["look"] for n in nodes if "findings" in n.answers.get("look", {})}
    for node in nodes:
        if node.alive and node.name not in seen:
            why = node.answers.get("look", {}).get("error", "it told nothing")
            yield unknown("fleet", f"{node.name}: {why}", node=node.name)
    if len(seen) < 2:
        return
    yield from _versions(seen)
    yield from _environment(seen)
    yield from _roles(seen)
    yield from _names(seen)
    yield from _mtu(seen)
    offsets = [n.offset for n in nodes if n.name in seen]
    if max(offsets) - min(offsets) > CLOCK:
        odd = max((n for n in nodes if n.name in seen), key=lambda n: abs(n.offset))
        sentence = f"the clocks differ: that of {odd.name} is off by {odd.offset:+.0f} s"
        yield Finding("fleet", "time-offset", sentence, {"node": odd.name, "seconds": odd.offset})


def _differ(outcome: str, what: str, values: Mapping[str, str], **data: Any) -> Iterator[Finding]:
    parts = groups(values)
    if len(parts) > 1:
        shown = "; ".join(f"{value or 'none'} on {folded(names)}" for value, names in parts[:6])
        told = {"what": what, "groups": [[folded(names), value] for value, names in parts]}
        evidence = Evidence("compared", tuple(f"{folded(n)}: {v}" for v, n in parts[:16]))
        sentence = f"{what} differs: {shown}"
        yield Finding("fleet", outcome, sentence, {**told, **data}, (evidence,))


def _fact(answer: Mapping[str, Any], probe: str, key: str) -> str:
    for finding in answer["findings"]:
        if finding["probe"] == probe and finding["data"].get(key) is not None:
            return str(finding["data"][key])
    return ""


def _versions(seen: Mapping[str, Any]) -> Iterator[Finding]:
    torch = {name: _fact(a, "torch", "version") for name, a in seen.items()}
    yield from _differ("torch-differs", "the version of torch", torch)
    for key, what in (("nccl_version", "the version of NCCL"), ("cuda", "CUDA of torch")):
        values = {name: _fact(a, "torch", key) for name, a in seen.items() if torch[name]}
        yield from _differ("nccl-differs", what, values)
    yield from _differ("python-differs", "Python", {n: a["python"] for n, a in seen.items()})
    machines = {n: a["machine"] for n, a in seen.items()}
    yield from _differ("machine-differs", "the architecture", machines)


def _environment(seen: Mapping[str, Any]) -> Iterator[Finding]:
    names = sorted({key for a in seen.values() for key in a["env"] if not key.startswith(OWN)})
    for variable in names:
        values = {name: a["env"].get(variable, "") for name, a in seen.items()}
        outcome = "nccl-env-differs" if variable.startswith(("NCCL_", "UCX_", "FI_")) else "env"
        outcome = "env-differs" if outcome == "env" else outcome
        yield from _differ(outcome, variable, values, variable=variable)


def _roles(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What each node was told about its part of the job; a plan for another host is not its."""
    plans: dict[str, Mapping[str, Any]] = {}
    for name, answer in seen.items():
        mine = [p for p in answer["plans"] if p["nnodes"] and p["host"] in (None, name)]
        if mine:
            plans[name] = mine[-1]  # a live launcher says more than a text
    if len(plans) < 2:
        return
    sizes = {name: str(plan["nnodes"][1]) for name, plan in plans.items()}
    yield from _differ("nnodes-disagree", "the number of nodes told", sizes)
    ids = {name: str(plan["rdzv_id"] or "") for name, plan in plans.items()}
    if any(plan["backend"] for plan in plans.values()):
        yield from _differ("rdzv-id-differs", "the rendezvous id", ids)
    ends = {name: str(plan["endpoint"]) for name, plan in plans.items()}
    yield from _differ("endpoint-differs", "the rendezvous endpoint", ends)
    if any(plan["backend"] in ("c10d", "etcd", "etcd-v2") for plan in plans.values()):
        return  # there the node rank is only a wish
    ranks: dict[int, list[str]] = {}
    for name, plan in plans.items():
        if plan["rank_of_another"]:
            return
        ranks.setdefault(plan["node_rank"] or 0, []).append(name)
    for rank, names in sorted(ranks.items()):
        if len(names) > 1:
            data = {"node_rank": rank, "nodes": names, "free": _free(ranks, len(plans))}
            sentence = f"node rank {rank} was given to {folded(names)}"
            yield Finding("fleet", "node-rank-duplicated", sentence, data)
    most = max(plan["nnodes"][1] for plan in plans.values())
    for rank, names in sorted(ranks.items()):
        if not 0 <= rank < most:
            sentence = f"{folded(names)} has node rank {rank}, but there are {most} nodes"
            data = {"node_rank": rank, "nnodes": most, "nodes": names}
            yield Finding("fleet", "node-rank-out-of-range", sentence, data)


def _free(ranks: Mapping[int, Sequence[str]], count: int) -> list[int]:
    return [rank for rank in range(count) if rank not in ranks]


def _names(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What every node takes every name for; a node's own word of itself is its probe's business."""
    for name in sorted({n for a in seen.values() for n in a["names"]}):
        told = {
            who: " ".join(a["names"].get(name, ())) for who, a in seen.items() if who != name
        }
        yield from _differ("name-differs", f"the address of {name}", told, name=name)


def _mtu(seen: Mapping[str, Any]) -> Iterator[Finding]:
    links = sorted({i["name"] for a in seen.values() for i in a["links"] if not i["virtual"]})
    for link in links:
        values = {
            name: next((str(i["mtu"]) for i in a["links"] if i["name"] == link), "")
            for name, a in seen.items()
        }
        yield from _differ("link-differs", f"the MTU of {link}", values, interface=link)


def merged(nodes: Sequence[Node]) -> Iterator[Finding]:
    """The probes' own findings: the same answer of several nodes is one finding."""
    known: dict[tuple[str, str, str], tuple[Mapping[str, Any], list[str]]] = {}
    for node in nodes:
        for raw in node.answers.get("look", {}).get("findings", ()):
            key = raw["probe"], raw["outcome"], raw["sentence"]
            known.setdefault(key, (raw, []))[1].append(node.name)
    for (probe, outcome, sentence), (raw, names) in known.items():
        lines = tuple(
            Evidence(e["source"], tuple(e["lines"]), tuple(e["see"]), e["when"])
            for e in raw["evidence"]
        )
        data = {**raw["data"], "nodes": names, "node": names[0]}
        yield Finding(
            probe, outcome, f"{folded(names)}: {sentence}", data, lines, raw["seconds"]
        )


def kinds(nodes: Sequence[Node]) -> dict[str, str]:
    """The group of each node: those that answered alike carry one letter, the rarest A."""
    alike = {
        node.name: repr(
            sorted(
                (f["probe"], f["outcome"])
                for f in node.answers["look"].get("findings", ())
                if f["outcome"] != "unknown"
            )
        )
        + repr([_fact(node.answers["look"], "torch", k) for k in ("version", "nccl_version")])
        for node in nodes
        if "findings" in node.answers.get("look", {})
    }
    return {
        name: chr(ord("A") + place) if place < 26 else f"Z{place}"
        for place, (_, names) in enumerate(groups(alike))
        for name in names
    }
