"""Mistakes in who hosts a store and who shares it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import AGENT_STORE, INIT, Gang, ScriptFacts, handed
from ddp_assist.probes.script.known import STORES
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Function, Instance, Value

TCP = "torch.distributed.TCPStore"
_HOLDERS = tuple(f"{store}()" for store in STORES)
_MANY = 64
"""More ranks than this are not started by hand: such a third argument was meant as a size."""


def hosted(facts: ScriptFacts) -> Iterator[Finding]:
    """Several processes that host one port, or none."""
    calls = facts.calls(TCP)
    if not calls:
        return
    masters = [c for c in calls if _master(c) is not False]
    for gang in facts.gangs:
        seen = [[c for c in stream if c.name == TCP and not c.stray] for stream in gang.streams]
        if not seen[0]:
            continue
        call = seen[0][0]
        always = [_master(_matching(call, other)) for other in seen]
        port = call.get("port", 1)
        fixed = (
            port is not None
            and (port.known and port.const != 0 or not port.known)
            and not ({"rank", "free-port"} & port.of)
        )
        many = gang.many is True or (gang.many is None and _runs_as_many(facts, call))
        if all(m is True for m in always) and fixed and many and not call.tests:
            sentence = (
                "is_master is True in every rank, so each of them tries to host the "
                "store; only one may"
            )
            node = call.node_of("is_master", 3)
            span = place(call.source, node) if node is not None else None
            rank, option = rank_name(facts, gang, call), _told_by_caller(facts, gang, call, node)
            yield at(call, "store-hosted-twice", sentence, value_span=span, rank=rank, **option)
            return
        agent = (
            facts.launcher in AGENT_STORE and port is not None and port.role == "env:MASTER_PORT"
        )
        if agent and True in always:
            sentence = (
                f"{facts.launcher} already hosts a store on MASTER_PORT; this one tries to host "
                "another on the same port"
            )
            node = call.node_of("is_master", 3)
            yield at(
                call,
                "store-hosted-twice",
                sentence,
                value_span=place(call.source, node) if node else None,
                agent=True,
            )
            return
        again = _second_host(facts, gang, call, always)
        if again is not None:
            yield at(
                again,
                "store-hosted-twice",
                "this hosts a store on the port where the script already hosts one; hand the "
                "store over with store=",
                made_span=place(call.source, call.node),
            )
            return
    rival = _rivals(facts)
    if rival is not None:
        first, second = rival
        where = first.source.where(getattr(first.node, "lineno", 1))
        sentence = (
            f"this hosts a store on the port where {where} already hosts one in another process; "
            "only one of them may"
        )
        node = second.node_of("is_master", 3)
        yield at(
            second,
            "store-hosted-twice",
            sentence,
            value_span=place(second.source, node) if node is not None else None,
            agent=node is not None,
        )
        return
    calls = [c for c in calls if not c.stray]
    if masters or not calls:
        return
    call = calls[0]
    host, port = call.get("host_name", 0), call.get("port", 1)
    if (
        port is None
        or port.role == "env:MASTER_PORT"
        or "argv" in port.of
        or (host is not None and "argv" in host.of)
    ):
        return
    scripts = [p.script_path for p in facts.target.plans]
    if any(path is not None and path != scripts[0] for path in scripts):
        return  # another script of the launch may host it
    sentence = "is_master is True in no process, so nobody hosts the store and all wait to connect"
    span = place(call.source, call.node)
    several = (
        call.get("world_size", 2) is not None
        or any(g.process.number for g in facts.gangs)
        or len(scripts) > 1
    )
    gang = next((g for g in facts.gangs if g.process.number == call.process.number), facts.main)
    outcome = "store-not-hosted" if several else "store-not-hosted-maybe"
    yield at(
        call,
        outcome,
        sentence,
        value_span=span,
        rank=rank_name(facts, gang, call),
        **_parent(facts, gang, call),
    )


def _told_by_caller(
    facts: ScriptFacts, gang: Gang, call: Call, node: ast.expr | None
) -> dict[str, object]:
    """Where a function is called that leaves is_master to its caller, and the rank there."""
    caller = call.stack[-1] if call.stack else None
    tree = call.source.tree
    if not isinstance(node, ast.Name) or not isinstance(caller, ast.Call) or tree is None:
        return {}
    around = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and node in ast.walk(n)]
    inner = max(around, key=lambda n: n.lineno, default=None)
    parameters = [*inner.args.args, *inner.args.kwonlyargs] if inner is not None else []
    if node.id not in {p.arg for p in parameters} or caller not in set(ast.walk(tree)):
        return {}
    rank = rank_name(facts, gang, replace(call, node=caller))
    return {"caller": place(call.source, caller), "option": node.id, "caller_rank": rank}


def _rivals(facts: ScriptFacts) -> tuple[Call, Call] | None:
    """A host in the script itself, and one on the same port in a process that it starts."""
    if facts.main.many is True:
        return None

    def hosts(stream: tuple[Call, ...]) -> list[Call]:
        return [
            c
            for c in stream
            if c.name == TCP and _master(c) is True and not c.stray and not c.tests
        ]

    for first in hosts(facts.main.streams[0]):
        port = facts.value_of(first.get("port", 1))
        for gang in facts.gangs[1:]:
            for second in hosts(gang.streams[0]):
                if port and str(facts.value_of(second.get("port", 1))) == str(port):
                    return first, second
    return None


def _matching(call: Call, others: list[Call]) -> Call:
    return next((o for o in others if o.node is call.node), call)


def _master(call: Call) -> bool | None:
    """Whether a TCPStore call hosts; None where that is not known."""
    value = call.get("is_master", 3)
    if value is None:
        return None if call.partial else False
    return bool(value.const) if value.known else None


def _runs_as_many(facts: ScriptFacts, call: Call) -> bool:
    """Of a script of which nobody says how often it is started."""
    if facts.starts_children and call.process.number == 0:
        return False
    size = facts.value_of(call.get("world_size", 2))
    ranks = [c.get("rank", 4) for c in facts.calls(INIT)]
    own = any(r is not None and (r.of & {"argv", "rank"} or r.role) for r in ranks)
    return isinstance(size, int) and 1 < size <= _MANY and (own or "rank" in facts.source.text)


def rank_name(facts: ScriptFacts, gang: Gang, where: Call) -> str:
    """How the rank is called where something happens, for a correction; "" where nobody can say."""
    names = visible(where)
    for call in gang.streams[0]:
        node = call.node_of("rank", 4) if call.name == INIT else None
        if node is not None and _spelt_with(node, names):
            return call.source.code(node)
    function = gang.process.function
    if (
        function is not None
        and gang.process.via == "spawn"
        and not isinstance(function.node, ast.Lambda)
    ):
        first = [a.arg for a in function.node.args.args if a.arg not in ("self", "cls")][:1]
        if first and first[0] in names:
            return first[0]
    if function is not None and gang.process.call is not None:
        parameters, given = function.node.args.args, handed(gang.process.call)
        told = [
            p.arg for p, v in zip(parameters, given, strict=False)
            if v.role == "index" and gang.process.via == "process" and p.arg in names
        ]  # fmt: skip
        if len(told) == 1:
            return told[0]
    if "rank" in names:
        return "rank"
    numbered = {name for name in _told_a_number(where.source.tree) if name in names}
    return numbered.pop() if len(numbered) == 1 else ""


def _told_a_number(tree: ast.AST | None) -> Iterator[str]:
    """Names that hold a number from the command line, `me = int(sys.argv[1])`: who somebody is."""
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value)
            if made.startswith("int(sys.argv[") and isinstance(node.targets[0], ast.Name):
                yield node.targets[0].id


def _spelt_with(node: ast.expr, names: set[str]) -> bool:
    used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return bool(used) and used <= names | {"int"}


def visible(call: Call) -> set[str]:
    """The names that are bound before a call, in the function or module that holds it."""
    tree = call.source.tree or ast.Module([], [])
    line = getattr(call.node, "lineno", 0)
    imported = {
        (a.asname or a.name).partition(".")[0]
        for n in tree.body
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    }
    scope: ast.AST = tree
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and call.node in ast.walk(node):
            scope = node
    given = {a.arg for a in scope.args.args} if isinstance(scope, ast.FunctionDef) else set()
    bound = {
        n.id
        for n in ast.walk(scope)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.lineno < line
    }
    return imported | given | bound


def _parent(facts: ScriptFacts, gang: Gang, call: Call) -> dict[str, object]:
    """Where the parent starts its workers, and which names the store's place is spelt with."""
    begun = gang.process.call
    host, port = call.node_of("host_name", 0), call.node_of("port", 1)
    if begun is None or host is None or port is None or begun.source is not call.source:
        return {}
    tree = call.source.tree or ast.Module([], [])
    plain = {
        t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets
        if isinstance(t, ast.Name)
    }  # fmt: skip
    used = {n.id for part in (host, port) for n in ast.walk(part) if isinstance(n, ast.Name)}
    if not used <= plain:
        return {}
    where = f"{call.source.code(host)}, {call.source.code(port)}"
    maker = call.source.code(call.node.func) if isinstance(call.node, ast.Call) else ""
    return {"parent": place(begun.source, begun.node), "maker": maker, "endpoint": where}


def _second_host(
    facts: ScriptFacts, gang: Gang, call: Call, always: list[bool | None]
) -> Call | None:
    """env:// or tcp:// on the very port that the script hosts itself."""
    port = facts.value_of(call.get("port", 1))
    if always[0] is not True or port in (None, 0):
        return None
    stream = gang.streams[0]
    told = [
        c
        for c in stream
        if c.name == "environ.set"
        and c.args[0].const == "MASTER_PORT"
        and str(facts.value_of(c.args[1])) == str(port)
    ]
    for later in stream[stream.index(call) + 1 :] if call in stream else ():
        if later.name != INIT or later.get("store", 6) is not None or later.partial:
            continue
        method = later.get("init_method", 1)
        text = method.text if method is not None else ""
        if (told and (not text or text == "env://")) or text.endswith(f":{port}"):
            return later
    return None


def shared(facts: ScriptFacts) -> Iterator[Finding]:
    """One store in several processes."""
    for gang in facts.gangs:
        call = gang.process.call
        for index, item in enumerate(handed(call) if call is not None else []):
            if call is not None and (item.kind in _HOLDERS or _held_inside(item)):
                how = (
                    "can't be pickled for"
                    if gang.process.method not in ("fork", "default")
                    else "must not be shared with"
                )
                sentence = (
                    f"a store object {how} another process: hand over host and port, and "
                    "open a client in each"
                )
                node = call.node_of("args", 1 if gang.process.via == "spawn" else 3)
                whole = item.kind in _HOLDERS and isinstance(node, ast.Tuple | ast.List)
                elements = node.elts if whole and isinstance(node, ast.Tuple | ast.List) else []
                item_node = elements[index] if index < len(elements) else None
                function = gang.process.function
                parameter = ""
                if item_node and function and not isinstance(function.node, ast.Lambda):
                    names = [a.arg for a in function.node.args.args]
                    at_index = index + (gang.process.via == "spawn")
                    parameter = names[at_index] if at_index < len(names) else ""
                made = item.call
                yield at(
                    call,
                    "store-object-shared",
                    sentence,
                    item_span=place(call.source, item_node) if item_node is not None else None,
                    parameter=parameter,
                    function_file=str(function.source.path) if function is not None else "",
                    function_span=place(function.source, function.node)
                    if function is not None
                    else None,
                    store_span=place(made.source, made.node) if made is not None else None,
                    host=made.source.code(made.node_of("host_name", 0) or made.node)
                    if made is not None
                    else "",
                )
                return
        if not gang.process.number:
            continue
        for used in gang.streams[0]:
            receiver = used.receiver
            if receiver is None or receiver.kind not in _HOLDERS or receiver.call is None:
                continue
            if receiver.call.process.number == 0 and gang.process.method in ("fork", "default"):
                sentence = (
                    "the workers are forked and use the parent's store connection together: "
                    "their requests "
                    "and answers mix; open a client in each"
                )
                made, function = receiver.call, gang.process.function
                known = made.get("port", 1)
                fixed = known is not None and known.const not in (0, None) and known.known
                where = {"made": place(made.source, made.node)} if made.top and fixed else {}
                if function is not None and function.source is made.source is used.source:
                    where["worker"] = place(function.source, function.node)
                yield at(used, "store-object-shared", sentence, **where)
                return


def _held_inside(item: Value, depth: int = 0) -> bool:
    """Whether an object, a table or a list that is handed over holds a store."""
    if depth > 2:
        return False
    parts = [*(item.items or ()), *(item.table or {}).values()]
    if isinstance(item.target, Instance):
        parts += item.target.attrs.values()
    elif isinstance(item.target, Function):
        parts += [*item.target.given, *item.target.named.values()]
        parts += [item.target.first] if item.target.first is not None else []
    return any(p.kind in _HOLDERS or _held_inside(p, depth + 1) for p in parts)


def left_early(facts: ScriptFacts) -> Iterator[Finding]:
    """The host sets something and goes, while others still ask for it."""
    for gang in facts.gangs:
        if gang.many is False:
            continue
        host = next(
            (
                c
                for c in gang.streams[0]
                if c.name == TCP and _master(c) is True and c.process.number == gang.process.number
            ),
            None,
        )
        if host is None:
            continue
        other = gang.streams[-1]
        client = next((c for c in other if c.name == TCP and _master(c) is False), None)
        if client is None:
            continue
        rest = gang.streams[0][gang.streams[0].index(host) + 1 :]
        waits = [
            c
            for c in rest
            if c.name.endswith(("Store().get", "Store().wait", ".barrier", ".join", "time.sleep"))
            or c.name in (INIT, "while")
            or c.name == "input"
        ]
        asks = [
            c
            for c in other[other.index(client) + 1 :]
            if c.name.endswith(("Store().get", "Store().wait"))
        ]
        if (
            asks
            and not waits
            and rest
            and not any(
                c.name.startswith("torch.distributed.") and "Store" not in c.name for c in rest
            )
        ):
            sentence = (
                "the rank that hosts the store does not wait for the others: when it "
                "ends, the store is gone"
            )
            slow = any(c.name == "time.sleep" for c in other[: other.index(asks[0])])
            yield at(host, "store-left-early" if slow else "store-left-early-maybe", sentence)
            return


CHECKS = (
    hosted,
    shared,
    left_early,
)
