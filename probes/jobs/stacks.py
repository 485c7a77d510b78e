"""Where each rank stands in its code, by py-spy: a program, non-blocking, own processes only."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from ddp_assist.probes.host.processes import read

LIMIT = 8.0
IN_ALL = 12.0
AT_ONCE = max(4, 2 * (os.cpu_count() or 1))

COLLECTIVES = frozenset(
    {
        "all_reduce", "barrier", "all_gather", "broadcast", "reduce", "reduce_scatter", "scatter",
        "gather", "all_to_all", "all_to_all_single", "send", "recv", "all_gather_object",
        "broadcast_object_list", "scatter_object_list", "gather_object", "monitored_barrier",
        "all_gather_into_tensor", "reduce_scatter_tensor", "all_reduce_coalesced",
        "all_gather_coalesced", "batch_isend_irecv", "wait_tensor", "new_group", "split_group",
        "new_subgroups", "destroy_process_group", "send_object_list", "recv_object_list",
        "_engine_run_backward", "_verify_param_shape_across_processes", "_sync_module_states",
        "_sync_buffers", "_default_broadcast_coalesced",
    }
)  # fmt: skip
RENDEZVOUS = frozenset({"_create_c10d_store", "_env_rendezvous_handler", "init_process_group",
                        "_tcp_rendezvous_handler", "_file_rendezvous_handler",
                        "rendezvous"})  # fmt: skip
STORE_CALLS = re.compile(r"\b\w*store\w*\s*\.\s*(?:wait|get|add|set|barrier|multi_get)\s*\("
                         r"|\.\s*(?:wait|multi_get)\s*\(\s*\[")  # fmt: skip
HANDLE_WAIT = re.compile(r"\b(?!(?:event|ev|cond|condition|lock|proc|process|p|popen|future)\b)"
                         r"\w+(?:\(\))?\s*\.\s*wait\s*\(", re.IGNORECASE)  # fmt: skip
LOCK_LINE = re.compile(r"\.acquire\s*\(|^\s*(?:async\s+)?with\b.*(?:lock|mutex|sem|cond)",
                       re.IGNORECASE)  # fmt: skip
SYNC_LINE = re.compile(r"\.(?:item|tolist|cpu|numpy|synchronize)\s*\(|\.to\s*\(\s*['\"]cpu")
"""Lines that wait for what a GPU still has to do."""
IMPORT_LINE = re.compile(r"\s*(?:import|from)\s+[\w.]+")
WORLD_NAMES = ("world_size", "world", "nprocs", "n_procs", "num_processes")
RANK_NAMES = ("rank", "global_rank", "world_rank", "my_rank")
TURN = re.compile(r"^(?:i|j|n|it|k|step|steps?_?\w*|\w*_step|iter\w*|epoch\w*|batch_?\w*|b_?idx"
                  r"|\w*_?idx|\w*_?index|count\w*|round)$")  # fmt: skip

Phase = Literal["", "rendezvous", "collective", "data", "import", "compile", "checkpoint", "lock",
                "sleep", "store", "sync"]  # fmt: skip


class Spot(NamedTuple):
    """A line of the user's own code."""

    file: str
    line: int
    function: str

    @property
    def shown(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class Stack:
    """The innermost line of the user's own code, and what it waits in, if it does."""

    where: str
    waits_in: str = ""
    phase: Phase = ""
    rank: int | None = None
    """What its own code calls it."""
    given: int | None = None
    """What it gave init_process_group, where it is in there."""
    world_size: int | None = None
    turns: Mapping[str, int] = field(default_factory=dict)
    """Counters of the loops it is in."""
    frames: tuple[str, ...] = ()
    """All of it, the innermost first, without arguments."""
    spots: tuple[Spot, ...] = ()
    """The user's own lines in it, the innermost first."""

    @property
    def is_waiting(self) -> bool:
        """In a call that needs the others."""
        return bool(self.waits_in)

    @property
    def in_lock(self) -> bool:
        return self.phase == "lock"

    @property
    def in_rendezvous(self) -> bool:
        return self.waits_in in ("init_process_group", "TCPStore")


@dataclass(frozen=True, slots=True)
class Stacks:
    """The stacks that could be had, and why others could not."""

    at: Mapping[int, Stack] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)


def stacks(pids: Sequence[int]) -> Stacks:
    """Side by side, so that many ranks do not take long."""
    program = pyspy()
    if program is None:
        return Stacks({}, dict.fromkeys(pids, "py-spy is not installed"))
    until = time.monotonic() + IN_ALL
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(pids, pool.map(lambda p: _stack(program, p, until), pids), strict=True))
    return Stacks(
        {pid: one for pid, one in found.items() if isinstance(one, Stack)},
        {pid: one for pid, one in found.items() if isinstance(one, str)},
    )


def pyspy() -> str | None:
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy")


def _stack(program: str, pid: int, until: float) -> Stack | str:
    left = min(LIMIT, until - time.monotonic())
    if left <= 0:
        return "there was no time left to ask py-spy"
    try:
        said = subprocess.run(
            [program, "dump", "--nonblocking", "--locals", "--json", "--pid", str(pid)],
            capture_output=True, timeout=left, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"py-spy did not answer within {left:.0f} s"
    except OSError as why:
        return f"py-spy can't be started: {why.strerror}"
    try:
        return read_threads(json.loads(said.stdout), pid)
    except (ValueError, LookupError, TypeError, AttributeError):
        return _because(said.stderr.decode("utf-8", "replace"))


def _because(said: str) -> str:
    if "ermission denied" in said or "EPERM" in said or "not permitted" in said:
        return (
            "py-spy may not look into it: that takes the job's own user and a kernel that lets"
            " it (kernel.yama.ptrace_scope=0), or root with CAP_SYS_PTRACE"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return f"py-spy: {lines[0][:160]}" if lines else "py-spy gave no stack"


def read_threads(threads: Sequence[Mapping[str, Any]], pid: int = 0) -> Stack:
    """The thread that does the rank's work: the main one, unless that only waits for another."""
    stacks = [(t, read_frames(t["frames"], pid)) for t in threads if t.get("frames")]
    main = next((s for t, s in stacks if t.get("thread_name") == "MainThread"), stacks[0][1])
    innermost = main.frames[0].partition(" ")[0].rpartition(".")[2]
    if main.is_waiting or innermost not in ("join", "_wait_for_tstate_lock", "wait"):
        return main
    return next((s for _, s in stacks if s is not main and (s.is_waiting or s.where)), main)


def read_frames(frames: Sequence[Mapping[str, Any]], pid: int = 0) -> Stack:
    """Frames come innermost first."""
    waits_in = ""
    phase: Phase = ""
    spots: list[Spot] = []
    found: dict[str, int] = {}
    turns: dict[str, int] = {}
    for place, frame in enumerate(frames):
        name, file = str(frame.get("name", "?")), str(frame.get("filename", "?"))
        name, line = name.rpartition(".")[2], frame.get("line")
        numbers = _numbers(frame)
        if not is_library(file):
            if place == 0:
                waits_in, phase = _by_source(pid, file, line)
            spots.append(Spot(file, line if isinstance(line, int) else 0, name))
            _note(found, "rank", numbers, RANK_NAMES)
            _note(found, "world", numbers, WORLD_NAMES)
            turns = {n: v for n, v in numbers.items() if TURN.match(n)} | turns
        elif not spots:
            waits_in, phase = _by_library(name, file, waits_in, phase, place)
        elif phase in ("", "sleep") and not waits_in and "torch/utils/data/" in file:
            phase = "data"
        if name in RENDEZVOUS and "distributed" in file:
            _note(found, "given", numbers, ("rank",))
            _note(found, "size", numbers, ("world_size",), least=1)
        if name == "_wrap" and "multiprocessing/spawn.py" in file:
            _note(found, "rank", numbers, ("i",))
    where = spots[0].shown if spots else ""
    shown = tuple(f"{str(f.get('name', '?'))} ({os.path.basename(str(f.get('filename', '?')))}:"
                  f"{f.get('line', 0)})" for f in frames[:40])  # fmt: skip
    return Stack(where, waits_in, phase, found.get("rank"), found.get("given"),
                 found.get("size", found.get("world")), turns, shown, tuple(spots))  # fmt: skip


def _note(
    found: dict[str, int], what: str, numbers: Mapping[str, int], names: Sequence[str],
    least: int = 0,
) -> None:  # fmt: skip
    """Keeps the innermost of what several frames call the same."""
    for name in names:
        if what not in found and numbers.get(name, -1) >= least:
            found[what] = numbers[name]


def _by_library(
    name: str, file: str, waits_in: str, phase: Phase, place: int
) -> tuple[str, Phase]:
    """What the frames below the user's innermost line say it is in."""
    if name in RENDEZVOUS and "torch/distributed" in file:
        return "init_process_group", "rendezvous"
    if name in COLLECTIVES and "torch/" in file and waits_in != "init_process_group":
        return name, "collective"
    if waits_in or phase in ("lock", "store"):
        return waits_in, phase
    if name == "synchronize" and "torch/cuda/" in file:
        return waits_in, "sync"
    if "importlib" in file:
        return waits_in, "import"
    if "torch/utils/data/" in file:
        return waits_in, "data"
    if any(part in file for part in ("_dynamo/convert_frame", "_inductor/", "triton/compiler")):
        return waits_in, "compile"
    if file.endswith("torch/serialization.py") or any(
        part in file for part in ("distributed/checkpoint/", "safetensors/")
    ):
        return waits_in, "checkpoint"
    if place == 0 and name in ("acquire", "__enter__") and (
        "multiprocessing/synchronize" in file or file.endswith("threading.py")
    ):
        return waits_in, "lock"
    return waits_in, phase


def _by_source(pid: int, file: str, line: object) -> tuple[str, Phase]:
    """A call into C has no frame: the line of the script tells what it is."""
    if not isinstance(line, int):
        return "", ""
    lines = source(file) or source(f"/proc/{pid}/root{file}")
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    if IMPORT_LINE.match(text):
        return "", "import"
    if re.search(r"\bTCPStore\s*\(", text):
        return "TCPStore", "rendezvous"
    if STORE_CALLS.search(text):
        return "", "store"
    if LOCK_LINE.search(text):
        return "", "lock"
    if re.search(r"\bsleep\s*\(", text):
        return "", "sleep"
    if HANDLE_WAIT.search(text):
        return "wait", "collective"
    if SYNC_LINE.search(text):
        return "", "sync"
    return "", ""


def source(file: str) -> tuple[str, ...]:
    """The lines of a script; a name from a foreign process may be anything but a plain file."""
    try:
        return _source(file, os.stat(file).st_mtime_ns) if os.path.isfile(file) else ()
    except (OSError, ValueError):
        return ()


@lru_cache(64)
def _source(file: str, _: int) -> tuple[str, ...]:
    return tuple((read(file, 4 << 20) or b"").decode("utf-8", "replace").splitlines())


def _numbers(frame: Mapping[str, Any]) -> dict[str, int]:
    """Local variables that are small whole numbers; nothing else of a user's data is kept."""
    found: dict[str, int] = {}
    for local in frame.get("locals") or ():
        name, value = local.get("name"), local.get("repr")
        if isinstance(name, str) and isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
            found[name] = int(value)
    return found


def is_library(file: str) -> bool:
    return any(
        part in file
        for part in ("site-packages", "dist-packages", "/lib/python", "/lib64/python", "<frozen",
                     "<string>")
    )  # fmt: skip
