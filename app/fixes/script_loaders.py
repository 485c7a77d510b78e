"""DataLoaders without worker processes, where these have no room to hand their batches over."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from ddp_assist.app.fixes.model import Builder, Fix, Situation
from ddp_assist.app.fixes.script_text import Text, argument
from ddp_assist.probes.script.facts import read_facts, script_of
from ddp_assist.probes.script.read import ScriptError

_OF_WORKERS = {
    "prefetch_factor": "None",
    "persistent_workers": "False",
    "multiprocessing_context": "None",
    "timeout": "0",
}
"""What a DataLoader without workers must not be told, and what it is told instead."""


def without_workers(situation: Situation) -> Fix | None:
    """Every DataLoader of the script loads in the rank itself."""
    script = script_of(situation.target)
    if script is None:
        return None
    texts: dict[Path, Text] = {}
    try:
        facts = read_facts(situation.target, script)
        loaders = facts.calls("torch.utils.data.DataLoader")
        for call in {id(call.node): call for call in loaders}.values():
            node = call.node
            if facts.frameworks or call.partial or not isinstance(node, ast.Call):
                return None
            text = texts.setdefault(call.source.path, Text(call.source))
            _empty(text, node)
        made = [text.corrected() for text in texts.values() if text.changed]
    except (ScriptError, RecursionError, ValueError):
        return None
    if not made or not all(made):
        return None
    return Fix(
        situation.cause,
        "load the data in the ranks themselves, without worker processes",
        "edit",
        launch=situation.target.launch,
        files=tuple(edit for edit in made if edit is not None),
        does_not="Loading is slower so; a larger /dev/shm keeps the workers"
        " (docker run --shm-size=16g, or --ipc=host)",
    )


def _empty(text: Text, call: ast.Call) -> None:
    workers = argument(call, "num_workers", 5)
    if workers is None or ast.unparse(workers) == "0":
        return
    text.replace(text.place(workers), "0")
    for name, off in _OF_WORKERS.items():
        value = argument(call, name)
        if value is not None:
            text.replace(text.place(value), off)


BUILDERS: Mapping[str, Builder] = {"no-loader-workers": without_workers}
