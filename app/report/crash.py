"""Crash files: what went wrong inside ddp-assist, without locals and without secrets."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from ddp_assist import __version__
from ddp_assist.app.case import state_dir
from ddp_assist.app.files import write_private
from ddp_assist.app.report import standard_redactor


def write_crash(fault: BaseException, argv: Sequence[str]) -> Path:
    """Frames without their variables; argv and messages redacted; only the user may read it."""
    folder = state_dir() / "crashes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    said = "".join(traceback.format_exception(fault, chain=True))
    text = f"ddp-assist {__version__}\nargv: {list(argv)!r}\n\n{said}"
    write_private(path, standard_redactor().text(text))
    return path
