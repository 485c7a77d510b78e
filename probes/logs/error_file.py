"""The error.json that a worker of torchrun leaves: its traceback put back into lines."""

from __future__ import annotations

import re

from ddp_assist.probes.logs import plain_json

# Where the message is a text, as torch before 1.9 wrote it, the file is a record like others.
_BEGINS = re.compile(rb'\s*\{\s*"message"\s*:\s*\{')


def begins(head: bytes) -> bool:
    return bool(_BEGINS.match(head))


def as_log(data: bytes) -> tuple[bytes, str]:
    """The text of an error file, and what is wrong with it where it is none."""
    try:
        value = plain_json.load(data)
    except plain_json.NotPlain as why:
        return data, f"not a torch error file: {why}"
    said = value.get("message")
    stack = said.get("extraInfo", {}) if isinstance(said, dict) else {}
    stack = stack.get("py_callstack") if isinstance(stack, dict) else None
    if not isinstance(said, dict) or not isinstance(stack, str):
        return data, "not a torch error file: it holds no traceback"
    message = said.get("message")
    tail = f"\n{message}" if isinstance(message, str) and message not in stack else ""
    return (stack + tail).encode("utf-8", "backslashreplace"), ""
