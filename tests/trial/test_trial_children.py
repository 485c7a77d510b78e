"""The child scripts run in users' environments, which are old."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from ddp_assist.probes.trial.guarded import CHILDREN

SCRIPTS = sorted(path for path in CHILDREN.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_children_run_on_old_pythons_with_the_standard_library(path: Path) -> None:
    """Python 3.8 must read them, and nothing but torch is needed."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [])  # fmt: skip
        for name in names:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or (top == "torch" and path.name != "guard.py")
