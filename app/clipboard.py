"""Copying over SSH: a tmux buffer, the terminal's own clipboard (OSC 52), or only a file."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable

from ddp_assist.app.case import state_dir
from ddp_assist.app.files import WriteFailed, write_private

OSC52_MOST = 74_000


def copy(text: str, send: Callable[[str], None]) -> str:
    """Copies by the surest way there is, and says which; the text is always in a file too."""
    path = state_dir() / "last-copy.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, text)
        kept = f"also in {path}"
    except (OSError, WriteFailed) as why:
        kept = f"not saved: {why}"
    if "TMUX" in os.environ and _tmux(text):
        return f"copied to the tmux buffer (paste: prefix ]); {kept}"
    if len(text) > OSC52_MOST:
        return f"too long for the terminal's clipboard; {kept}"
    send(osc52(text))
    return f"sent to your terminal (OSC 52; it may refuse); {kept}"


def osc52(text: str) -> str:
    code = "\x1b]52;c;" + base64.b64encode(text.encode("utf-8", "replace")).decode("ascii") + "\x07"
    if os.environ.get("TERM", "").startswith("screen") and "TMUX" not in os.environ:
        return "\x1bP" + code + "\x1b\\"
    return code


def _tmux(text: str) -> bool:
    tmux = shutil.which("tmux", path="/usr/bin:/usr/local/bin:/bin")
    if tmux is None:
        return False
    done = subprocess.run(
        [tmux, "load-buffer", "-w", "-"],
        input=text.encode("utf-8", "replace"),
        capture_output=True,
        timeout=3,
        check=False,
    )
    return done.returncode == 0
