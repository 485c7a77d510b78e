"""Which modules every rank surely imports before the ranks meet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ddp_assist.probes.host.modules import wanted_on
from ddp_assist.probes.script.facts import INIT, SETTERS, ScriptFacts
from ddp_assist.probes.script.read import Source
from ddp_assist.probes.script.trace import Trace
from ddp_assist.probes.script.value import Call

_PATH = re.compile(r"\bsys\.path\b")
_PUT = ("sys.path.insert", "sys.path.append", "sys.path.extend")
_UNREADABLE = re.compile(
    r"\bsys\.(meta_path|path_hooks|modules\b(?!\[__name__\]))|\baddsitedir\b|\bpyximport\b"
    r"|\bPYTHONPATH\b|\bfrom\s+sys\s+import\b|\bpip3?\b.*\binstall\b|\bcpp_extension\b"
)


@dataclass(frozen=True, slots=True)
class Needed:
    """A module, and where it is imported."""

    name: str
    call: Call
    hosts: tuple[tuple[str, bool], ...] = ()
    """Only on the host of that name, or only on others."""

    def on(self, host: str) -> bool:
        return wanted_on(host, self.hosts)

    @property
    def where(self) -> str:
        return self.call.source.where(getattr(self.call.node, "lineno", 1))


def needed(facts: ScriptFacts) -> list[Needed]:
    """None where the script changes what Python finds in a way that can't be read."""
    if not facts.traces[0].complete or any(map(_is_unreadable, facts.project.read())):
        return []
    optional = {name for trace in facts.traces for name in trace.optional}
    found: list[dict[str, Needed]] = []
    for trace in facts.traces:
        sure: dict[str, Needed] = {}
        for call in _before_meeting(trace):
            name = str(call.args[0].const)
            hosts = _hosts(call)
            if hosts is None:
                optional.add(name)
            elif name not in sure or len(hosts) < len(sure[name].hosts):
                sure[name] = Needed(name, call, hosts)
        found.append(sure)
    first, second = found
    # What only one rank imports is imported here where all ranks are here.
    names = {*first, *second} if _all_here(facts) else first.keys() & second.keys()
    both = {**second, **first}
    return [both[name] for name in both if name in names - optional]


def put_on_path(facts: ScriptFacts) -> list[str] | None:
    """The folders that the script puts on its path; None where they can't be read."""
    folders: list[str] = []
    understood: set[int] = set()
    for call in facts.calls(*_PUT):
        values = [part for arg in call.args for part in (arg.items or [arg])]
        texts = [v.const for v in values if isinstance(v.const, str)]
        if not texts:
            return None
        understood.add(id(call.node))
        base = facts.target.plan.cwd if facts.target.plan else facts.target.cwd
        folders += [str(base / text) for text in texts]
    said = sum(len(_PATH.findall(_code(source))) for source in facts.project.read())
    return folders if said <= len(understood) else None


def _is_unreadable(source: Source) -> bool:
    return source.notebook or bool(_UNREADABLE.search(_code(source)))


def _code(source: Source) -> str:
    """The text without the lines that are comments."""
    return "\n".join(line for line in source.lines if not line.lstrip().startswith("#"))


def _before_meeting(trace: Trace) -> Iterator[Call]:
    met: set[int] = set()
    for call in trace.calls:
        if call.name == INIT and not call.stray:
            met.add(call.process.number)
        elif call.name == "import" and call.process.number not in met:
            yield call


def _hosts(call: Call | None) -> tuple[tuple[str, bool], ...] | None:
    """Where a call surely happens; None where nobody knows whether it does."""
    hosts: list[tuple[str, bool]] = []
    while call is not None:
        if call.stray or call.handler or call.looped or call.thread:
            return None
        if call.process.via == "program" or len(call.path) != len(call.tests):
            return None
        for (_, way), test in zip(call.path, call.tests, strict=True):
            kind, _, name = test.role.partition(":")
            if kind not in ("host", "not-host"):
                return None
            hosts.append((name, way is (kind == "host")))
        call = call.process.call
    return tuple(hosts)


def _all_here(facts: ScriptFacts) -> bool:
    alone = facts.launcher in SETTERS and facts.nnodes == 1
    return alone and facts.world is not None and facts.world > 1
