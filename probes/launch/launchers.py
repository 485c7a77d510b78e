"""What the words of each launcher say: how many nodes and ranks, where they meet, what runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddp_assist.probes.launch import hosts
from ddp_assist.probes.launch import options as tables
from ddp_assist.probes.launch.accelerate_config import config_path, configured
from ddp_assist.probes.launch.expand import Field
from ddp_assist.probes.launch.options import Table, cut
from ddp_assist.probes.launch.plan import Option, Span

PYTHON = re.compile(r"(?:i?python|pypy)[\d.]*(?:-dbg)?")
NOTEBOOK = re.compile(r"jupyter(-(notebook|lab|nbconvert|execute|run))?|papermill")
"""What runs or opens a notebook, whose kernel is one plain Python."""
MODULES = {
    "torch.distributed.run": "torch.distributed.run",
    "torch.distributed.launch": "torch.distributed.launch",
    "torch.distributed.elastic.run": "torch.distributed.run",
    "accelerate.commands.launch": "accelerate",
    "deepspeed.launcher.runner": "deepspeed",
    "composer.cli.launcher": "composer",
}
COMMANDS = {
    "torchrun": "torchrun", "deepspeed": "deepspeed", "ds": "deepspeed", "composer": "composer",
    "accelerate-launch": "accelerate", "torchpippy": "torchrun",
}  # fmt: skip
TWO_WORDS = {
    ("accelerate", "launch"): "accelerate",
    ("colossalai", "run"): "colossalai",
    ("fabric", "run"): "lightning",
    ("lightning", "run"): "lightning",
}
TABLES: Mapping[str, Table] = {
    "torchrun": tables.TORCHRUN,
    "torch.distributed.run": tables.TORCHRUN,
    "torch.distributed.launch": tables.TORCHRUN,
    "accelerate": tables.ACCELERATE,
    "deepspeed": tables.DEEPSPEED,
    "lightning": tables.LIGHTNING,
    "composer": tables.COMPOSER,
    "colossalai": tables.COLOSSALAI,
}
ELASTIC = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})


@dataclass(frozen=True, slots=True)
class Start:
    """A launcher found in front of some words, and where its own words begin."""

    launcher: str
    at: int
    span: Span
    python: str | None = None


def recognise(words: Sequence[Field], i: int) -> Start | None:
    """The launcher that starts at `words[i]`, if one does."""
    if i >= len(words) or not words[i].known:
        return None
    first, name = words[i], os.path.basename(words[i].text)
    if name in COMMANDS:
        return Start(COMMANDS[name], i + 1, first.span)
    second = words[i + 1].text if i + 1 < len(words) else ""
    if (name, second) in TWO_WORDS:
        at = i + 2 + (TWO_WORDS[name, second] == "lightning" and words[i + 2 :][:1] != []
                      and words[i + 2].text == "model")  # fmt: skip
        return Start(TWO_WORDS[name, second], at, (first.span[0], words[at - 1].span[1]))
    if NOTEBOOK.fullmatch(name):
        return _notebook(words, i)
    if not PYTHON.fullmatch(name):
        return None
    return _python(words, i)


def _notebook(words: Sequence[Field], i: int) -> Start | None:
    """`jupyter VERB [options] FILE.ipynb`; without a notebook nothing is known to run."""
    for at in range(i + 1, len(words)):
        if words[at].known and words[at].text.endswith(".ipynb"):
            return Start("python", at, (words[i].span[0], words[at - 1].span[1]))
    return None


def _python(words: Sequence[Field], i: int) -> Start:
    """`python [flags] -m MODULE` is another launcher's start; all else is plain python."""
    python, at = words[i].text, i + 1
    while at < len(words) and words[at].text.startswith("-") and len(words[at].text) > 1:
        text = words[at].text
        if text[1] in "mc":
            break
        at += 2 if text[-1] in tables.PYTHON_VALUES and len(text) == 2 else 1
    rest = words[at:]
    if rest and rest[0].text in ("-m",) and len(rest) > 1 and rest[1].text in MODULES:
        end = at + 2
        if rest[1].text.startswith("accelerate.") and rest[2:] and rest[2].text == "launch":
            end += 1
        span = (words[i].span[0], words[end - 1].span[1])
        return Start(MODULES[rest[1].text], end, span, python)
    if rest and rest[0].text.startswith("-mtorch.distributed."):
        module = MODULES.get(rest[0].text[2:], "python")
        return Start(module, at + 1, (words[i].span[0], rest[0].span[1]), python)
    if rest and os.path.basename(rest[0].text) in COMMANDS and not rest[0].text.endswith(".py"):
        inner = recognise(words, at)
        if inner is not None:
            return Start(inner.launcher, inner.at, (words[i].span[0], inner.span[1]), python)
    if len(rest) > 1 and (os.path.basename(rest[0].text), rest[1].text) in TWO_WORDS:
        inner = recognise(words, at)
        if inner is not None:
            return Start(inner.launcher, inner.at, (words[i].span[0], inner.span[1]), python)
    return Start("python", at, (words[i].span[0], words[at - 1].span[1]), python)


def describe(
    start: Start, words: Sequence[Field], env: Mapping[str, str], cwd: Path
) -> dict[str, Any]:
    """The fields of a plan, from the words behind the launcher and the variables it sees."""
    if start.launcher == "python":
        return _plain(words, start.at, env)
    options, strange, at = cut(words, start.at, TABLES[start.launcher])
    given = {o.name: o for o in options}
    fields = _target(words, at, given)
    fields |= {
        "options": tuple(options),
        "not_understood": tuple(w.text for w in strange),
    }
    if start.launcher in ELASTIC:
        fields |= _elastic(given, env)
    elif start.launcher == "accelerate":
        fields |= _accelerate(given, env, cwd)
    else:
        fields |= _numbers(given)
    if start.launcher in ("deepspeed", "colossalai"):
        fields |= _started(start.launcher, given, cwd)
    return fields


def _target(words: Sequence[Field], at: int, given: Mapping[str, Option]) -> dict[str, Any]:
    """What runs on every rank, and its arguments."""
    module = bool({"module", "module-mode"} & set(given))
    if at >= len(words):
        return {"module": module}
    word = words[at]
    fields: dict[str, Any] = {
        "module": module,
        "script": word.text if word.known else None,
        "script_span": word.span,
        "script_args": tuple(w.text for w in words[at + 1 :]),
    }
    if "no-python" in given and word.known and PYTHON.fullmatch(os.path.basename(word.text)):
        inner = _plain(words, _python(words, at).at, {})
        kept = ("script", "script_span", "script_args", "module")
        fields |= {k: inner[k] for k in kept if k in inner}
    return fields


def _plain(words: Sequence[Field], at: int, env: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "master_addr": env.get("MASTER_ADDR"),
        "master_port": env.get("MASTER_PORT"),
        "node_rank": whole(env.get("NODE_RANK")),
    }
    if at >= len(words):
        return fields
    text = words[at].text
    if text.startswith("-m"):
        name = words[at + 1 : at + 2] if text == "-m" else [words[at]]
        used = at + (2 if text == "-m" else 1)
        script = name[0].text if name and text == "-m" else text[2:]
        return fields | {
            "module": True, "script": script or None,
            "script_span": name[0].span if name else None,
            "script_args": tuple(w.text for w in words[used:]),
        }  # fmt: skip
    if text.startswith("-c") or text == "-":
        return fields | {"script_args": tuple(w.text for w in words[at + 1 :])}
    return fields | {
        "script": text if words[at].known else None,
        "script_span": words[at].span,
        "script_args": tuple(w.text for w in words[at + 1 :]),
    }


def whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\s*-?\d{1,9}\s*", text) else None


def node_range(text: str | None) -> tuple[int, int] | None:
    """`2` and `1:4` as the least and the most nodes."""
    low, _, high = (text or "").partition(":")
    first, last = whole(low), whole(high or low)
    return None if first is None or last is None else (first, last)


def _elastic(given: Mapping[str, Option], env: Mapping[str, str]) -> dict[str, Any]:
    def say(name: str, default: str | None = None) -> str | None:
        if name in given:
            return given[name].value
        return env.get("PET_" + name.upper().replace("-", "_"), default)

    nproc = say("nproc-per-node", "1")
    return {
        "nnodes": node_range(say("nnodes", "1:1")),
        "nproc": nproc if whole(nproc) is None else whole(nproc),
        "node_rank": whole(say("node-rank")),
        "rdzv_backend": say("rdzv-backend"),
        "rdzv_endpoint": say("rdzv-endpoint") or None,
        "rdzv_id": say("rdzv-id"),
        "master_addr": say("master-addr"),
        "master_port": say("master-port"),
        "standalone": "standalone" in given or env.get("PET_STANDALONE") == "1",
        "module": "module" in given or env.get("PET_MODULE") == "1",
    }


def _accelerate(
    given: Mapping[str, Option], env: Mapping[str, str], cwd: Path
) -> dict[str, Any]:
    config = configured(config_path(given.get("config-file"), env, cwd))

    def say(name: str) -> str | None:
        if name in given:
            return given[name].value
        return config.get(name.replace("-", "_"))

    machines, processes = whole(say("num-machines")), whole(say("num-processes"))
    each = None if processes is None else processes // max(machines or 1, 1)
    nodes = (machines, machines) if machines else None
    deepspeed = "use-deepspeed" in given or config.get("distributed_type") == "DEEPSPEED"
    several = deepspeed and (machines or 1) > 1
    return (hosts.started("accelerate", say, cwd) if several else {}) | {
        "nnodes": nodes or ((1, 1) if "num-machines" not in given else None),
        "nproc": each,
        "node_rank": whole(say("machine-rank")),
        "master_addr": say("main-process-ip"),
        "master_port": say("main-process-port"),
        "rdzv_backend": say("rdzv-backend"),
    }


def _started(launcher: str, given: Mapping[str, Option], cwd: Path) -> dict[str, Any]:
    def say(name: str) -> str | None:
        return (given[name].value or "") if name in given else None

    fields = hosts.started(launcher, say, cwd)
    count = len(fields["hosts"])
    if launcher == "colossalai" and count > 1 and "master-addr" not in given:
        fields["master_addr"] = "127.0.0.1"  # its own default, on each of them
    return fields | ({"nnodes": (count, count)} if count else {})


def _numbers(given: Mapping[str, Option]) -> dict[str, Any]:
    """DeepSpeed, Composer, Colossal-AI and Lightning, which differ only in their names."""

    def say(*names: str) -> str | None:
        return next((given[n].value for n in names if n in given), None)

    nodes = whole(say("num-nodes", "nnodes"))
    local = whole(say("num-gpus", "nproc-per-node", "nproc", "devices", "num-accelerators"))
    world = whole(say("world-size"))
    if nodes is None and world and local:
        nodes = world // local
    return {
        "nnodes": None if nodes is None or nodes < 1 else (nodes, nodes),
        "nproc": local,
        "node_rank": whole(say("node-rank")),
        "master_addr": say("master-addr", "main-address"),
        "master_port": say("master-port", "main-port"),
    }
