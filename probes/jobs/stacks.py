"""Where each rank stands in its code, by py-spy: a program, non-blocking, own processes only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

LIMIT = 8.0
AT_ONCE = 4
COLLECTIVES = frozenset(
    {
        "all_reduce", "barrier", "all_gather", "broadcast", "reduce", "reduce_scatter", "scatter",
        "gather", "all_to_all", "send", "recv", "all_gather_object", "broadcast_object_list",
        "monitored_barrier", "all_gather_into_tensor", "reduce_scatter_tensor", "wait",
        "_engine_run_backward", "_verify_param_shape_across_processes", "_sync_module_states",
    }
)  # fmt: skip
RENDEZVOUS = frozenset({"_create_c10d_store", "_env_rendezvous_handler", "init_process_group",
                        "_new_process_group_helper", "rendezvous"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stack:
    """The innermost line of the user's own code, and what it waits in, if it does."""

    where: str
    waits_in: str
    in_lock: bool

    @property
    def is_waiting(self) -> bool:
        return bool(self.waits_in)


def stacks(pids: Sequence[int]) -> dict[int, Stack]:
    """Those that could be had."""
    program = pyspy()
    if program is None:
        return {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda pid: _stack(program, pid), pids)
        return {pid: stack for pid, stack in zip(pids, found, strict=True) if stack is not None}


def pyspy() -> str | None:
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _stack(program: str, pid: int) -> Stack | None:
    try:
        said = subprocess.run(
            [program, "dump", "--nonblocking", "--json", "--pid", str(pid)],
            capture_output=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        threads = json.loads(said.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None
    main = next((t for t in threads if t.get("thread_name") == "MainThread"), None)
    return read_frames(main["frames"]) if main and main.get("frames") else None


def read_frames(frames: Sequence[dict[str, object]]) -> Stack:
    """Frames come innermost first."""
    waits_in = ""
    for frame in frames:
        name, file = str(frame.get("name")), str(frame.get("filename"))
        if not _is_library(file):
            where = f"{os.path.basename(file)}:{frame.get('line')} in {name}"
            in_lock = not waits_in and str(frames[0].get("name")) in ("acquire", "__enter__")
            return Stack(where, waits_in, in_lock)
        if name in RENDEZVOUS and "distributed" in file:
            waits_in = "init_process_group"
        elif name in COLLECTIVES and "torch" in file and waits_in != "init_process_group":
            waits_in = name
    return Stack("", waits_in, False)


def _is_library(file: str) -> bool:
    return any(
        part in file for part in ("site-packages", "dist-packages", "/lib/python", "<frozen")
    )
