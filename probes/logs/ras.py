"""The probe `ras`: what NCCL's RAS subsystem answered, saved as text or JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ddp_assist.probes.logs import plain_json
from ddp_assist.probes.logs.ranks import Line
from ddp_assist.probes.logs.reading import Log, read
from ddp_assist.probes.logs.source import NotALog, sources
from ddp_assist.probes.model import Evidence, Finding, Probe, Target
from ddp_assist.probes.text import clean

_ABOUT = re.compile(r"^\s*#(?P<comm>\d+-\d+) \([0-9a-fA-F]+\) (?P<state>[A-Z]+)\s*$")
_DEAD = re.compile(r"^\s*DEAD\s*$|considered dead")
_RUNNING = re.compile(r"^\s*\d+(?:\s+\S+){5}\s+(?P<status>INIT|RUNNING|FINALIZE|ABORT)\s+OK\b")
_COUNTS = re.compile(
    r"(?P<ranks>\d{1,6}) ranks? ha(?:s|ve) launched up to operation (?P<op>\d{1,12})"
)
_ONE_COUNT = re.compile(r"Rank (?P<rank>\d{1,6})\b.*launched up to operation (?P<op>\d{1,12})")
_RANK = re.compile(
    r"^\s*Rank (?P<rank>\d{1,6})(?: --)? .*?process (?P<pid>\d{1,9}) on node (?P<node>[^\s,]+)"
)
_MISSING = re.compile(r"missing ranks?: (?P<ranks>[\d, -]+)", re.IGNORECASE)
_PROCESS = re.compile(r"Process (?P<pid>\d{1,9}) on node (?P<node>[^\s,]+)")
_WORDS = (b"MISMATCH", b"INCOMPLETE", b"DEAD", b"considered dead", b"collective_counts", b"RUNNING")
_OUTCOME = {"MISMATCH": "rank-behind", "INCOMPLETE": "rank-missing", "DEAD": "process-dead"}
_SAYS = {
    "rank-behind": "its ranks have launched different numbers of collectives",
    "rank-missing": "some ranks gave no answer",
    "process-dead": "processes can't be reached any more",
}


def look(target: Target) -> Iterator[Finding]:
    for log in read(target.logs):
        if not log.unreadable and log.excerpt.mentions(*_WORDS):
            yield from _of_json(log) if _looks_like_json(log) else told(log.lines())
    if target.job is not None and target.may_touch:
        from ddp_assist.probes.jobs.ras_server import asked  # which reads its answer by `told`

        yield from asked(target.job)


def told(lines: list[Line]) -> Iterator[Finding]:
    """The findings of an answer in text form."""
    found = False
    for place, line in enumerate(lines):
        about = _ABOUT.match(line.text)
        state = about["state"] if about else "DEAD" if _DEAD.search(line.text) else ""
        outcome = _OUTCOME.get(state)
        if outcome is None:
            continue
        found = True
        below = _section(lines[place + 1 : place + 400])
        data = _read_section([each.text for each in below])
        where = f"communicator {about['comm']}" if about else "the job"
        shown = tuple(clean(each.text)[:300] for each in [line, *below[:12]])
        see = ("sed", "-n", f"{line.number},{line.number + 12}p", line.file)
        sentence = f"RAS: in {where} {_SAYS[outcome]}{_named(data)}"
        yield Finding("ras", outcome, sentence, data | {"line": line.number},
                      (Evidence(clean(line.file), shown, see),))  # fmt: skip
    if not found and any(_RUNNING.match(line.text) for line in lines):
        yield Finding("ras", "healthy", "RAS: no communicator reports a difference")


def _section(lines: list[Line]) -> list[Line]:
    end = next((n for n, line in enumerate(lines)
                if _ABOUT.match(line.text) or line.text.startswith("===")), len(lines))  # fmt: skip
    return lines[:end]


def _read_section(texts: list[str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    ranks: list[int] = []
    for text in texts:
        if missing := _MISSING.search(text):
            ranks += [int(number) for number in re.findall(r"\d{1,6}", missing["ranks"])]
        elif one := _RANK.match(text):
            ranks.append(int(one["rank"]))
            data.setdefault("pid", int(one["pid"]))
            data.setdefault("node", clean(one["node"]))
        elif process := _PROCESS.search(text):
            data.setdefault("pid", int(process["pid"]))
            data.setdefault("node", clean(process["node"]))
    counts = [int(m["op"]) for text in texts if (m := _COUNTS.search(text))]
    if counts:
        data |= {"last": min(counts), "front": max(counts)}
    single = [(int(m["op"]), int(m["rank"])) for text in texts if (m := _ONE_COUNT.search(text))]
    if single:
        ranks = [rank for op, rank in single if op == min(single)[0]] + ranks
    if ranks:
        data |= {"rank": ranks[0], "ranks": sorted(set(ranks))[:64]}
    return data


def _named(data: dict[str, Any]) -> str:
    if "ranks" in data:
        return ": rank " + ", ".join(map(str, data["ranks"][:8]))
    return f": process {data['pid']} on {data['node']}" if "pid" in data else ""


def _looks_like_json(log: Log) -> bool:
    first = next(log.excerpt.lines(), (0, ""))[1].lstrip()
    return first.startswith("{") and any("collective_counts" in t for _, t in log.excerpt.lines())


def _of_json(log: Log) -> Iterator[Finding]:
    try:
        data = b"".join(block for source in sources(log.name) for block in source.blocks())
        value = plain_json.load(data)
    except (NotALog, plain_json.NotPlain):
        return  # cut or no JSON after all: the log probe shows its lines
    found = False
    for communicator in _communicators(value):
        counted = {
            each["rank"]: sum(n for n in each["collective_counts"].values() if type(n) is int)
            for each in communicator["ranks"]
            if isinstance(each, dict) and type(each.get("rank")) is int
            and isinstance(each.get("collective_counts"), dict)
        }  # fmt: skip
        missing = communicator.get("missing_ranks")
        named = [each.get("rank") for each in missing or () if isinstance(each, dict)]
        gone = sorted(rank for rank in named if type(rank) is int)
        if gone:
            found = True
            yield _finding(log, "rank-missing", {"rank": gone[0], "ranks": gone[:64]})
        if len(set(counted.values())) > 1:
            found = True
            behind = Counter(counted).most_common()[-1][1]
            late = sorted(rank for rank, number in counted.items() if number == behind)
            yield _finding(log, "rank-behind", {"rank": late[0], "ranks": late[:64],
                           "last": behind, "front": max(counted.values())})  # fmt: skip
    if not found:
        yield Finding("ras", "healthy", "RAS: no communicator reports a difference")


def _finding(log: Log, outcome: str, data: dict[str, Any]) -> Finding:
    return Finding("ras", outcome, f"RAS: in a communicator {_SAYS[outcome]}{_named(data)}", data,
                   (Evidence(clean(log.name)),))  # fmt: skip


def _communicators(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("ranks"), list):
                yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


PROBES = (
    Probe(
        id="ras",
        question="What does NCCL's RAS say about the communicators?",
        outcomes={
            "rank-behind": "bad",
            "rank-missing": "bad",
            "process-dead": "bad",
            "healthy": "ok",
        },
        look=look,
        applies=lambda target: bool(target.logs) or target.job is not None and target.may_touch,
        deadline=900.0,
        after=("log",),
    ),
)
