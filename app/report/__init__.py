"""A case as Markdown, HTML, JSON or text; redaction."""

from ddp_assist.app.report.redact import standard_redactor

__all__ = ["standard_redactor"]
