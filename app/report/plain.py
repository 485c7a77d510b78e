"""A report as plain text, for a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddp_assist.app.report.sections import sections


def plain(diagnosis: Mapping[str, Any], footer: str) -> str:
    parts: list[str] = []
    for section in sections(diagnosis):
        parts.append(section.title.upper())
        for block in section.blocks:
            lead = "" if block.kind == "text" else "  "
            parts.append("\n".join(lead + line for line in block.text.split("\n")))
        parts.append("")
    return "\n".join([*parts, footer]) + "\n"
