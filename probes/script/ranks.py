"""Mistakes between ranks: collectives that not all enter, models and devices that do not fit."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.children import uses_cuda
from ddp_assist.probes.script.facts import INIT, Gang, ScriptFacts
from ddp_assist.probes.script.known import COLLECTIVES
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Class, Function, Instance, Value

_DDP = "torch.nn.parallel.DistributedDataParallel"
_MAKES = re.compile(r"^torch\.(ones|zeros|tensor|rand|randn|full|empty|arange|randint|eye)$")
_METHODS = re.compile(r"\.(wait_for_everyone|gather|gather_for_metrics|reduce|backward)$")


def collectives(stream: tuple[Call, ...]) -> list[Call]:
    """What a rank does together with all others, in order."""
    return [
        c for c in stream
        if c.name.startswith("torch.distributed.") and c.name.rpartition(".")[0] == "torch.distributed"
        and c.name.rpartition(".")[2] in COLLECTIVES and not c.handler and not _own_group(c)
    ]  # fmt: skip


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
                there = f"{other.name.rpartition('.')[2]} in {other.source.where(getattr(other.node, 'lineno', 1))}"
                sentence = f"{who} calls {what} here while the others call {there}: all ranks must call the same collectives in the same order"
                yield at(call, "collective-order", sentence, collective=what, other=there)
            else:
                sentence = (
                    f"only {who} calls {what}; every rank must, or those that do wait for ever"
                )
                yield at(
                    call, "collective-skipped", sentence, collective=what, who=who, **_branch(call)
                )
            return


def _unsure(call: Call) -> bool:
    return call.stray and bool(call.tests)


def _branch(call: Call) -> dict[str, object]:
    """The `if` on the rank around a collective, for the correction."""
    source = call.source
    best: ast.If | None = None
    line = getattr(call.node, "lineno", 0)
    for node in ast.walk(source.tree) if source.tree is not None else ():
        if isinstance(node, ast.If) and node.body[0].lineno <= line <= (
            node.body[-1].end_lineno or 0
        ):
            if best is None or node.lineno > best.lineno:
                best = node
    return {"branch": place(source, best)} if best is not None else {}


def sizes(facts: ScriptFacts) -> Iterator[Finding]:
    """Models and tensors whose shape is made from the rank."""
    for gang in facts.gangs:
        if gang.many is False:
            continue
        first, second = gang.streams[0], gang.streams[-1]
        wrapped = any(c.name == _DDP for c in first)
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
                differs = [a for a, b in pairs if _differs(a, b)]
                if differs:
                    sentence = f"{call.name.rpartition('.')[2]} is built with another size on each rank; DDP needs the same model on all"
                    yield at(call, "shape-mismatch", sentence, model=True)
                    return
            if (
                call.name.rpartition(".")[2] in ("all_reduce", "broadcast", "reduce")
                and call.name.startswith("torch.distributed.")
                and call.args
            ):
                made, other = call.args[0].call, twin.args[0].call if twin.args else None
                if made is not None and other is not None and _shape_differs(made, other):
                    sentence = f"the tensor given to {call.name.rpartition('.')[2]} has another shape on each rank"
                    yield at(
                        call,
                        "shape-mismatch",
                        sentence,
                        made=made.source.where(getattr(made.node, "lineno", 1)),
                    )
                    return


def _differs(first: Value, second: Value) -> bool:
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
        _differs(a, b) for a, b in zip(first.args[:count], second.args, strict=False)
    ) or any(
        _differs(x, y)
        for a, b in zip(first.args[:count], second.args, strict=False)
        for x, y in zip(a.items or [], b.items or [], strict=False)
    )


def uneven(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        if gang.many is False or any("Join" in w.kind for c in gang.streams[0] for w in c.within):
            continue
        wrapped = any(c.name == _DDP for c in gang.streams[0])
        loops = [
            {id(c.node): c for c in stream if c.name == "for" and not c.stray}
            for stream in gang.streams
        ]
        for key, call in loops[0].items():
            twin = loops[-1].get(key)
            here, there = call.args[0], twin.args[0] if twin is not None else None
            if (
                there is None
                or "rank" not in here.of | there.of
                or not _together(gang, call, wrapped)
            ):
                continue
            if here.count is not None and there.count is not None:
                if here.count == there.count:
                    continue
                sentence = (
                    f"the ranks take a different number of steps in this loop ({here.count} on one, {there.count} on "
                    "another): the one with fewer leaves the others waiting"
                )
                yield at(call, "uneven-inputs", sentence, steps=[here.count, there.count])
                return
            if "shard" in here.of:
                sentence = (
                    "this loop runs over the rank's own share: where the shares are uneven, the rank "
                    "with fewer steps leaves the others waiting"
                )
                yield at(call, "uneven-inputs-maybe", sentence)
                return


def _together(gang: Gang, call: Call, wrapped: bool) -> bool:
    """Whether the ranks need each other in the body of a loop."""
    body = call.node.body if isinstance(call.node, ast.For) else []
    lines = {getattr(n, "lineno", 0) for part in body for n in ast.walk(part)}
    inside = [
        c
        for c in gang.streams[0]
        if any(getattr(n, "lineno", 0) in lines for n in (*c.stack, c.node))
    ]
    return bool(collectives(tuple(inside))) or (
        wrapped and any(c.name.endswith(".backward") for c in inside)
    )


def busy(facts: ScriptFacts) -> Iterator[Finding]:
    """Long work on one rank alone while the others stand in a collective with the default time limit."""
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
                    "rank0-busy-maybe",
                    f"one rank alone waits {nap} s here while the others stand in the next collective",
                )
                return


def unused(facts: ScriptFacts) -> Iterator[Finding]:
    """Layers that forward never uses, in a model that DDP wraps."""
    for call in facts.calls(_DDP):
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
        if lone and "requires_grad" not in text and "no_sync" not in text:
            names = ", ".join(lone)
            sentence = f"{owner.node.name}.{names} takes no part in forward, so DDP waits for gradients that never come"
            node = call.node
            end = place(call.source, node)
            yield at(call, "unused-parameters", sentence, names=lone, insert=[end[2], end[3] - 1])
            return


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


# Devices


def backend_of(gang: Gang) -> str | None:
    for call in gang.streams[0]:
        if call.name == INIT:
            value = call.get("backend", 0)
            return value.const if value is not None and isinstance(value.const, str) else None
    return None


def cpu_tensor(facts: ScriptFacts) -> Iterator[Finding]:
    if "set_default_device" in facts.source.text or "set_default_tensor_type" in facts.source.text:
        return
    for gang in facts.gangs:
        if backend_of(gang) != "nccl":
            continue
        for call in collectives(gang.streams[0]):
            value = call.args[0] if call.args else None
            made = value.call if value is not None else None
            if (
                made is None
                or value is None
                or not _MAKES.match(made.name)
                or value.kind != f"{made.name}()"
            ):
                continue
            if made.get("device") is not None or any(
                w.kind.startswith("torch.device") for w in made.within
            ):
                continue
            what = call.name.rpartition(".")[2]
            sentence = f"{what} gets a tensor that lies on the CPU, but the group is nccl, which only knows GPUs"
            yield at(
                call,
                "cpu-tensor-on-nccl",
                sentence,
                made_span=place(made.source, made.node),
                made_file=str(made.source.path),
            )
            return


def no_nccl(facts: ScriptFacts) -> Iterator[Finding]:
    torch = [f for f in facts.target.seen if f.probe == "torch"]
    lacks = [
        f
        for f in torch
        if f.outcome == "no-nccl"
        or f.data.get("nccl") is False
        or f.data.get("nccl_available") is False
    ]
    if not lacks:
        return
    for gang in facts.gangs:
        for call in gang.streams[0]:
            value = call.get("backend", 0) if call.name == INIT else None
            if value is not None and value.const == "nccl" and not call.tests and not call.stray:
                node = call.node_of("backend", 0) or call.node
                sentence = "the backend is nccl, and the torch that runs this was built without it"
                yield at(call, "nccl-not-in-build", sentence, value_span=place(call.source, node))
                return


def _device_index(call: Call) -> tuple[Value, ast.AST] | None:
    """The index of the GPU that a call chooses."""
    if call.name == "torch.cuda.set_device" and call.args:
        value = call.args[0]
    elif (
        call.name == "torch.device" and len(call.args) > 1 and call.args[0].text.startswith("cuda")
    ):
        value = call.args[1]
    elif (
        call.name == "torch.device"
        and call.args
        and call.args[0].text.startswith("cuda:")
        or call.name.endswith((".to", ".cuda"))
        and call.args
        and not call.name.startswith("torch.cuda")
    ):
        value = call.args[0]
    else:
        return None
    node = call.node.args[0] if isinstance(call.node, ast.Call) and call.node.args else call.node
    return value, node


def gpu_index(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        if gang.process.via == "spawn":
            continue
        for call in gang.streams[0]:
            chosen = _device_index(call)
            if chosen is None or call.stray:
                continue
            value, node = chosen
            if value.role != "rank":
                continue
            span = place(call.source, node)
            if (facts.nnodes or 1) > 1:
                sentence = "the global rank is used as the GPU's index: from the second node on there is no such GPU; LOCAL_RANK is the index"
                yield at(call, "gpu-global-rank-index", sentence, value_span=span)
                return
            if facts.target.plan is None:
                sentence = "the global rank is used as the GPU's index, which is only right on a single node"
                yield at(call, "gpu-global-rank-index-maybe", sentence, value_span=span)
                return


def gpu_shared(facts: ScriptFacts) -> Iterator[Finding]:
    """Every rank on the same GPU."""
    if (
        facts.frameworks
        or "CUDA_VISIBLE_DEVICES" in facts.source.text
        or "CUDA_VISIBLE_DEVICES" in facts.environment
    ):
        return
    for gang in facts.gangs:
        if gang.many is not True or not any(c.name == INIT for c in gang.streams[0]):
            continue
        stream = [c for c in gang.streams[0] if not c.stray]
        chooses = [
            c
            for c in stream
            if (d := _device_index(c)) is not None and (d[0].of - {"cuda"} or d[0].role)
        ]
        if chooses or backend_of(gang) == "gloo":
            continue
        for call in stream:
            chosen = _device_index(call)
            fixed = chosen is not None and (
                chosen[0].const in (0, "cuda:0") and not isinstance(chosen[0].const, bool)
            )
            if call.tests or not (
                fixed
                or (uses_cuda(call) and not call.args and call.name.endswith(".cuda"))
                or (chosen is not None and chosen[0].const == "cuda")
            ):
                continue
            sentence = "every rank uses the same GPU here: choose it by LOCAL_RANK (torch.cuda.set_device) before anything else touches CUDA"
            yield at(
                call,
                "gpu-shared-by-ranks",
                sentence,
                value_span=place(call.source, chosen[1]) if fixed and chosen else None,
            )
            return


def map_location(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        if gang.many is False or facts.frameworks or backend_of(gang) != "nccl":
            continue
        for call in gang.streams[0]:
            if (
                call.name == "torch.load"
                and call.get("map_location", 1) is None
                and not call.partial
                and not call.stray
            ):
                sentence = "torch.load without map_location puts every rank's copy on the GPU it was saved from, mostly GPU 0"
                end = place(call.source, call.node)
                yield at(call, "gpu-map-location-maybe", sentence, insert=[end[2], end[3] - 1])
                return


CHECKS = (
    order,
    sizes,
    uneven,
    busy,
    unused,
    cpu_tensor,
    no_nccl,
    gpu_index,
    gpu_shared,
    map_location,
)
