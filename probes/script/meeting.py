"""Mistakes in where and how the ranks meet: addresses, ports, init_process_group."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import AGENT_STORE, INIT, SETTERS, Gang, ScriptFacts
from ddp_assist.probes.script.known import RANK
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Value

_FREE = {"free-port", "random"}
_SCHEMES = {"env", "tcp", "file"}


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


def _same(gang: Gang, call: Call, pick: object) -> list[Value]:
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
                value = pick(other)  # type: ignore[operator]
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
                f"{what} depends on the rank ({' / '.join(sorted(known)) or call.source.code(call.node)}), so every rank looks "
                "for the store on its own port; all ranks need the same MASTER_PORT"
            )
            extra = {
                "mix": place(mix.source, mix.node), "mix_file": str(mix.source.path),
                "keep": mix.source.code(mix.keep),
            } if mix is not None else {}  # fmt: skip
            yield at(
                call, "port-differs-per-rank", sentence, variable=what, ports=sorted(known), **extra
            )
        elif any(v.of & _FREE for v in values) and _own_pick(facts, gang, values):
            sentence = (
                f"{what} is picked anew in each rank, so every rank has another port; it must be "
                "picked once and handed to all ranks"
            )
            yield at(call, "port-differs-per-rank", sentence, variable=what, picked=True)


def _own_pick(facts: ScriptFacts, gang: Gang, values: list[Value]) -> bool:
    """Whether each rank of the gang picks for itself, and is not handed what another picked."""
    if any(c.name.endswith(("random.seed", "manual_seed")) for c in gang.streams[0]) and not any(
        "free-port" in v.of for v in values
    ):
        return False
    picks = [v.call for v in values if v.call is not None]
    inside = any(c.process.number == gang.process.number for c in picks)
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
    for gang, call, values, _ in port_values(facts):
        if gang.process.number == 0 or not any("free-port" in v.of for v in values):
            continue
        pick = next((i for i, c in enumerate(main) if c.name.endswith("getsockname")), None)
        start = next((i for i, c in enumerate(main) if c is gang.process.call), None)
        if pick is None or start is None:
            continue
        between = [
            c
            for c in main[pick + 1 : start]
            if not c.stack and c.name not in ("print", "for") and not _quick(c)
        ]
        if between:
            sentence = (
                "the port is found free and given back here, but the store only takes it later: in "
                "between another process can take it"
            )
            yield at(main[pick], "port-lost-after-pick-maybe", sentence)
        return


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
            sets.append(call)
    ports = [c for c in sets if c.args[0].const == "MASTER_PORT"]
    hosts = [c for c in sets if c.args[0].const == "MASTER_ADDR"]
    direct = [
        c for c in facts.main.streams[0]
        if c.name == INIT and (m := c.get("init_method", 1)) is not None
        and m.text.startswith("tcp://") and not any(w.startswith("env:MASTER") for w in m.of)
    ]  # fmt: skip
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
            f"{name} is overwritten with {shown} here, although {facts.launcher} has already set MASTER_ADDR and "
            "MASTER_PORT: its store is on another port, and nobody listens on this one"
        )
        spans = [place(c.source, c.node) for c in [*ports, *hosts] if c.source is call.source]
        yield at(call, "launcher-port-overridden", sentence, port=shown, variable=name, spans=spans)
    elif facts.target.plan is None and not facts.starts_children and _reads_rank(facts):
        sentence = (
            f"{name} is overwritten here; under torchrun that hides the port its store really has"
        )
        yield at(call, "launcher-port-overridden-maybe", sentence, variable=name)


def _reads_rank(facts: ScriptFacts) -> bool:
    text = facts.source.text
    return "LOCAL_RANK" in text and "environ" in text


def missing_env(facts: ScriptFacts) -> Iterator[Finding]:
    plan = facts.target.plan
    for gang in facts.gangs:
        child = gang.process.number != 0
        if (plan is None and not child) or (not child and facts.launcher in SETTERS):
            continue
        stream = gang.streams[0]
        for index, call in enumerate(stream):
            if call.stray or call.handler or call.depends("env", "initialized") or _asks_env(call):
                continue
            if call.name == "environ.missing" and call.args[0].const in RANK | {
                "WORLD_SIZE",
                "LOCAL_RANK",
                "MASTER_ADDR",
                "MASTER_PORT",
            }:
                if call.tries or str(call.args[0].const).startswith(
                    ("SLURM", "OMPI", "PMI", "MV2")
                ):
                    continue
                names = [str(call.args[0].const)]
            elif call.name == INIT:
                names = _lacking(facts, call, _written(facts, gang, stream[:index]), child)
            else:
                continue
            if names:
                how = (
                    "mp.spawn and Process do not set them"
                    if child
                    else "plain python sets none of them; torchrun does"
                )
                sentence = f"{', '.join(names)} must be in the environment here, and nothing sets {'them' if len(names) > 1 else 'it'} ({how})"
                yield at(
                    call,
                    "missing-env",
                    sentence,
                    names=names,
                    child=child,
                    statement=_statement_line(call),
                )
                return


def _asks_env(call: Call) -> bool:
    return any(
        word.startswith(("env:", "arg:", "initialized", "argv"))
        for test in call.tests
        for word in test.of
    )


def _written(facts: ScriptFacts, gang: Gang, before: tuple[Call, ...]) -> set[object]:
    """Variables the script may have set before: in this process, or in the parent."""
    calls = [*before, *(facts.main.streams[0] if gang.process.number else ())]
    names: set[object] = {
        c.args[0].const for c in calls if c.name in ("environ.set", "environ.setdefault")
    }
    if any(
        c.name.endswith("load_dotenv") or (c.name == "environ.set" and not c.args[0].known)
        for c in calls
    ):
        names |= {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    if "os.environ.update(" in facts.source.text and "os.environ.update" in {c.name for c in calls}:
        names |= {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return names


def _lacking(facts: ScriptFacts, call: Call, written: set[object], child: bool) -> list[str]:
    method = call.get("init_method", 1)
    if call.get("store", 6) is not None and call.get("store", 6).const is not None:  # type: ignore[union-attr]
        return []
    if call.partial or (
        method is not None and method.const is not None and method.const != "env://"
    ):
        return []
    needed = ["MASTER_ADDR", "MASTER_PORT"]
    if call.get("rank", 4) is None:
        needed.append("RANK")
    if call.get("world_size", 3) is None:
        needed.append("WORLD_SIZE")
    unclear = facts.target.plan.unclear if facts.target.plan else frozenset()
    given = set(facts.environment) | set(unclear) | written
    if child and facts.launcher in SETTERS:
        given |= {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"}
    return [name for name in needed if name not in given]


def _statement_line(call: Call) -> int:
    return getattr(call.node, "lineno", 1)


def malformed(facts: ScriptFacts) -> Iterator[Finding]:
    for call in facts.calls(INIT):
        method = call.get("init_method", 1)
        if method is None or (method.known and method.const is None):
            continue
        text = (
            method.const
            if isinstance(method.const, str)
            else method.pattern or facts.value_of(method)
        )
        if not isinstance(text, str) or text.startswith("{}"):
            continue
        wrong = ""
        scheme, separator, rest = text.partition("://")
        if not text:
            wrong = "is empty"
        elif not separator:
            wrong = "has no scheme such as tcp://, file:// or env://"
        elif scheme not in _SCHEMES:
            wrong = f"has the scheme {scheme}://, which torch does not know"
        elif scheme == "tcp":
            wrong = _tcp_fault(rest)
        elif scheme == "file" and not rest.startswith(("/", "{}")):
            wrong = "is no absolute path (file:///path has three slashes)"
        if (
            wrong
            and "registered" not in text
            and "register_rendezvous_handler" not in facts.source.text
        ):
            node = call.node_of("init_method", 1) or call.node
            sentence = f"init_method {text!r} {wrong}"
            yield at(
                call,
                "init-method-malformed",
                sentence,
                value=text,
                value_span=place(call.source, node),
            )


def _tcp_fault(rest: str) -> str:
    if "{}" in rest:
        return "" if ":" in rest or rest == "{}" else "names no port"
    try:
        parts = urlsplit(f"tcp://{rest}")
        port = parts.port
    except ValueError:
        return "" if re.search(r":\d+$", rest) else "has a port that is no number"
    if not parts.hostname:
        return "names no host"
    return "names no port" if port is None else ""


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
            sentence = f"the meeting file {path} is left over from an earlier run: new ranks read the old ranks' addresses from it"
            yield at(
                call,
                "init-file-stale",
                sentence,
                path=str(path),
                mtime=int(there.st_mtime),
                value_span=span,
            )
        else:
            sentence = f"the meeting file {path} has the same name in every run: one that is killed leaves the old file behind for the next"
            yield at(call, "init-file-stale-maybe", sentence, path=str(path), value_span=span)


def group_twice(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        for stream in gang.streams:
            open_call: Call | None = None
            for call in stream:
                if call.stray or call.handler:
                    continue
                if call.name == "torch.distributed.destroy_process_group":
                    open_call = None
                elif call.name == INIT:
                    if call.depends("initialized"):
                        continue
                    if (
                        open_call is not None
                        and not open_call.excludes(call)
                        and not _either(open_call, call)
                    ):
                        first = open_call.source.where(getattr(open_call.node, "lineno", 1))
                        sentence = f"init_process_group is called a second time in the same process (first in {first})"
                        yield at(
                            call, "process-group-twice", sentence, first=first, **_first(open_call)
                        )
                        return
                    open_call = call


def _first(call: Call) -> dict[str, object]:
    return {"first_file": str(call.source.path), "first_span": place(call.source, call.node)}


def _either(first: Call, second: Call) -> bool:
    """Whether conditions of which nothing is known may keep the two apart."""
    return bool(second.path or first.path) and first.path != second.path[: len(first.path)]


def group_missing(facts: ScriptFacts) -> Iterator[Finding]:
    """Collectives or DDP, and nothing in this process that makes a group."""
    if facts.frameworks or not facts.traces[0].complete or _elsewhere(facts):
        return
    for gang in facts.gangs:
        stream = gang.streams[0]
        if any(_makes_group(c.name) for c in stream):
            continue
        for call in stream:
            if (
                call.stray
                or call.handler
                or call.tries
                or call.depends("initialized")
                or call.tests
            ):
                continue
            if _needs_group(call):
                if (
                    gang.process.number
                    and any(c.name == INIT for c in facts.main.streams[0])
                    and gang.process.method != "spawn"
                ):
                    continue
                what = call.name.rpartition(".")[2]
                sentence = f"{what} needs a process group, but init_process_group is never called in this process"
                yield at(call, "process-group-missing", sentence, what=what)
                return


def _makes_group(name: str) -> bool:
    return name == INIT or name.endswith(
        (
            "init_device_mesh",
            "init_distributed",
            "init_rpc",
            "ProcessGroupGloo",
            "init_process_group",
        )
    )


def _needs_group(call: Call) -> bool:
    from ddp_assist.probes.script.known import COLLECTIVES

    start, _, last = call.name.rpartition(".")
    if start == "torch.distributed" and last in COLLECTIVES:
        return True
    if call.name in ("torch.distributed.get_rank", "torch.distributed.get_world_size"):
        return True
    return call.name == "torch.nn.parallel.DistributedDataParallel"


def _elsewhere(facts: ScriptFacts) -> bool:
    """Whether a foreign library may make the group."""
    pattern = re.compile(
        r"init|setup|launch|dist|prepare|engine|runner|parallel|fabric|strategy|mesh", re.I
    )
    for call in facts.main.calls:
        top = call.name.partition(".")[0]
        if (
            "." in call.name
            and top in facts.imports
            and top
            not in (
                "torch",
                "os",
                "sys",
                "logging",
                "random",
                "numpy",
                "datetime",
                "time",
                "argparse",
                "multiprocessing",
                "socket",
            )
        ):
            last = call.name.rpartition(".")[2]
            if (
                pattern.search(call.name)
                and not isinstance(call.node, ast.For)
                and last != "ArgumentParser"
            ):
                return True
    return False


def local_as_global(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        for call in gang.streams[0]:
            if call.name == INIT:
                value, position, keyword = call.get("rank", 4), 4, "rank"
            elif call.name.endswith("DistributedSampler"):
                value, position, keyword = call.get("rank", 2), 2, "rank"
            else:
                continue
            if value is None or value.role != "local-rank":
                continue
            node = call.node_of(keyword, position) or call.node
            span = place(call.source, node)
            if facts.nnodes is not None and facts.nnodes > 1:
                sentence = (
                    "LOCAL_RANK is given as the rank: it starts at 0 on every node, so two nodes have the "
                    "same ranks; the global one is RANK"
                )
                yield at(call, "local-rank-as-rank", sentence, value_span=span)
                return
            if facts.nnodes is None and facts.target.plan is None:
                sentence = "LOCAL_RANK is given as the rank, which is only right on a single node"
                yield at(call, "local-rank-as-rank-maybe", sentence, value_span=span)
                return


def world_size(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        for call in gang.streams[0]:
            if call.name != INIT or call.stray or call.tests:
                continue
            value, rank = call.get("world_size", 3), call.get("rank", 4)
            told = facts.value_of(value)
            if (
                not isinstance(told, int)
                or isinstance(told, bool)
                or gang.size is None
                or gang.many is None
            ):
                continue
            own = gang.process.number == 0 or (rank is not None and rank.role == "index")
            if not own or told == gang.size:
                continue
            parent = any(c.name == INIT for c in facts.main.streams[0]) and gang.process.number
            if rank is not None and rank.role == "index" and (rank.number or 0) > 0:
                if parent:
                    continue
                sentence = f"ranks count from {rank.number} here, so rank 0, which hosts the store, is never started"
                yield at(call, "rank-never-started", sentence, world_size=told, started=gang.size)
                return
            if told > gang.size and not parent:
                sentence = f"world_size is {told}, but {gang.size} processes are started: they wait for ranks that nobody starts"
                begun = gang.process.call
                node = begun.node_of("nprocs", 2) if begun is not None else None
                span = (
                    place(call.source, node)
                    if node is not None and begun is not None and begun.source is call.source
                    else None
                )
                yield at(
                    call,
                    "world-size-mismatch",
                    sentence,
                    world_size=told,
                    started=gang.size,
                    started_span=span,
                )
                return
            if told < gang.size:
                sentence = f"world_size is {told}, but {gang.size} processes are started: ranks from {told} on are refused"
                yield at(call, "world-size-mismatch", sentence, world_size=told, started=gang.size)
                return


CHECKS = (
    port_per_rank, port_range, port_lost, overridden, missing_env, malformed, stale_file, group_twice,
    group_missing, local_as_global, world_size,
)  # fmt: skip
