"""What the script asks of torch, against what this torch has."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, Target
from ddp_assist.probes.script.facts import read_facts, script_of
from ddp_assist.probes.script.read import ScriptError, Source
from ddp_assist.probes.script.torch_names import used

BACKEND = re.compile(r"nccl|mpi|ucc|xccl|gloo", re.I)
"""Names that a build has or has not with the back-end: other answers of `torch` tell of those."""


def lacking(
    target: Target, names: Mapping[str, Sequence[str]], data: Mapping[str, Any]
) -> Iterator[Finding]:
    """Names that are nowhere in this torch, and those that are elsewhere or spelt otherwise."""
    for source, module, name, line in _missing(target, names):
        said = f"torch {data['version']} has no {module}.{brief(name, 80)}"
        right = _meant(module, name, names)
        where = source.where(line)
        see = Evidence(where, (brief(source.line(line).strip(), 200),))
        facts = {**data, "name": f"{module}.{brief(name, 80)}", "line": line, "meant": right}
        if right:
            yield Finding("torch", "misnamed", f"{where}: {said}, but {right}", facts, (see,))
        else:
            yield Finding("torch", "lacks", f"{where}: {said}", facts, (see,))


def _missing(
    target: Target, names: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Source, str, str, int]]:
    script = script_of(target)
    if script is None:
        return
    try:
        project = read_facts(target, script).project
    except (ScriptError, RecursionError):
        return  # the probe of scripts says so
    if project.main.tree is not None:
        for module in sorted(_imported(project.main.tree)):
            project.module(module)
    known = {module: frozenset(there) for module, there in names.items()}
    for source in project.read():
        if source.tree is None:
            continue
        if any(name.startswith("torch_") for name in _imported(source.tree)):
            continue  # back-ends of other vendors put names of theirs into torch
        for (module, name), line in used(source.tree, frozenset(known)).items():
            if name not in known[module] and not BACKEND.search(name):
                yield source, module, name, line


def _imported(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
    return found


def _meant(module: str, name: str, names: Mapping[str, Sequence[str]]) -> str:
    """Where the name is, or how it is spelt there."""
    for other, there in names.items():
        if name in there and other != module:
            return f"{other}.{name}"
    close = difflib.get_close_matches(name, names[module], n=1, cutoff=0.8)
    return f"{module}.{close[0]}" if close else ""
