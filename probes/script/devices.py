"""Mistakes with devices: which GPU, which backend, where a tensor lies."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import INIT, Gang, ScriptFacts
from ddp_assist.probes.script.forks import uses_cuda
from ddp_assist.probes.script.ranks import TENSOR, collectives
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call, Value

_MAKES = re.compile(r"^torch\.(ones|zeros|tensor|rand|randn|full|empty|arange|randint|eye)$")


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
            value = call.get("tensor", TENSOR.get(call.name.rpartition(".")[2], 0))
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
            sentence = (
                f"{what} gets a tensor that lies on the CPU, but the group is nccl, which "
                "only knows GPUs"
            )
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
    index = 1 if len(call.args) > 1 and value is call.args[1] else 0
    given = call.node.args if isinstance(call.node, ast.Call) else []
    return value, given[index] if len(given) > index else call.node


def gpu_index(facts: ScriptFacts) -> Iterator[Finding]:
    for gang in facts.gangs:
        if gang.process.via == "spawn":
            continue
        for call in gang.streams[0]:
            chosen = _device_index(call)
            if chosen is None or call.stray:
                continue
            value, node = chosen
            if value.role != "rank" and "global-rank" not in value.of:
                continue
            span = place(call.source, node)
            if (facts.nnodes or 1) > 1:
                sentence = (
                    "the global rank is used as the GPU's index: from the second node on "
                    "there is no such GPU; LOCAL_RANK is the index"
                )
                spans = list(_by_rank(gang, call))
                yield at(call, "gpu-global-rank-index", sentence, value_span=span, spans=spans)
                return
            if facts.target.plan is None:
                sentence = (
                    "the global rank is used as the GPU's index, which is only right on a "
                    "single node"
                )
                yield at(call, "gpu-global-rank-index-maybe", sentence, value_span=span)
                return


def _by_rank(gang: Gang, first: Call) -> Iterator[list[int]]:
    """Everywhere in this file where the rank itself says which GPU is meant."""
    seen: set[int] = set()
    for call in gang.streams[0]:
        if call.source is not first.source or id(call.node) in seen:
            continue
        seen.add(id(call.node))
        chosen = _device_index(call)
        ids, node = call.get("device_ids"), call.node_of("device_ids")
        parts = [chosen] if chosen is not None else []
        if ids is not None and ids.items and isinstance(node, ast.List | ast.Tuple):
            parts += zip(ids.items, node.elts, strict=False)
        out, node = call.get("output_device"), call.node_of("output_device")
        parts += [(out, node)] if out is not None and node is not None else []
        for value, where in parts:
            told = isinstance(where, ast.JoinedStr | ast.BinOp) and "global-rank" in value.of
            if value.role == "rank" or told:
                yield place(call.source, where)
    rank = next((c.node_of("rank", 4) for c in gang.streams[0] if c.name == INIT), None)
    for text in ast.walk(first.source.tree or ast.Pass()):
        if isinstance(text, ast.JoinedStr) and isinstance(rank, ast.Name):
            code = first.source.code(text)
            if code.strip("frFR'\"") == f"cuda:{{{rank.id}}}":
                yield place(first.source, text)


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
            if (d := _device_index(c)) is not None
            and (d[0].of - {"cuda"} or d[0].role)
            and ("rank" in d[0].of or not d[0].known)
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
            sentence = (
                "every rank uses the same GPU here: choose it by LOCAL_RANK "
                "(torch.cuda.set_device) before anything else touches CUDA"
            )
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
                sentence = (
                    "torch.load without map_location puts every rank's copy on the GPU it "
                    "was saved from, mostly GPU 0"
                )
                end = place(call.source, call.node)
                yield at(call, "gpu-map-location-maybe", sentence, insert=[end[2], end[3] - 1])
                return


CHECKS = (
    cpu_tensor,
    no_nccl,
    gpu_index,
    gpu_shared,
    map_location,
)
