"""Mistakes between ranks: collectives that not all enter, shares and models that differ."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import INIT, ScriptFacts
from ddp_assist.probes.script.known import COLLECTIVES
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Class, Function, Instance, Value

DDP = "torch.nn.parallel.DistributedDataParallel"
_GROUP = "torch.distributed.new_group"
_MAKES = re.compile(r"^torch\.(ones|zeros|tensor|rand|randn|full|empty|arange|randint|eye)$")


_PATIENCE = 1800
"""Seconds after which gloo gives up, unless it is told otherwise."""
TENSOR = {
    "all_reduce": 0,
    "broadcast": 0,
    "reduce": 0,
    "all_gather": 1,
    "gather": 0,
    "all_gather_into_tensor": 1,
    "reduce_scatter_tensor": 1,
}
"""Which argument is the tensor that must have the same shape in all ranks."""


def collectives(stream: tuple[Call, ...]) -> list[Call]:
    """What a rank does together with all others, in order."""
    return [
        c
        for c in stream
        if c.name.startswith("torch.distributed.")
        and c.name.rpartition(".")[0] == "torch.distributed"
        and (c.name.rpartition(".")[2] in COLLECTIVES or c.name.endswith(".new_group"))
        and not c.handler
        and not _own_group(c)
    ]


def _own_group(call: Call) -> bool:
    group = call.get("group")
    return group is not None and group.const is not None and not group.kind.endswith("WORLD")


def order(facts: ScriptFacts) -> Iterator[Finding]:
    """The sequences of collectives of two ranks, compared."""
    if not all(t.complete for t in facts.traces):
        return
    for gang in facts.gangs:
        if gang.many is False:
            continue
        first, second = (collectives(gang.streams[0]), collectives(gang.streams[-1]))
        names = [[c.name for c in s] for s in (first, second)]
        if names[0] == names[1]:
            continue
        keys = [[(c.name, id(c.node)) for c in s] for s in (first, second)]
        matcher = SequenceMatcher(None, keys[0], keys[1], autojunk=False)
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            if tag == "equal" or names[0][i1:i2] == names[1][j1:j2]:
                continue
            call = first[i1] if i1 < i2 else second[j1]
            if call.stack and _unsure(call):
                continue
            who = "rank 0" if i1 < i2 else "the other ranks"
            what = call.name.rpartition(".")[2]
            mixed = sorted(names[0]) == sorted(names[1]) or tag == "replace"
            if mixed:
                other = second[j1] if j1 < j2 else second[min(j1, len(second) - 1)]
                there = (
                    f"{other.name.rpartition('.')[2]} in "
                    f"{other.source.where(getattr(other.node, 'lineno', 1))}"
                )
                sentence = (
                    f"{who} calls {what} here while the others call {there}: all ranks "
                    "must call the same collectives in the same order"
                )
                yield at(
                    call,
                    "collective-order",
                    sentence,
                    collective=what,
                    other=there,
                    other_file=str(other.source.path),
                    other_span=place(other.source, other.node),
                )
            else:
                sentence = (
                    f"only {who} calls {what}; every rank must, or those that do wait for ever"
                )
                where = {**_branch(call), "on_rank": _on_rank(facts, call)}
                where["frames"] = [
                    [str(call.source.path), place(call.source, n)]
                    for n in call.stack
                    if call.source.tree is not None and n in set(ast.walk(call.source.tree))
                ]
                yield at(call, "collective-skipped", sentence, collective=what, who=who, **where)
            return


def members_only(facts: ScriptFacts) -> Iterator[Finding]:
    """A group of some ranks that only its members make."""
    if facts.last is None or not facts.last.complete or not facts.traces[0].complete:
        return
    made = {id(c.node) for c in facts.last.calls if c.name == _GROUP}
    for call in facts.main.streams[0]:
        if call.name != _GROUP or call.stray or call.tests or id(call.node) in made:
            continue
        if made:
            continue  # they may make another one in its place
        sentence = (
            "new_group is only called by some ranks; all must call it, also those that are not "
            "in the group"
        )
        where = {**_branch(call), "on_rank": _on_rank(facts, call), "frames": []}
        yield at(call, "collective-skipped", sentence, collective="new_group", **where)
        return


def _unsure(call: Call) -> bool:
    return call.stray and bool(call.tests)


def _on_rank(facts: ScriptFacts, call: Call) -> list[list[int]]:
    """Each `if` of the file whose condition was seen to depend on the rank."""
    on_rank = facts.traces[0].on_rank
    tree = call.source.tree
    nodes = [n for n in ast.walk(tree) if id(n) in on_rank] if tree is not None else []
    return [place(call.source, n) for n in nodes]


def _branch(call: Call) -> dict[str, object]:
    """The `if` on the rank around a collective, for the correction."""
    source = call.source
    best: ast.If | None = None
    line = getattr(call.node, "lineno", 0)
    for node in ast.walk(source.tree) if source.tree is not None else ():
        if not isinstance(node, ast.If) or (best is not None and node.lineno < best.lineno):
            continue
        if node.body[0].lineno <= line <= (node.body[-1].end_lineno or 0):
            best = node
    return {"branch": place(source, best)} if best is not None else {}


def sizes(facts: ScriptFacts) -> Iterator[Finding]:
    """Models and tensors whose shape is made from the rank."""
    for gang in facts.gangs:
        if gang.many is False:
            continue
        first, second = gang.streams[0], gang.streams[-1]
        wrapped = any(c.name == DDP for c in first)
        twins = {id(c.node): c for c in second}
        for call in first:
            twin = twins.get(id(call.node))
            if twin is None or call.stray or twin.name != call.name:
                continue
            if wrapped and re.match(
                r"torch\.nn\.(?!functional|parallel|init|utils)\w+$", call.name
            ):
                pairs = [
                    *zip(call.args, twin.args, strict=False),
                    *((v, twin.kwargs[k]) for k, v in call.kwargs.items() if k in twin.kwargs),
                ]
                differs = [a for a, b in pairs if differs_by_rank(a, b)]
                if differs:
                    sentence = (
                        f"{call.name.rpartition('.')[2]} is built with another size on "
                        "each rank; DDP needs the same model on all"
                    )
                    grouped = any(c.name == INIT for c in first[: first.index(call)])
                    named = _named(call, twin) if grouped else []
                    more = {**_mixed(differs), "names": named}
                    yield at(call, "shape-mismatch", sentence, model=True, **more)
                    return
            last = call.name.rpartition(".")[2]
            if last in TENSOR and call.name.startswith("torch.distributed."):
                where = TENSOR[last]
                made = call.args[where].call if len(call.args) > where else None
                other = twin.args[where].call if len(twin.args) > where else None
                if made is not None and other is not None and _shape_differs(made, other):
                    sentence = (
                        f"the tensor given to {call.name.rpartition('.')[2]} has another "
                        "shape on each rank"
                    )
                    sizes = [*made.args, *(i for a in made.args for i in a.items or ())]
                    yield at(
                        call,
                        "shape-mismatch",
                        sentence,
                        made=made.source.where(getattr(made.node, "lineno", 1)),
                        **_mixed(sizes),
                    )
                    return


def _mixed(sizes: list[Value]) -> dict[str, object]:
    """Where the rank is added to a size that is the same for all, for the correction."""
    for value in sizes:
        if value.mix is not None:
            mix = value.mix
            where = {"mix": place(mix.source, mix.node), "mix_file": str(mix.source.path)}
            return {**where, "keep": mix.source.code(mix.keep)}
    return {}


def _named(call: Call, twin: Call) -> list[str]:
    """The variables that hold a size of its own in each rank, for the correction."""
    args = call.node.args if isinstance(call.node, ast.Call) else []
    found = []
    for node, here, there in zip(args, call.args, twin.args, strict=False):
        numbers = isinstance(here.const, int) and isinstance(there.const, int)
        if isinstance(node, ast.Name) and numbers and differs_by_rank(here, there):
            found.append(node.id)
    return found


def differs_by_rank(first: Value, second: Value) -> bool:
    return (
        first.known
        and second.known
        and first.const != second.const
        and not isinstance(first.const, bool)
        and "rank" in first.of | second.of
    )


def _shape_differs(first: Call, second: Call) -> bool:
    if not _MAKES.match(first.name) or first.name != second.name:
        return False
    last = first.name.rpartition(".")[2]
    if last in ("tensor", "arange"):
        return False
    count = 1 if last == "full" else len(first.args)
    return any(
        differs_by_rank(a, b) for a, b in zip(first.args[:count], second.args, strict=False)
    ) or any(
        differs_by_rank(x, y)
        for a, b in zip(first.args[:count], second.args, strict=False)
        for x, y in zip(a.items or [], b.items or [], strict=False)
    )


def busy(facts: ScriptFacts) -> Iterator[Finding]:
    """Long work on one rank alone while the others stand in the next collective."""
    for gang in facts.gangs:
        if gang.many is False:
            continue
        first, second = gang.streams[0], {id(c.node) for c in gang.streams[-1]}
        for index, call in enumerate(first):
            nap = call.args[0].number if call.name == "time.sleep" and call.args else None
            if (
                nap is not None
                and nap >= 600
                and id(call.node) not in second
                and any(c in first[index:] for c in collectives(first))
            ):
                yield at(
                    call,
                    "rank0-busy" if nap > _PATIENCE else "rank0-busy-maybe",
                    f"one rank alone waits {nap} s here while the others stand in the next "
                    "collective",
                )
                return


def unused(facts: ScriptFacts) -> Iterator[Finding]:
    """Layers that forward never uses, in a model that DDP wraps."""
    for call in facts.calls(DDP):
        for option in ("find_unused_parameters", "static_graph"):
            value = call.get(option)
            if value is not None and value.const is not False:
                return
        model = call.get("module", 0)
        owner = (
            model.target.owner if model is not None and isinstance(model.target, Instance) else None
        )
        if (
            owner is None
            or call.partial
            or not owner.comes_from("nn.Module")
            or owner.find("forward") is None
        ):
            continue
        layers = _layers(owner)
        untouched = _untouched(facts, model, owner, layers)
        text = "\n".join(s.text for s in facts.project.read())
        lone = [
            n
            for n in layers
            if len(re.findall(rf"\.{re.escape(n)}\b", text)) == 1
            and "getattr" not in text
            and ".children()" not in text
            and ".modules()" not in text
            and "_modules" not in text
        ]
        lone = lone or untouched
        if lone and "requires_grad" not in text and "no_sync" not in text:
            names = ", ".join(lone)
            sentence = (
                f"{owner.node.name}.{names} takes no part in forward, so DDP waits for "
                "gradients that never come"
            )
            node = call.node
            end = place(call.source, node)
            yield at(call, "unused-parameters", sentence, names=lone, insert=[end[2], end[3] - 1])
            return


def _untouched(
    facts: ScriptFacts, model: Value | None, owner: Class, layers: list[str]
) -> list[str]:
    """Layers that forward, followed as it is called, never looks at."""
    forward = owner.find("forward")
    held = model.target if model is not None else None
    entered = facts.traces[0].entered
    if (
        not isinstance(held, Instance)
        or forward is None
        or not isinstance(forward.target, Function)
        or id(forward.target.node) not in entered
        or not facts.traces[0].complete
        or not held.used
    ):
        return []
    text = forward.target.source.text
    if any(word in text for word in ("getattr", ".children()", ".modules()", "_modules")):
        return []
    return [name for name in layers if name not in held.used]


def _layers(owner: Class) -> list[str]:
    """Attributes that __init__ gives a torch.nn layer with parameters."""
    start = owner.find("__init__")
    if start is None or not isinstance(start.target, Function):
        return []
    names = []
    for node in ast.walk(start.target.node):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            targets = target.elts if isinstance(target, ast.Tuple) else [target]
            values = (
                node.value.elts
                if isinstance(node.value, ast.Tuple)
                else [node.value] * len(targets)
            )
            for part, value in zip(targets, values, strict=False):
                if isinstance(part, ast.Attribute) and isinstance(value, ast.Call):
                    name = (
                        value.func.attr
                        if isinstance(value.func, ast.Attribute)
                        else getattr(value.func, "id", "")
                    )
                    if re.match(
                        r"(Linear|Conv\d?d|ConvTranspose\d?d|Embedding|LSTM|GRU|LayerNorm|BatchNorm\dd|Bilinear|MultiheadAttention)$",
                        name,
                    ):
                        names.append(part.attr)
    return names


CHECKS = (
    order,
    members_only,
    sizes,
    busy,
    unused,
)
