"""What the nodes answered, laid side by side: the odd one out first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from ClusterShell.NodeSet import NodeSet

from ddp_assist.probes.fleet.engine import Node
from ddp_assist.probes.fleet.part import alike
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, unknown

CLOCK = 5.0
"""Seconds apart that confuse nobody's reading of the logs."""
# Different on purpose: each node's own address, device or rank.
OWN = ("NCCL_HOSTID", "NCCL_TOPO_FILE", "TORCHELASTIC_", "MASTER_")
WORDINGS = 8

LIMITS = (
    ("limits", "nofile", "the limit of open files"),
    ("limits", "memlock", "the limit of locked memory"),
    ("shm", "size", "the size of /dev/shm"),
)


def folded(names: Iterable[str]) -> str:
    return _folded(tuple(names))


@lru_cache(maxsize=64)
def _folded(names: tuple[str, ...]) -> str:
    return str(NodeSet.fromlist(names))


def groups(values: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Equal values with their nodes, the rarest first."""
    by_value: dict[str, list[str]] = {}
    for name, value in values.items():
        by_value.setdefault(value, []).append(name)
    return sorted(by_value.items(), key=lambda item: (len(item[1]), item[1]))


def compare(nodes: Sequence[Node], met: Container[str] = ()) -> Iterator[Finding]:
    """`met` are nodes whose ranks have met in a trial."""
    yield from _silent(nodes)
    seen = {n.name: n.answers["look"] for n in nodes if "findings" in n.answers.get("look", {})}
    if len(seen) < 2:
        return
    yield from _versions(seen, met)
    gpus = {name: _gpu(a) for name, a in seen.items()}
    if any(gpus.values()):
        yield from _differ("gpus-differ", "what NVML sees", gpus)
    yield from _modules(seen)
    yield from _limits(seen)
    yield from _environment(seen)
    yield from _roles(seen)
    yield from _names(seen)
    yield from _mtu(seen)
    offsets = [n.offset for n in nodes if n.name in seen]
    if max(offsets) - min(offsets) > CLOCK:
        odd = max((n for n in nodes if n.name in seen), key=lambda n: abs(n.offset))
        sentence = f"the clocks differ: that of {odd.name} is off by {odd.offset:+.0f} s"
        yield Finding("fleet", "time-offset", sentence, {"node": odd.name, "seconds": odd.offset})


def _silent(nodes: Sequence[Node]) -> Iterator[Finding]:
    """Who did not come, and who came and told nothing; those with the same reason in one line."""
    known: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        look = node.answers.get("look", {})
        if not node.alive:
            known.setdefault((node.state, node.why.replace(node.name, "{node}")), []).append(node)
        elif "findings" not in look:
            why = str(look.get("error", "it told nothing"))
            known.setdefault(("mute", why), []).append(node)
    for (state, why), mute in known.items():
        names = [node.name for node in mute]
        said = f"{folded(names)}: {why.replace('{node}', names[0])}"
        yield unknown("fleet", said, node=names[0], nodes=names, state=state)


def _differ(outcome: str, what: str, values: Mapping[str, str], **data: Any) -> Iterator[Finding]:
    parts = groups(values)
    if len(parts) > 1:
        shown = "; ".join(f"{value or 'none'} on {folded(names)}" for value, names in parts[:6])
        told = {"what": what, "groups": [[folded(names), value] for value, names in parts]}
        evidence = Evidence("compared", tuple(f"{folded(n)}: {v}" for v, n in parts[:16]))
        sentence = f"{what} differs: {shown}"
        yield Finding("fleet", outcome, sentence, {**told, **data}, (evidence,))


def torch_version(answer: Mapping[str, Any]) -> str:
    return _fact(answer, "torch", "version")


def _fact(answer: Mapping[str, Any], probe: str, key: str) -> str:
    for finding in answer["findings"]:
        if finding["probe"] == probe and finding["data"].get(key) is not None:
            return str(finding["data"][key])
    return ""


def _versions(seen: Mapping[str, Any], met: Container[str]) -> Iterator[Finding]:
    torch = {name: torch_version(a) for name, a in seen.items()}
    # Those of neighbouring releases mostly understand each other.
    outcome = "torch-differs-and-meets" if all(n in met for n in seen) else "torch-differs"
    yield from _differ(outcome, "the version of torch", torch)
    nccl = {name: _fact(a, "torch", "nccl_version") for name, a in seen.items() if torch[name]}
    yield from _differ("nccl-differs", "the version of NCCL", nccl)
    cuda = {name: _fact(a, "torch", "cuda") for name, a in seen.items() if torch[name]}
    yield from _differ("cuda-differs", "CUDA of torch", cuda)
    yield from _differ("python-differs", "Python", {n: a["python"] for n, a in seen.items()})
    machines = {n: a["machine"] for n, a in seen.items()}
    yield from _differ("machine-differs", "the architecture", machines)


def _modules(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """A module that some nodes lack, or all: there the script ends before the ranks meet."""
    told = {name: said for name, a in seen.items() if (said := a.get("modules"))}
    for module in dict.fromkeys(m for said in told.values() for m in said["lacks"]):
        lack = [name for name, said in told.items() if module in said["lacks"]]
        have = [name for name in told if name not in lack]
        first = told[lack[0]]
        provider = next((p for n in have if (p := told[n]["has"].get(module))), None)
        where, python = first["lacks"][module], brief(first["python"])
        sentence = f"{where} imports {module}, which {python} lacks on {folded(lack)}"
        if have:
            sentence += f"; {folded(have)} has it" + (f" ({brief(provider)})" if provider else "")
        data = {"module": module, "interpreter": python, "nodes": folded(lack),
                "node": lack[0], "where": where, "provider": provider}  # fmt: skip
        yield Finding("fleet", "module-missing", sentence, data)


def _limits(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """Limits and shared memory that hold on some nodes only explain why only some ranks fail."""
    for probe, key, what in LIMITS:
        values = {name: _fact(answer, probe, key) for name, answer in seen.items()}
        yield from _differ("limits-differ", what, values)


def _environment(seen: Mapping[str, Any]) -> Iterator[Finding]:
    names = sorted({key for a in seen.values() for key in a["env"] if not key.startswith(OWN)})
    for variable in names:
        values = {name: a["env"].get(variable, "") for name, a in seen.items()}
        outcome = "nccl-env-differs" if variable.startswith(("NCCL_", "UCX_", "FI_")) else "env"
        outcome = "env-differs" if outcome == "env" else outcome
        yield from _differ(outcome, variable, values, variable=variable)


def own_plan(name: str, answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a node was told of its part; a live launcher says more than a text."""
    here = {address for link in answer["links"] for address in link["addresses"]}
    mine = [
        plan
        for plan in answer["plans"]
        if plan["host"] is None or plan["host"] in here
        or alike(plan["host"], name, answer.get("host", name))
    ]  # fmt: skip
    told = [plan for plan in mine if plan["nnodes"]]
    return told[-1] if told else None


def _roles(seen: Mapping[str, Any]) -> Iterator[Finding]:
    """What each node was told about its part of the job."""
    found = {name: own_plan(name, answer) for name, answer in seen.items()}
    plans = {name: plan for name, plan in found.items() if plan is not None}
    if len(plans) < 2:
        return
    ranks_told = any(plan.get("ranks") for plan in plans.values())
    what = "WORLD_SIZE" if ranks_told else "the number of nodes told"
    sizes = {name: str(plan["nnodes"][1]) for name, plan in plans.items()}
    yield from _differ("nnodes-disagree", what, sizes)
    ids = {name: str(plan["rdzv_id"] or "") for name, plan in plans.items()}
    if any(plan["backend"] for plan in plans.values()):
        yield from _differ("rdzv-id-differs", "the rendezvous id", ids)
    yield from _meeting_place(seen, plans)
    if any(plan["backend"] in ("c10d", "etcd", "etcd-v2") for plan in plans.values()):
        return  # there the node rank is only a wish
    ranks: dict[int, list[str]] = {}
    for name, plan in plans.items():
        if plan["rank_of_another"]:
            return
        if plan.get("rank_by_task"):
            continue  # the scheduler fills it in when it starts each node's task
        if plan["node_rank"] is not None or not ranks_told:
            ranks.setdefault(plan["node_rank"] or 0, []).append(name)
    word = "RANK" if ranks_told else "node rank"
    for rank, names in sorted(ranks.items()):
        if len(names) > 1:
            data = {"node_rank": rank, "nodes": names, "free": _free(ranks, len(plans))}
            sentence = f"{word} {rank} was given to {folded(names)}"
            yield Finding("fleet", "node-rank-duplicated", sentence, data)
    most = max(plan["nnodes"][1] for plan in plans.values())
    for rank, names in sorted(ranks.items()):
        if not 0 <= rank < most:
            sentence = f"{folded(names)} has {word} {rank}, but there are {most} of them"
            data = {"node_rank": rank, "nnodes": most, "nodes": names}
            yield Finding("fleet", "node-rank-out-of-range", sentence, data)


def _meeting_place(
    seen: Mapping[str, Any], plans: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    """One host under several names is one place; two hosts, or two ports, are not."""
    owners = {
        address: name
        for name, answer in seen.items()
        for link in answer["links"]
        for address in link["addresses"]
    }
    called: dict[str, str] = {}
    for name, answer in seen.items():
        for word in (name, answer.get("host", name)):
            for spelling in (word, word.partition(".")[0]):
                called.setdefault(spelling, name)
    hosts, ports = {}, {}
    for name, plan in plans.items():
        host, _, port = str(plan["endpoint"]).rpartition(":")
        if not host:
            continue
        known = seen[name]["names"].get(host, ())
        owned = [owners[a] for a in (host, *known) if a in owners]
        is_address = host.replace(".", "").isdigit()
        short = called.get(host) or (None if is_address else called.get(host.partition(".")[0]))
        told = [short] if short else []
        hosts[name] = next(iter((*owned, *told, host)))
        ports[name] = port
        if told and known and not owned and name != told[0]:
            sentence = f"{name} takes {host} for {' '.join(known)}, which no node has"
            data = {"node": name, "host": host, "addresses": list(known)}
            yield Finding("fleet", "master-elsewhere", sentence, data)
    yield from _differ("master-differs", "the host of the rendezvous", hosts)
    yield from _differ("port-differs", "the port of the rendezvous", ports)


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
    """The probes' own findings: the same answer of several nodes is one finding.

    Of one kind of answer a few wordings are kept; so many nodes may each name their own address."""
    known: dict[tuple[str, str], dict[str, tuple[Mapping[str, Any], list[str]]]] = {}
    for node in nodes:
        for raw in node.answers.get("look", {}).get("findings", ()):
            if _is_its_own_name(node, raw):
                continue
            said = known.setdefault((raw["probe"], raw["outcome"]), {})
            key = raw["sentence"] if len(said) < WORDINGS or raw["sentence"] in said else ""
            said.setdefault(key, (raw, []))[1].append(node.name)
    for (probe, outcome), wordings in known.items():
        for key, (raw, names) in wordings.items():
            lines = tuple(
                Evidence(e["source"], tuple(e["lines"]), tuple(e["see"]), e["when"])
                for e in raw["evidence"]
            )
            data = {**raw["data"], "nodes": names, "node": names[0]}
            sentence = f"{folded(names)}: {raw['sentence']}" + ("" if key else ", or the like")
            yield Finding(probe, outcome, sentence, data, lines, raw["seconds"])


def _is_its_own_name(node: Node, raw: Mapping[str, Any]) -> bool:
    """That the master's name is loopback on the master itself is a matter of its own name."""
    loopback = (raw["probe"], raw["outcome"]) == ("name", "loopback-for-several-hosts")
    own = node.answers["look"].get("host", node.name)
    return loopback and alike(str(raw["data"].get("host")), node.name, own)


def kinds(nodes: Sequence[Node]) -> dict[str, tuple[str, str]]:
    """The group of each node: those where the same is wrong carry one letter, the rarest A. And
    what sets it apart: what most nodes have is not said."""
    traits = {
        node.name: _traits(node.answers["look"])
        for node in nodes
        if "findings" in node.answers.get("look", {})
    }
    having = Counter(trait for mine in traits.values() for trait in mine)
    parts = groups({name: repr(sorted(mine)) for name, mine in traits.items()})
    return {
        name: (chr(ord("A") + place) if place < 26 else f"Z{place}",
               "; ".join(t for k, t in traits[name].items() if 2 * having[k] <= len(traits)))
        for place, (_, names) in enumerate(parts)
        for name in names
    }  # fmt: skip


def _traits(look: Mapping[str, Any]) -> dict[str, str]:
    """What may be wrong with a node or sets it apart, and how that is said."""
    bad = wrong()
    found = {key: f["sentence"] for f in look["findings"]
             if (key := f"{f['probe']}.{f['outcome']}") in bad}  # fmt: skip
    torch, nccl = (_fact(look, "torch", key) for key in ("version", "nccl_version"))
    told = f"torch {torch}" + (f" with NCCL {nccl}" if nccl else "") if torch else "no torch"
    return {**found, told: told, f"gpu {_gpu(look)}": _gpu(look) or "no GPU"}


@cache
def wrong() -> frozenset[str]:
    """The answers that may lead to a cause."""
    from ddp_assist.probes.catalogue import probes

    return frozenset(
        f"{p.id}.{name}" for p in probes() for name, weight in p.outcomes.items() if weight == "bad"
    )


def _gpu(look: Mapping[str, Any]) -> str:
    """How many GPUs of which kind under which driver, as far as NVML told."""
    fine = [f for f in look["findings"] if (f["probe"], f["outcome"]) == ("gpu", "fine")]
    return "; ".join(f["sentence"] for f in fine)
