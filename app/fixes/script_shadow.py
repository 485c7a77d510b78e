"""A file that shadows a module, kept out of Python's way without touching it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ddp_assist.app.fixes.launch_words import as_fix, edited, set_variable
from ddp_assist.app.fixes.model import Builder, Fix, Situation
from ddp_assist.probes.launch.plan import Launch, LaunchPlan
from ddp_assist.probes.launch.write import Edit
from ddp_assist.probes.script.facts import script_of

SINCE = (3, 11)
"""The first Python that knows PYTHONSAFEPATH."""


def safe_path(situation: Situation) -> Fix | None:
    """Python leaves the script's folder off its path; only where the script needs nothing there."""
    script = script_of(situation.target)
    if script is None or not _knows(situation) or _needs_its_folder(script):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        yield set_variable(launch, plan, "PYTHONSAFEPATH", "1")

    return as_fix(
        situation,
        "keep Python from looking beside the script (PYTHONSAFEPATH)",
        edited(situation, rule),
        does_not="the file keeps its name, and harms the next script that is started beside it",
    )


def _knows(situation: Situation) -> bool:
    for finding in situation.findings:
        said = str(finding.data.get("python") or "")
        if finding.probe == "torch" and said[:1].isdigit():
            return tuple(int(part) for part in said.split(".")[:2] if part.isdigit()) >= SINCE
    return sys.version_info >= SINCE and situation.target.python is None


def _needs_its_folder(script: Path) -> bool:
    """Whether it imports a file or package that lies beside it."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    wanted: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted.add(node.module.split(".")[0])
    here = {path.stem for path in script.parent.glob("*.py")}
    here |= {path.parent.name for path in script.parent.glob("*/__init__.py")}
    return bool(wanted & (here - sys.stdlib_module_names))


BUILDERS: Mapping[str, Builder] = {"safe-path": safe_path}
