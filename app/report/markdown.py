"""A report in Markdown: text from elsewhere only inside fences it cannot close."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ddp_assist.app.report.sections import sections


def markdown(diagnosis: Mapping[str, Any], footer: str) -> str:
    parts = ["# ddp-assist: fix report"]
    for section in sections(diagnosis):
        parts.append(f"## {section.title}")
        for block in section.blocks:
            parts.append(block.text if block.kind == "text" else fenced(block.text, block.language))
    return "\n\n".join([*parts, "---", footer]) + "\n"


def fenced(text: str, language: str = "") -> str:
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return f"{fence}{language or 'text'}\n{text}\n{fence}"
