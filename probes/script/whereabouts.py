"""Where the script makes its ranks meet, and by which backend: live probes look there."""

from __future__ import annotations

from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.script.devices import backend_of
from ddp_assist.probes.script.facts import endpoints, read_facts, script_of
from ddp_assist.probes.script.read import ScriptError


def whereabouts(target: Target) -> tuple[tuple[Endpoint, ...], str | None]:
    """Nothing where there is no script to read; the script's own probe says why."""
    script = script_of(target)
    if script is None:
        return (), None
    try:
        facts = read_facts(target, script)
        backends = {name for name in map(backend_of, facts.gangs) if name}
        return tuple(endpoints(facts)), backends.pop() if len(backends) == 1 else None
    except (ScriptError, RecursionError):
        return (), None
