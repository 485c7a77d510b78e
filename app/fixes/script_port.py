"""Another port where the script itself names it."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path

from ddp_assist.app.fixes.model import Builder, FileEdit, Fix, Situation
from ddp_assist.probes.network.ports import free_port
from ddp_assist.probes.script.facts import script_of


def another_port_in_script(situation: Situation) -> Fix | None:
    """Replaces the number wherever the script writes it: as a number, or inside a string."""
    port, script = situation.value("port"), script_of(situation.target)
    free = free_port()
    if port is None or script is None or free is None:
        return None
    try:
        before = script.read_text("utf-8")
        after = replaced(before, int(port), free)
    except (OSError, UnicodeDecodeError, SyntaxError, tokenize.TokenError):
        return None
    if after == before:
        return None
    return Fix(
        situation.cause,
        f"meet on port {free}, which is free here",
        "edit",
        launch=situation.target.launch,
        files=(FileEdit(Path(script), before, after),),
        does_not=f"whoever has port {port} keeps it",
        trial={"addr": "127.0.0.1", "port": free},
    )


def replaced(source: str, port: int, free: int) -> str:
    lines = source.splitlines(keepends=True)
    number = re.compile(rf"(?<!\d){port}(?!\d)")
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        words = token.type == tokenize.STRING or token.string.startswith(("f'", 'f"'))
        if not (token.type == tokenize.NUMBER and token.string == str(port) or words):
            continue
        (row, start), (end_row, end) = token.start, token.end
        if row == end_row:
            line = lines[row - 1]
            lines[row - 1] = line[:start] + number.sub(str(free), line[start:end]) + line[end:]
    return "".join(lines)


BUILDERS: Mapping[str, Builder] = {"another-port-in-script": another_port_in_script}
