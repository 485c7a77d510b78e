"""A case as Markdown, HTML, JSON or text; redaction."""
