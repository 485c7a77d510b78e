"""A diagnosis as Markdown, HTML, JSON or text; redacted, and looked at again before it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any, Literal

from ddp_assist.app.files import WriteFailed, write_private
from ddp_assist.app.report.html import html
from ddp_assist.app.report.markdown import markdown
from ddp_assist.app.report.plain import plain
from ddp_assist.app.report.redact import Redactor, standard_redactor
from ddp_assist.app.report.secrets import data
from ddp_assist.app.report.sections import MORE

Format = Literal["md", "html", "json", "txt"]

__all__ = ["Format", "Redactor", "ReportBlocked", "render", "standard_redactor", "write_report"]


class ReportBlocked(WriteFailed):
    """The finished report still held something that looks like a secret; nothing was written."""


def render(diagnosis: Mapping[str, Any], form: Format, redactor: Redactor) -> str:
    """The same diagnosis and the same redactor give the same bytes."""
    shown = redactor.json(_shown(diagnosis))
    if form == "json":
        return json.dumps(shown, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    footer = _footer(redactor)
    if form == "html":
        return html(shown, footer)
    return markdown(shown, footer) if form == "md" else plain(shown, footer)


def write_report(
    diagnosis: Mapping[str, Any], form: Format, path: Path, redactor: Redactor | None = None
) -> None:
    redactor = redactor or standard_redactor()
    text = render(diagnosis, form, redactor)
    left = redactor.scan(unescape(text) if form == "html" else text)
    if left:
        raise ReportBlocked(f"{path} was not written: it still holds a secret ({left[0]})")
    write_private(path, text)


def _footer(redactor: Redactor) -> str:
    hidden = ", ".join(f"{kind} {n}" for kind, n in sorted(redactor.counts.items())) or "nothing"
    return f"Hidden: {hidden}. This is no guarantee: read before posting."


def _shown(diagnosis: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of an environment only what speaks of the launch; the others are a number."""
    environment = diagnosis.get("environment")
    if not isinstance(environment, Mapping):
        return diagnosis
    return {**diagnosis, "environment": allowed(environment)}


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may be shown, and how many more there are."""
    fields = data("fields.toml")
    names, families = {*fields["environment"], MORE}, tuple(fields["families"])
    shown = {k: v for k, v in environment.items() if k in names or k.startswith(families)}
    hidden = len(environment) - len(shown)
    return {**shown, MORE: str(hidden)} if hidden else shown
