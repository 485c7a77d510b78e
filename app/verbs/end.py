"""Ending one left-over process without a screen: only as `--yes-end PID --port N`."""

from __future__ import annotations

import sys

from ddp_assist.app.actions import Refused, end, pin
from ddp_assist.app.cli import Wrong


def end_now(pid: int, port: int | None) -> str:
    if port is None:
        raise Wrong("--yes-end needs --port N: only the holder of that port is ended")
    try:
        pinned = pin(pid, port)
        try:
            gone = end(pinned)
        finally:
            pinned.close()
    except Refused as why:
        raise Wrong(f"nothing was ended: {why}") from why
    if not gone:
        raise Wrong(f"pid {pid} got SIGTERM and is still there after 10 s; SIGKILL was not sent")
    said = f"pid {pid} was ended, port {port} is free"
    print(said, file=sys.stderr)
    return said
