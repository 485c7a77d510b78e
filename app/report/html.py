"""A report as one HTML file: no script, nothing fetched, every foreign character escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from textwrap import wrap
from typing import Any

from ddp_assist.app.hosts_drawn import svg
from ddp_assist.app.report.sections import sections, stage_line

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(diagnosis: Mapping[str, Any], footer: str) -> str:
    style = (files("ddp_assist.assets") / "templates" / "report.css").read_text("utf-8")
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>ddp-assist: fix report</title>\n<style>\n{style}</style>\n</head>\n<body>",
        "<h1>ddp-assist: fix report</h1>",
    ]
    for section in sections(diagnosis):
        parts.append(f"<h2>{escape(section.title)}</h2>")
        if section.title == "Trial":
            parts.append(timeline(diagnosis["trial"].get("stages") or ()))
        if section.title == "Hosts":
            parts.append(svg(diagnosis.get("links") or ()))
        for block in section.blocks:
            tag = "p" if block.kind == "text" else "pre"
            parts.append(f"<{tag}>{escape(block.text)}</{tag}>")
        if section.title == "Answer" and diagnosis.get("path"):
            parts.append(walk(diagnosis["path"]))
    return "\n".join([*parts, f"<footer>{escape(footer)}</footer>\n</body>\n</html>"]) + "\n"


def walk(path: Sequence[Any]) -> str:
    """The questions of the walk with their answers, one below the other, down to the cause."""
    rows, y = [], 10
    for n, step in enumerate(path[:40]):
        lines = wrap(_label(step), 72, max_lines=4, placeholder=" ...") or [""]
        height = 16 + 16 * len(lines)
        if n:
            rows.append(f'<line x1="260" y1="{y - 18}" x2="260" y2="{y}"></line>')
        rows.append(f'<rect x="10" y="{y}" width="500" height="{height}" rx="4"></rect>')
        for m, line in enumerate(lines):
            rows.append(f'<text x="22" y="{y + 20 + 16 * m}">{escape(line)}</text>')
        y += height + 18
    return _svg("The walk from the symptom to the cause", 520, y, rows)


def timeline(stages: Sequence[Mapping[str, Any]]) -> str:
    """When each rank reached each stage; a stage without a time failed or was never reached."""
    timed = [s for s in stages if isinstance(s.get("seconds"), (int, float))][:200]
    if not timed:
        return ""
    longest = max(max(float(s["seconds"]) for s in timed), 1e-9)
    rows = []
    for n, stage in enumerate(timed):
        y, width = 8 + n * 22, max(2.0, 300 * float(stage["seconds"]) / longest)
        kind = ' class="failed"' if stage.get("error") else ""
        said = stage_line({**stage, "error": None})
        rows.append(f'<rect{kind} x="210" y="{y}" width="{width:.1f}" height="14"></rect>')
        rows.append(f'<text x="4" y="{y + 12}">{escape(said[:60])}</text>')
    return _svg("The stages of the trial", 520, len(timed) * 22 + 14, rows)


def _svg(title: str, width: int, height: int, rows: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" role="img"><title>{escape(title)}</title>'
    return "\n".join([head, *rows, "</svg>"])


def _label(step: Any) -> str:
    if not isinstance(step, Mapping):
        return str(step)
    said = step.get("question") or step.get("title") or step.get("step") or step.get("id") or ""
    answer = step.get("answer") or step.get("outcome") or step.get("finding")
    return f"{said} {answer}" if answer else str(said)
