"""`ddp-assist jobs` is a verb of the public command line whose work is not there yet."""

from __future__ import annotations

from ddp_assist.app.cli import Wrong


def run(verb: str, words: list[str]) -> int:
    raise Wrong(f"{verb} is not built yet; see ddp-assist diagnose")
