"""A finding about a script: the sentence, the exact place, the line itself."""

from __future__ import annotations

import ast
from typing import Any

from ddp_assist.probes.model import Evidence, Finding
from ddp_assist.probes.script.read import Source
from ddp_assist.probes.script.value import Call


def spot(outcome: str, sentence: str, source: Source, node: ast.AST, **data: Any) -> Finding:
    """`{where}` in the sentence becomes file and line."""
    at = source.span(node)
    where = source.where(at.line)
    evidence = Evidence(
        f"{source.path}:{at.line}",
        (source.line(at.line).strip()[:200],),
        ("sed", "-n", f"{at.line}p", str(source.path)),
    )
    place = {
        "file": str(source.path), "line": at.line, "col": at.col, "end_line": at.end_line,
        "end_col": at.end_col, "where": where, "notebook": source.notebook,
    }  # fmt: skip
    return Finding("script", outcome, f"{where}: {sentence}", place | data, (evidence,))


def at(call: Call, outcome: str, sentence: str, **data: Any) -> Finding:
    """A finding at the place of a call."""
    return spot(outcome, sentence, call.source, call.node, **data)


def place(source: Source, node: ast.AST) -> list[int]:
    """A span as a JSON value."""
    span = source.span(node)
    return [span.line, span.col, span.end_line, span.end_col]
