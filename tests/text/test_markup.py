"""No screen hands text to a part of Textual that would read markup in it.

Foreign text is shown by our own widgets, which draw cleaned `Content`; whoever needs another widget
of Textual's must first show that it reads no markup, and name it here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "screens").rglob("*.py")), *sorted((ROOT / "app").glob("tui*.py"))]
SILENT = {"Input"}
"""Widgets that show what is typed and parse nothing."""
WRAPPED = {"Static": "screens/widgets/frame.py"}
"""Widgets that parse, and the one file that uses them with markup off."""
PARSED = {"border_title", "border_subtitle", "tooltip", "placeholder", "title", "sub_title", "label"}  # noqa: E501
"""Attributes that Textual parses, so only words of our own may stand in them."""


def offences(source: str, where: str = "") -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "textual.widgets":
            found += [
                f"line {node.lineno}: {name.name}"
                for name in node.names
                if name.name not in SILENT and WRAPPED.get(name.name) != where
            ]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            off = any(k.arg == "markup" and ast.unparse(k.value) == "False" for k in node.keywords)
            if name.endswith(("notify", "from_markup")) and not off:
                found.append(f"line {node.lineno}: {name}")
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parsed = any(isinstance(t, ast.Attribute) and t.attr in PARSED for t in targets)
            ours = node.value is None or isinstance(node.value, ast.Constant)
            found += [f"line {node.lineno}: {ast.unparse(node)}"] if parsed and not ours else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_screen_lets_foreign_text_be_markup(path: Path) -> None:
    assert offences(path.read_text("utf-8"), str(path.relative_to(ROOT))) == []


@pytest.mark.parametrize(
    "source",
    [
        "from textual.widgets import DataTable", "from textual.widgets import Static",
        "self.notify(text)", "app.notify(text, markup=True)", "self.border_title = name",
        "Content.from_markup(text)",
    ],
)  # fmt: skip
def test_the_look_itself_sees(source: str) -> None:
    assert offences(source)
