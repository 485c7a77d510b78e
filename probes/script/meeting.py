"""Mistakes in where the ranks meet: ports, the launcher's address, the meeting file."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import AGENT_STORE, INIT, SETTERS, Gang, ScriptFacts
from ddp_assist.probes.script.groups import for_nobody
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Value

_FREE = {"free-port", "random"}


def port_values(facts: ScriptFacts) -> Iterator[tuple[Gang, Call, list[Value], str]]:
    """Everything that decides on which port the ranks of a gang meet: one value a rank."""
    for gang in facts.gangs:
        first = gang.streams[0]
        for call in first:
            if (
                call.name in ("environ.set", "environ.setdefault")
                and call.args[0].const == "MASTER_PORT"
            ):
                yield (
                    gang,
                    call,
                    _same(gang, call, lambda c: c.args[1] if len(c.args) > 1 else None),
                    "MASTER_PORT",
                )
            elif call.name == INIT and (method := call.get("init_method", 1)) is not None:
                if method.text.startswith("tcp://"):
                    yield (
                        gang,
                        call,
                        _same(gang, call, lambda c: c.get("init_method", 1)),
                        "init_method",
                    )
            elif call.name == "torch.distributed.TCPStore" and call.get("port", 1) is not None:
                yield gang, call, _same(gang, call, lambda c: c.get("port", 1)), "the store's port"


def _same(gang: Gang, call: Call, pick: Callable[[Call], Value | None]) -> list[Value]:
    """That argument of the same call in each stream."""
    key = call.args[0].const if call.name.startswith("environ") else None
    values = []
    for stream in gang.streams:
        for other in stream:
            if (
                other.node is call.node
                and other.name == call.name
                and (key is None or other.args[0].const == key)
            ):
                value = pick(other)
                if value is not None:
                    values.append(value)
                break
    return values


def port_per_rank(facts: ScriptFacts) -> Iterator[Finding]:
    for gang, call, values, what in port_values(facts):
        if gang.many is False or call.handler:
            continue
        soft = call.name == "environ.setdefault" or call.depends("env:MASTER_PORT")
        given = facts.launcher in SETTERS or "MASTER_PORT" in facts.environment
        if soft and given:
            continue
        mixed = next(
            (v for v in values if "rank" in v.of and v.role not in ("env:MASTER_PORT",)), None
        )
        known = {str(v.const) for v in values if v.known}
        differs = len(known) > 1 or (
            mixed is not None and not mixed.known and mixed.mix is not None
        )
        if mixed is not None and differs:
            mix = mixed.mix
            sentence = (
                f"{what} depends on the rank "
                f"({' / '.join(sorted(known)) or call.source.code(call.node)}), so every rank "
                "looks for the store on its own port; all ranks need the same MASTER_PORT"
            )
            extra: dict[str, object] = {}
            if mix is not None:
                extra = {
                    "mix": place(mix.source, mix.node),
                    "mix_file": str(mix.source.path),
                    "keep": mix.source.code(mix.keep),
                }
            else:
                extra = _site(call, what)
            yield at(
                call, "port-differs-per-rank", sentence, variable=what, ports=sorted(known), **extra
            )
        elif any(v.of & _FREE for v in values) and _own_pick(facts, gang, values):
            sentence = (
                f"{what} is picked anew in each rank, so every rank has another port; it must be "
                "picked once and handed to all ranks"
            )
            text = next((v.text for v in values if v.text), "")
            more = {"pattern": text, **_site(call, what)}
            yield at(call, "port-differs-per-rank", sentence, variable=what, picked=True, **more)


def _site(call: Call, what: str) -> dict[str, object]:
    """The expression that says where to meet."""
    node = (
        _assigned(call)
        if what == "MASTER_PORT"
        else call.node_of("init_method" if call.name == INIT else "port", 1)
    )
    return {"value_span": place(call.source, node)} if node is not None else {}


def _own_pick(facts: ScriptFacts, gang: Gang, values: list[Value]) -> bool:
    """Whether each rank of the gang picks for itself, and is not handed what another picked."""
    if any(c.name.endswith(("random.seed", "manual_seed")) for c in gang.streams[0]) and not any(
        "free-port" in v.of for v in values
    ):
        return False
    numbers = {stream[0].process.number for stream in gang.streams if stream}
    inside = any(f"picked@{number}" in v.of for v in values for number in numbers)
    if gang.process.number == 0:
        return inside and gang.many is True
    return inside


def port_range(facts: ScriptFacts) -> Iterator[Finding]:
    for _, call, values, what in port_values(facts):
        for value in values:
            const = facts.value_of(value)
            if what == "init_method":
                match = re.search(r":(\d+)(?:$|[/?])", str(const or ""))
                const = match[1] if match else None
            if const is None or isinstance(const, bool):
                continue
            number = int(const) if str(const).lstrip("-").isdigit() else None
            lowest = 1 if what == "MASTER_PORT" else 0
            if (number is None and isinstance(const, str) and what == "MASTER_PORT") or (
                number is not None and not lowest <= number <= 65535
            ):
                sentence = f"{what} is {const!r}: a port is a number from 1 to 65535"
                node = (
                    call.node_of("init_method", 1)
                    if what == "init_method"
                    else call.node_of("port", 1)
                    if what != "MASTER_PORT"
                    else _assigned(call)
                )
                yield at(
                    call,
                    "port-out-of-range",
                    sentence,
                    port=const,
                    told=value.const if isinstance(value.const, str) else None,
                    variable=what,
                    value_span=place(call.source, node or call.node),
                )
                break


def _assigned(call: Call) -> ast.expr | None:
    """The value of os.environ["MASTER_PORT"] = value."""
    for node in ast.walk(call.source.tree) if call.source.tree is not None else ():
        if isinstance(node, ast.Assign) and call.node in node.targets:
            return node.value
    return call.node_of("value", 1)


def port_lost(facts: ScriptFacts) -> Iterator[Finding]:
    """A port picked in the parent long before the workers use it."""
    main = facts.main.streams[0]
    for gang, _, values, _ in port_values(facts):
        if gang.process.number == 0 or not any("free-port" in v.of for v in values):
            continue
        pick = next((i for i, c in enumerate(main) if c.name.endswith("getsockname")), None)
        start = next((i for i, c in enumerate(main) if c is gang.process.call), None)
        if pick is None or start is None:
            continue
        between = [
            c
            for c in main[pick + 1 : start]
            if c.stack == main[start].stack and c.name not in ("print", "for") and not _quick(c)
        ]
        if between:
            sentence = (
                "the port is found free and given back here, but the store only takes it later: in "
                "between another process can take it"
            )
            slow = any(_takes_long(c) for c in between)
            asked = main[pick].stack[len(main[start].stack) :][:1]
            init = next((c for c in gang.streams[0] if c.name == INIT), None)
            yield at(
                main[pick],
                f"port-lost-after-pick{'' if slow else '-maybe'}",
                sentence,
                picked=place(main[start].source, asked[0]) if asked else None,
                init=place(init.source, init.node) if init is not None else None,
                init_file=str(init.source.path) if init is not None else "",
            )
        return


def _takes_long(call: Call) -> bool:
    """What lasts a second or more for sure: long enough that somebody else's turn comes."""
    if call.name == "time.sleep":
        seconds = call.args[0].const if call.args else None
        return isinstance(seconds, (int, float)) and seconds >= 1
    return call.name.endswith((".load_dataset", ".from_pretrained", ".snapshot_download"))


def _quick(call: Call) -> bool:
    return call.name.startswith(
        ("environ", "socket", "logging", "function:", "int", "str", "os.")
    ) or call.name.endswith(
        (".close", ".getsockname", ".info", ".__exit__", ".__enter__", ".append")
    )


def overridden(facts: ScriptFacts) -> Iterator[Finding]:
    """The launcher told the ranks where to meet, and the script says something else."""
    plan = facts.target.plan
    sets: list[Call] = []
    for call in facts.main.streams[0]:
        if call.name == "environ.set" and call.args[0].const in ("MASTER_PORT", "MASTER_ADDR"):
            if call.handler or call.depends(
                "env:MASTER_PORT", "env:MASTER_ADDR", "env:RANK", "env:WORLD_SIZE", "env:LOCAL_RANK"
            ):
                continue
            if any(word.startswith(("env:MASTER", "free-port")) for word in call.args[1].of):
                continue
            if call.stray and not _starts_there(facts, call):
                continue
            sets.append(call)
    ports = [c for c in sets if c.args[0].const == "MASTER_PORT"]
    hosts = [c for c in sets if c.args[0].const == "MASTER_ADDR"]
    direct = [
        c
        for c in facts.main.streams[0]
        if c.name == INIT
        and (m := c.get("init_method", 1)) is not None
        and m.text.startswith("tcp://")
        and not any(w.startswith("env:MASTER") for w in m.of)
    ]
    begins = any(
        c.name == INIT or c.name.endswith("init_distributed") for c in facts.main.streams[0]
    )
    culprits = [
        c
        for c in ports
        if str(facts.value_of(c.args[1])) != str(plan.master_port if plan else None)
    ]
    culprits += [] if culprits else direct
    if not culprits and hosts and (facts.nnodes or 1) > 1:
        culprits = [
            c for c in hosts if str(facts.value_of(c.args[1])) in ("localhost", "127.0.0.1")
        ]
    if not culprits or not begins:
        return
    call = culprits[0]
    value = call.get("init_method", 1) if call.name == INIT else call.args[1]
    shown = facts.value_of(value) or (value.pattern if value else "")
    name = "init_method" if call.name == INIT else str(call.args[0].const)
    if facts.launcher in AGENT_STORE:
        sentence = (
            f"{name} is overwritten with {shown} here, although {facts.launcher} has already set "
            "MASTER_ADDR and MASTER_PORT: its store is on another port, and nobody listens on "
            "this one"
        )
        spans = [place(c.source, c.node) for c in [*ports, *hosts] if c.source is call.source]
        yield at(call, "launcher-port-overridden", sentence, port=shown, variable=name, spans=spans)
    elif facts.target.plan is None and not facts.starts_children and _reads_rank(facts):
        sentence = (
            f"{name} is overwritten here; under torchrun that hides the port its store really has"
        )
        yield at(call, "launcher-port-overridden-maybe", sentence, variable=name)


def _starts_there(facts: ScriptFacts, call: Call) -> bool:
    """Whether the function that nothing here calls also makes the group."""
    begins = (c for c in facts.main.streams[0] if c.name == INIT)
    return not for_nobody(facts, call) and any(
        c.stray and c.stack[:1] == call.stack[:1] for c in begins
    )


def _reads_rank(facts: ScriptFacts) -> bool:
    text = facts.source.text
    return "LOCAL_RANK" in text and "environ" in text


def stale_file(facts: ScriptFacts) -> Iterator[Finding]:
    removed = {
        a.text
        for c in facts.ending("os.remove", "os.unlink", ".unlink", "shutil.rmtree")
        for a in c.args
    }
    if any(c.name.endswith(".unlink") for c in facts.ending(".unlink")):
        return
    for call in facts.calls(INIT, "torch.distributed.FileStore"):
        value = call.get("init_method", 1) if call.name == INIT else call.get("file_name", 0)
        text = facts.value_of(value)
        if not isinstance(text, str) or (call.name == INIT and not text.startswith("file://")):
            continue
        path = Path(text.removeprefix("file://").partition("?")[0])
        if not path.is_absolute():
            path = (facts.target.plan.cwd if facts.target.plan else facts.target.cwd) / path
        if any(r and (r == str(path) or r in text) for r in removed):
            continue
        if value is not None and value.of & _FREE:
            continue
        node = call.node_of("init_method", 1) if call.name == INIT else call.node_of("file_name", 0)
        span = place(call.source, node or call.node)
        try:
            there = path.stat()
        except OSError:
            there = None
        if there is not None and path.is_file():
            sentence = (
                f"the meeting file {path} is left over from an earlier run: new ranks "
                "read the old ranks' addresses from it"
            )
            yield at(
                call,
                "init-file-stale",
                sentence,
                path=str(path),
                mtime=int(there.st_mtime),
                value_span=span,
            )
        else:
            sentence = (
                f"the meeting file {path} has the same name in every run: one that is "
                "killed leaves the old file behind for the next"
            )
            yield at(call, "init-file-stale-maybe", sentence, path=str(path), value_span=span)


CHECKS = (
    port_per_rank,
    port_range,
    port_lost,
    overridden,
    stale_file,
)
