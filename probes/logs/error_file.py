"""The error.json that a worker of torchrun leaves: its traceback put back into lines."""

from __future__ import annotations

from ddp_assist.probes.logs import plain_json


def begins(head: bytes) -> bool:
    return head.lstrip()[:1] == b"{" and head.lstrip()[1:].lstrip().startswith(b'"message"')


def as_log(data: bytes) -> tuple[bytes, str]:
    """The text of an error file, and what is wrong with it where it is none."""
    try:
        value = plain_json.load(data)
    except plain_json.NotPlain as why:
        return data, f"not a torch error file: {why}"
    said = value.get("message")
    if isinstance(said, str):
        return said.encode("utf-8", "backslashreplace"), ""
    stack = said.get("extraInfo", {}) if isinstance(said, dict) else {}
    stack = stack.get("py_callstack") if isinstance(stack, dict) else None
    if not isinstance(said, dict) or not isinstance(stack, str):
        return data, "not a torch error file: it holds no traceback"
    message = said.get("message")
    tail = f"\n{message}" if isinstance(message, str) and message not in stack else ""
    return (stack + tail).encode("utf-8", "backslashreplace"), ""
