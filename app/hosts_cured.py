"""One cure for all nodes: the least change with which the causes are gone and the ranks meet."""

from __future__ import annotations

import ipaddress
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddp_assist.app.diagnose import Diagnosis, conclude
from ddp_assist.app.fixes.for_nodes import PASSED_ON, Agreement, for_all, in_one_piece
from ddp_assist.app.fixes.hostfile import corrected, is_in_words
from ddp_assist.app.fixes.launch_started import has_one_rank_for_all
from ddp_assist.app.fixes.launch_words import option_name
from ddp_assist.app.fixes.model import FileEdit, Fix
from ddp_assist.app.hosts_listed import as_started_here, first_node
from ddp_assist.app.prove import MOST
from ddp_assist.app.walk import Ranked
from ddp_assist.probes.fleet.compare import folded, own_plan
from ddp_assist.probes.fleet.meeting import Meeting, Place, joined
from ddp_assist.probes.launch.plan import Launch, LaunchError
from ddp_assist.probes.model import Target
from ddp_assist.probes.network.endpoint import CANDIDATES

RANKS = {"node-rank-duplicated", "node-rank-out-of-range", "rank-never-started"}
TASKS = {"slurm-plan-mismatch"}
COUNT = {"nnodes-disagree"}
IDS = {"rdzv-id-differs", "rdzv-id-reused"}
ADDRESS = {
    "master-addr-unresolvable", "master-addr-is-loopback", "master-addr-malformed",
    "master-addr-not-rank0", "host-unreachable", "rdzv-host-not-recognised",
}  # fmt: skip
PORT = {
    "firewall-blocks-port", "port-held-by-orphan", "port-held-by-own-job",
    "port-held-by-other-user", "port-held-by-service", "port-taken-by-connection",
    "port-privileged", "port-out-of-range", "port-differs-per-rank", "port-shared-by-jobs",
    "endpoint-not-a-store",
}  # fmt: skip
LINK = {
    "hostname-resolves-to-loopback", "own-hostname-unresolvable", "own-hostname-wrong-address",
    "interface-invalid", "interface-down", "interface-wrong", "firewall-blocks-data",
    "host-unreachable",
}  # fmt: skip
HOSTS = {"hostfile-invalid"}
DISAGREED = {"nnodes-disagree", "rdzv-id-differs", "port-differs-per-rank", "master-addr-not-rank0"}
CURABLE = HOSTS | RANKS | COUNT | IDS | ADDRESS | PORT | LINK
SHUT = {"firewall-blocks-port", "firewall-blocks-data", "unreachable", "mtu-black-hole"}
"""What our own connections between nodes met: no ranks get through there."""
VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
TRIES = 5


def cures(diagnosis: Diagnosis, meeting: Meeting, trial: bool) -> Iterator[Fix]:
    """At most one: what it cures beside the first cause stands in its title."""
    # One that another explains away may still be in the way of the ranks.
    found = [
        r
        for r in diagnosis.ranked
        if r.certainty != "possible"
        and (r.cause in CURABLE or (r.cause in TASKS and has_one_rank_for_all(r.speaks_for)))
    ]
    first = next((r for r in diagnosis.causes[:MOST] if r in found), None)
    if first is None or len(meeting.seen) < 2 or meeting.fleet.cancel.is_set():
        return
    second: Fix | None = None
    for number, agreed in enumerate(_agreements(diagnosis, meeting, first, found)):
        if number >= TRIES or meeting.fleet.cancel.is_set():
            break
        fix = _built(diagnosis, meeting, first, agreed)
        if fix is None:
            continue
        fix, shut = _looked_again(diagnosis, meeting, fix, agreed)
        if fix.badge != "failed" and not shut:
            fix = _tried(meeting, fix, agreed, trial)
            if fix.badge != "failed":
                yield fix
                return
        if second is None or (second.badge, fix.badge) == ("failed", "holds"):
            second = fix
    if second is not None:
        yield second


def _agreements(
    diagnosis: Diagnosis, meeting: Meeting, first: Ranked, found: Sequence[Ranked]
) -> Iterator[Agreement]:
    """On one address of the hub after another, for the first cause alone, then for all of them."""
    tried: list[Agreement] = []
    groups = [{first.cause}, {r.cause for r in found}]
    hub = _hub(diagnosis, meeting)
    for address, explicit in _places(meeting, hub):
        for causes in groups:
            agreed = _agreement(diagnosis, meeting, hub, causes, address, explicit)
            if agreed is not None and agreed not in tried:
                tried.append(agreed)
                yield agreed


def _hub(diagnosis: Diagnosis, meeting: Meeting) -> str:
    """The node of rank 0: the first, where one command gives out the ranks as it starts them."""
    first = first_node(diagnosis.target, meeting)
    return first if first in meeting.seen else meeting.hub or meeting.seen[0]


def _places(meeting: Meeting, hub: str) -> list[tuple[str, bool]]:
    """Addresses of the hub that every other node reaches; whether it is another than the usual."""
    others = set(meeting.seen) - {hub}
    reached: dict[str, set[str]] = {}
    for way in meeting.ways:
        if way["to"] == hub and way["kind"] == "data" and way["outcome"] == "reached":
            reached.setdefault(way["address"], set()).add(way["from"])
    usual = meeting.mains[hub]
    sampled = {w["from"] for w in meeting.ways if w["to"] == hub} or others
    open_to_all = [a for a, who in reached.items() if sampled <= who and a != usual]
    others_open = [(address, True) for address in sorted(open_to_all)]
    missed = bool(others_open) and not sampled <= reached.get(usual, set())
    return [*others_open, (usual, False)] if missed else [(usual, False), *others_open]


def _agreement(
    diagnosis: Diagnosis, meeting: Meeting, hub: str, causes: set[str], address: str, explicit: bool
) -> Agreement | None:
    told_another = meeting.hub not in (None, hub)
    nodes = _in_order(meeting, hub)
    one_nodes = _is_template(meeting) or _is_a_copy(meeting, diagnosis.target.launch)
    agreed = Agreement(nodes, ranks=bool(causes & (RANKS | TASKS)) or one_nodes)
    if causes & RANKS:
        agreed = replace(agreed, count=len(nodes))
    if causes & HOSTS:
        agreed = replace(agreed, hostfile=True)
    if causes & COUNT:
        agreed = replace(agreed, count=len(nodes))
    if causes & IDS:
        agreed = replace(agreed, rdzv_id=_id(diagnosis))
    if causes & ADDRESS or explicit or told_another:
        agreed = replace(agreed, address=address)
    if causes & PORT:
        port = _open_port(meeting, hub, address, "port-shared-by-jobs" in causes)
        if port is None:
            return None
        agreed = replace(agreed, port=port)
    if causes & LINK or explicit:
        names = _variables(diagnosis, meeting)
        links = {n: _link_towards(meeting.look_at(n), address) for n in meeting.seen}
        usual = Counter(link for link in links.values() if link).most_common(1)
        links |= dict.fromkeys(set(nodes) - set(links), usual[0][0] if usual else None)
        env = {n: dict.fromkeys(names, link) for n in nodes if (link := links[n])}
        called = {n: meeting.look_at(n).get("host", n) for n in meeting.seen}
        agreed = replace(agreed, env=env, called=called)
    return agreed


def _is_template(meeting: Meeting) -> bool:
    plans = (own_plan(name, meeting.look_at(name)) for name in meeting.seen)
    return any(plan is not None and plan["rank_of_another"] for plan in plans)


def _is_a_copy(meeting: Meeting, launch: Launch | None) -> bool:
    """Whether each node has the script with a rank of its own, and this text is that of one."""
    main = _main(launch)
    if launch is None or main is None or launch.path is None or in_one_piece(launch):
        return False
    plans = [own_plan(name, meeting.look_at(name)) for name in meeting.seen]
    given = main.option(option_name(main, "node-rank"))
    at = given.value_span if given is not None else None
    is_number = at is not None and "$" not in launch.text[slice(*at)]
    return (is_number or main.assignment("RANK") is not None) and (
        len({plan["node_rank"] for plan in plans if plan is not None}) > 1
    )


def _variables(diagnosis: Diagnosis, meeting: Meeting) -> tuple[str, ...]:
    """What names the interface: the variables that do already, else those of the backend."""
    looks = [meeting.look_at(name) for name in meeting.seen]
    named = tuple(v for v in VARIABLES if any(v in look["env"] for look in looks))
    if named or diagnosis.target.backend is None:
        return named or VARIABLES
    return VARIABLES[1:] if diagnosis.target.backend == "nccl" else VARIABLES[:1]


def _in_order(meeting: Meeting, hub: str) -> tuple[str, ...]:
    """The ranks that nodes were given, where each was given another; else the hub first."""
    told = {}
    for name in meeting.seen:
        plan = own_plan(name, meeting.look_at(name))
        if plan is not None and plan["node_rank"] is not None and not plan["rank_of_another"]:
            told[name] = plan["node_rank"]
    names = sorted(meeting.names, key=lambda name: name != hub)
    kept: dict[int, str] = {}
    for name in names:
        rank = told.get(name)
        if rank is not None and 0 <= rank < len(names) and rank not in kept:
            kept[rank] = name
    if kept.get(0, hub) != hub:
        return tuple(names)
    left = [name for name in names if name not in kept.values()]
    return tuple(kept[at] if at in kept else left.pop(0) for at in range(len(names)))


def _id(diagnosis: Diagnosis) -> str:
    told = [p.rdzv_id for p in diagnosis.target.plans if p.rdzv_id]
    return told[0] if told and told[0].isascii() else f"job-{secrets.token_hex(3)}"


def _open_port(meeting: Meeting, hub: str, address: str, shared: bool) -> int | None:
    """A port of the hub that nobody holds there and that every other node reaches."""
    own = [] if shared else [meeting.port]
    ports = [*own, *(p for p in CANDIDATES if p != meeting.port), 20000 + secrets.randbelow(9000)]
    between = [(name, hub) for name in meeting.seen if name != hub]
    ways = meeting.connections(between, ports, data=0)
    known = {(w["port"], w["to"]) for w in meeting.ways}
    meeting.ways += [w for w in ways if (w["port"], w["to"]) not in known]
    here = [w for w in ways if w["address"] == address and w["kind"] == "port"]
    for port in ports:
        mine = [w for w in here if w["port"] == port]
        if mine and all(w["outcome"] == "reached" and not w["taken"] for w in mine):
            return port
    return None


def _link_towards(look: Mapping[str, Any], address: str) -> str | None:
    """The interface whose address is nearest to the one that all are to meet at."""
    there = ipaddress.ip_address(address)
    best: tuple[int, str] | None = None
    for link in look["links"]:
        if not link["up"] or link["virtual"]:
            continue
        for own in map(ipaddress.ip_address, link["addresses"]):
            if own.version == there.version:
                apart = (int(own) ^ int(there)).bit_length()
                best = min(best or (apart, link["name"]), (apart, link["name"]))
    return best[1] if best else None


def _built(
    diagnosis: Diagnosis, meeting: Meeting, first: Ranked, agreed: Agreement
) -> Fix | None:
    title = "; ".join(_said(agreed, first.cause in RANKS | TASKS))
    launch = diagnosis.target.launch
    launches = _launches(launch, agreed)
    if launch is None or launches is None:
        if not agreed.env:
            return None
        steps = (*_said(agreed, False), *_passed_on(diagnosis.target))
        return Fix(first.cause, title, "command", steps=steps)
    files: tuple[FileEdit, ...] = ()
    if agreed.hostfile and launch.main is not None and not is_in_words(launch.main):
        gpus = {name: count for name in meeting.seen if (count := meeting.gpus(name))}
        try:
            files = (corrected(launch.main, agreed.nodes, gpus),)
        except LaunchError:
            return None
    # What is right here may differ on a node that has a copy of its own.
    copied = launch.path is not None and first.cause in DISAGREED
    if not files and not copied and all(one.text == launch.text for one in launches.values()):
        return None
    return Fix(
        first.cause, title, "command", launch=launches[agreed.nodes[0]], nodes=launches, files=files
    )  # fmt: skip


def _launches(launch: Launch | None, agreed: Agreement) -> dict[str, Launch] | None:
    """None where there is none, or where its words can't say it: an edit is never a guess."""
    try:
        return for_all(launch, agreed) if launch is not None and launch.main is not None else None
    except LaunchError:
        return None


def _said(agreed: Agreement, ranks: bool) -> Iterator[str]:
    if ranks:
        yield f"node ranks 0 to {len(agreed.nodes) - 1}: {', '.join(agreed.nodes[:8])}" + (
            ", ..." if len(agreed.nodes) > 8 else "")  # fmt: skip
    if agreed.hostfile:
        yield f"start it on the nodes of the job: {folded(agreed.nodes)}"
    if agreed.count is not None and not ranks:
        yield f"{agreed.count} nodes everywhere"
    if agreed.rdzv_id is not None:
        yield f"one rendezvous id for all: {agreed.rdzv_id}"
    if agreed.address is not None:
        yield f"meet at {agreed.address}, an address of {agreed.nodes[0]}"
    if agreed.port is not None:
        yield f"meet on port {agreed.port}, which every node reaches"
    yield from _exports(agreed)


def _passed_on(target: Target) -> Iterator[str]:
    if any(plan.launcher == "deepspeed" and plan.starts_all for plan in target.plans):
        yield (
            f"deepspeed passes on what begins with {', '.join(PASSED_ON)} alone: what all nodes "
            "want alike goes into .deepspeed_env, in your home or where deepspeed is started"
        )


def _exports(agreed: Agreement) -> Iterator[str]:
    by_text: dict[str, list[str]] = {}
    for name, env in agreed.env.items():
        text = " ".join(f"{variable}={value}" for variable, value in env.items())
        by_text.setdefault(text, []).append(name)
    for text, names in by_text.items():
        yield f"export {text} on {folded(names)}"


def _words(meeting: Meeting, fix: Fix) -> dict[str, list[str]]:
    seen = set(meeting.seen)
    return {n: [one.text] for n, one in fix.nodes.items() if n in seen}


def _looked_again(
    diagnosis: Diagnosis, meeting: Meeting, fix: Fix, agreed: Agreement
) -> tuple[Fix, bool]:
    """The nodes look again with the corrected launch; whether a way that ranks need is shut."""
    words = _words(meeting, fix)
    if not words:
        return replace(fix, why="nothing was looked at again"), False
    target = replace(diagnosis.target, launch=fix.launch, plan=_main(fix.launch))
    texts = {edit.path: edit.after for edit in fix.files}
    again_seen = meeting.look_again(words, agreed.port or meeting.port)
    found = as_started_here(again_seen, target, meeting, texts)
    asked = frozenset(f.probe for f in found) | {"fleet"}
    again = conclude(Diagnosis(diagnosis.question, target, found, asked=asked))
    still = [r for r in again.causes if r.cause == fix.cause and r.certainty != "possible"]
    if still:
        said = still[0].speaks_for[0].sentence
        return replace(fix, badge="failed", why=f"looked again: still there: {said}"), False
    why = f"all of {folded(words)} looked again with the fix in place: the cause is gone"
    shut = [f.sentence for f in found if f.probe == "fleet" and f.outcome in SHUT]
    if shut:
        why += f"; but ranks can't meet yet: {shut[0]}"
    return replace(fix, badge="holds", why=why), bool(shut)


def _tried(meeting: Meeting, fix: Fix, agreed: Agreement, trial: bool) -> Fix:
    """Ranks meet as it says."""
    if not trial or len(meeting.with_torch) < 2:
        none = "no trial was wanted" if not trial else "no torch on the nodes to try it with"
        return replace(fix, why=f"{fix.why}; {none}")
    with_torch = set(meeting.with_torch)
    able = tuple(n for n in agreed.nodes if n in with_torch)
    usual = meeting.place(able[0], is_meant=True)
    address = agreed.address or meeting.mains[able[0]]
    place = Place(address, agreed.port or usual.port, agreed.env, _words(meeting, fix))
    answers = meeting.trial([(able, place)], meeting.patience)[0]
    if joined(answers):
        said = f"{len(able)} ranks of gloo on {folded(able)} met at {address} port {place.port}"
        return replace(fix, badge="ran", why=f"{fix.why}; {said}, and their all_reduce is right")
    said = next(
        str(a.get("sentence") or a.get("error")) for a in answers.values()
        if a.get("outcome") != "joined"
    )  # fmt: skip
    return replace(fix, badge="failed", why=f"{fix.why}; a trial did not join: {said}")


def _main(launch: Launch | None) -> Any:
    return launch.main if launch is not None else None
