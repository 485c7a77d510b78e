"""The probe `flight-recorder`: dumps of several ranks compared, and who is behind or differs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddp_assist.probes.logs import plain_json, plain_pickle
from ddp_assist.probes.logs.source import NotALog, Source, sources
from ddp_assist.probes.model import Evidence, Finding, Probe, Target
from ddp_assist.probes.text import clean

_RANK = re.compile(r"(\d{1,6})(?:\.(?:pkl|pickle|json|bin|dump))?$")
_MOST_RANKS = 65_536
_NUMBER = re.compile(r"\d{1,6}")


@dataclass(frozen=True, slots=True)
class Call:
    """One collective as one rank recorded it."""

    op: str
    sizes: str
    dtypes: str
    state: str
    place: str


@dataclass(slots=True)
class Dump:
    """What one rank recorded: its calls by group and sequence number."""

    file: str
    rank: int
    groups: dict[str, tuple[int, ...]]
    calls: dict[tuple[str, int], Call]
    last: dict[str, int] = field(default_factory=dict)
    """The last collective that was enqueued, by group."""


class NoDump(ValueError):
    """The data is not what a flight recorder writes."""


def look(target: Target) -> Iterator[Finding]:
    dumps: list[Dump] = []
    for source in _candidates(target.logs):
        name = clean(source.name)
        try:
            data = _bytes(source)
            if data is None:
                continue
            value = plain_pickle.plain(data) if data[:1] == b"\x80" else plain_json.load(data)
            dumps.append(dump_of(value, source.name, len(dumps)))
        except (plain_pickle.Refused, plain_json.NotPlain, NoDump, NotALog) as why:
            sentence = f"{name} is not read as a flight recorder dump: {clean(str(why))}"
            yield Finding("flight-recorder", "refused", sentence,
                          {"file": name, "unreadable": clean(str(why))})  # fmt: skip
    if dumps:
        yield from compared(dumps)
    elif target.job is not None and target.may_touch:
        from ddp_assist.probes.jobs.debug_server import told  # which compares as we do

        yield from told(target.job)


def _candidates(items: Sequence[str]) -> Iterator[Source]:
    for item in items:
        try:
            yield from sources(item)
        except NotALog:
            continue  # the probe `log` says what is wrong with it


def _bytes(source: Source) -> bytes | None:
    """All of a file that can be a dump, or None for anything else."""
    blocks = source.raw()
    first = next(blocks, b"")
    is_json = first.lstrip()[:1] == b"{" and b'"entries"' in first and b'"version"' in first
    if source.kind != "pickle" and not is_json:
        return None
    data = bytearray(first)
    for block in blocks:
        data += block
        if len(data) > plain_pickle.MOST_BYTES:
            raise NoDump("it is larger than any dump")
    return bytes(data)


def dump_of(value: Any, file: str, place: int) -> Dump:
    """A dump out of plain data, every part of it checked; raises NoDump."""
    if not isinstance(value, dict) or not isinstance(value.get("entries"), list):
        raise NoDump("it has no list of entries")
    calls: dict[tuple[str, int], Call] = {}
    last: dict[str, int] = {}
    for entry in value["entries"]:
        if not isinstance(entry, dict) or entry.get("is_p2p"):
            continue
        sequence = entry.get("collective_seq_id")
        if type(sequence) is not int:
            continue
        group = _group(entry.get("process_group"))
        calls[group, sequence] = _call(entry)
        last[group] = max(last.get(group, -1), sequence)
    groups = _groups(value.get("pg_config"))
    status = value.get("pg_status")
    if isinstance(status, dict) and len(groups) == 1:
        enqueued = [each.get("last_enqueued_collective") for each in status.values()
                    if isinstance(each, dict)]  # fmt: skip
        numbers = [number for number in enqueued if type(number) is int and number >= 0]
        if numbers:
            only = next(iter(groups))
            last[only] = max(last.get(only, -1), *numbers)
    found = _RANK.search(file)
    return Dump(file, int(found[1]) if found else place, groups, calls, last)


def _group(named: Any) -> str:
    """gloo writes the default group under an empty name in one place and as 0 in another."""
    name = named[0] if isinstance(named, list | tuple) and named else named
    return str(name) if name not in (None, "") else "0"


def _groups(config: Any) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    if isinstance(config, dict):
        for name, each in config.items():
            ranks = each.get("ranks") if isinstance(each, dict) else None
            numbers = _NUMBER.findall(ranks) if isinstance(ranks, str) else ranks
            if isinstance(numbers, list) and len(numbers) <= _MOST_RANKS:
                members = (int(n) for n in numbers if isinstance(n, str) or type(n) is int)
                found[_group(name)] = tuple(sorted(set(members)))
    return found


def _call(entry: Mapping[str, Any]) -> Call:
    frames = entry.get("frames")
    place = ""
    for frame in frames if isinstance(frames, list) else ():
        path = frame.get("filename") if isinstance(frame, dict) else None
        if isinstance(path, str) and "/torch/" not in path:
            place = f"{path}:{frame.get('line')}"
            break
    return Call(
        str(entry.get("profiling_name", "?")).rpartition(":")[2],
        _listed(entry.get("input_sizes")), _listed(entry.get("input_dtypes")),
        str(entry.get("state", "?")), place,
    )  # fmt: skip


def _listed(value: Any) -> str:
    return str(list(value) if isinstance(value, tuple) else value)[:400]


def compared(dumps: list[Dump]) -> Iterator[Finding]:
    """What the dumps say together: first what differs, then who is behind, then who is missing."""
    by_rank = {dump.rank: dump for dump in dumps}
    members: dict[str, set[int]] = defaultdict(set)
    for dump in dumps:
        for group, ranks in dump.groups.items():
            members[group] |= set(ranks)
        for group in dump.last:
            members[group].add(dump.rank)
    found = False
    for group in sorted(members):
        there = {rank: by_rank[rank] for rank in sorted(members[group]) if rank in by_rank}
        for finding in (*_differing(group, there), *_behind(group, there)):
            found = True
            yield finding
    missing = sorted(set().union(*members.values()) - set(by_rank)) if members else []
    if missing:
        shown = ", ".join(map(str, missing[:16]))
        sentence = f"no dump of rank {shown}: a rank that wrote none was gone or could not answer"
        yield Finding("flight-recorder", "missing-dump", sentence,
                      {"ranks": missing[:64], "rank": missing[0]}, _files(dumps))  # fmt: skip
    if not found and not missing:
        several = f"the dumps of {len(dumps)} ranks agree on every collective"
        sentence = several if len(dumps) > 1 else "one rank's dump, with nothing to compare it to"
        yield Finding("flight-recorder", "healthy", sentence, {}, _files(dumps))


_ASPECTS = (("op", "op-differs"), ("dtypes", "dtype-differs"), ("sizes", "shape-differs"))
# In these each rank may hand over another size, or only one hands over anything.
_UNEVEN = re.compile(r"(?i)gather|scatter|all_?to_?all|reduce_scatter")


def _differing(group: str, dumps: Mapping[int, Dump]) -> Iterator[Finding]:
    """The first collective that not all ranks call alike; the few differ from the many."""
    shared = Counter(key for dump in dumps.values() for key in dump.calls if key[0] == group)
    for key in sorted(key for key, ranks in shared.items() if ranks > 1):
        calls = {rank: dump.calls[key] for rank, dump in dumps.items() if key in dump.calls}
        for aspect, outcome in _ASPECTS:
            values = {rank: getattr(call, aspect) for rank, call in calls.items()}
            if aspect != "op" and any(_UNEVEN.search(call.op) for call in calls.values()):
                continue
            if len(set(values.values())) > 1:
                yield _odd(group, key[1], outcome, values, calls, dumps)
                return


def _odd(
    group: str, sequence: int, outcome: str, values: Mapping[int, str],
    calls: Mapping[int, Call], dumps: Mapping[int, Dump],
) -> Finding:  # fmt: skip
    votes = Counter(values.values()).most_common()
    usual = votes[0][0]
    decided = len(votes) == 1 or votes[0][1] > votes[1][1]
    odd = [rank for rank, value in values.items() if value != usual]
    what = ", ".join(f"rank {rank}: {clean(values[rank])}" for rank in [
        *[r for r in values if r not in odd][:1], *odd[:4]])  # fmt: skip
    data: dict[str, Any] = {
        "group": clean(group), "sequence": sequence, "op": clean(calls[odd[0]].op),
        "ranks": odd[:64], "decided": decided, "usual": clean(usual),
        "seen": clean(values[odd[0]]), "place": clean(calls[odd[0]].place),
    }  # fmt: skip
    if decided:
        data["rank"] = odd[0]
    return Finding("flight-recorder", outcome,
                   f"collective {sequence} of group {clean(group)} differs: {what}",
                   data, _files([dumps[rank] for rank in values]))  # fmt: skip


def _behind(group: str, dumps: Mapping[int, Dump]) -> Iterator[Finding]:
    last = {rank: dump.last.get(group, 0) for rank, dump in dumps.items()}
    if len(last) < 2 or min(last.values()) == max(last.values()):
        return
    front = max(last.values())
    late = [rank for rank, number in last.items() if number == min(last.values())]
    rank = late[0]
    missed = next((dump.calls[group, last[rank] + 1] for dump in dumps.values()
                   if (group, last[rank] + 1) in dump.calls), None)  # fmt: skip
    done = dumps[rank].calls.get((group, last[rank]))
    op = clean(missed.op) if missed else "a collective"
    data = {
        "group": clean(group), "rank": rank, "ranks": late[:64], "last": last[rank],
        "front": front, "sequence": last[rank] + 1, "op": op,
        "place": clean(missed.place) if missed else "",
        "last_place": clean(done.place) if done else "",
    }  # fmt: skip
    yield Finding(
        "flight-recorder", "rank-behind",
        f"rank {', '.join(map(str, late[:8]))} stopped after collective {last[rank]} and never "
        f"called {last[rank] + 1} ({op}) of group {clean(group)}; the others reached {front}",
        data, _files(list(dumps.values())),
    )  # fmt: skip


def _files(dumps: Sequence[Dump]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(clean(dump.file), tuple(f"last collective of group {clean(group)}: {number}"
                                         for group, number in sorted(dump.last.items())[:8]))
        for dump in dumps[:16]
    )  # fmt: skip


PROBES = (
    Probe(
        id="flight-recorder",
        question="Do the ranks' flight recorders agree?",
        outcomes={
            "rank-behind": "bad",
            "op-differs": "bad",
            "shape-differs": "bad",
            "dtype-differs": "bad",
            "missing-dump": "bad",
            "healthy": "ok",
            "moves": "ok",
            "refused": "info",
        },
        look=look,
        applies=lambda target: bool(target.logs) or target.job is not None and target.may_touch,
        deadline=120.0,
    ),
)
