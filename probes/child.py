"""Questions that can hang or crash the asker (DNS, NVML, torch, NFS) are asked in a child process.

A child script is one file that runs on Python 3.8 with the standard library (and what it asks
about). It reads one JSON value from stdin, writes JSON values to stdout, one a line, and begins:

    import sys
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        del sys.path[0]  # our own folder: nothing in it may shadow a module of the user's torch
    ...
    signal.alarm(int(sys.argv[1]))  # ends this child even where its parent was killed

Each line counts as soon as it is written, so what was said before a hang is not lost.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

GRACE = 1.0
"""How long a killed child may take to be gone; one that hangs in the kernel takes for ever."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child said before it ended, and how it ended."""

    ended: Literal["well", "deadline", "died", "not-started"]
    values: tuple[Any, ...] = ()
    because: str = ""
    """One clause for an `unknown`; empty when it ended well."""
    said: str = ""
    """What it wrote that was no answer: stderr, and lines of stdout that are not JSON."""
    code: int | None = None
    seconds: float = 0.0

    @property
    def value(self) -> Any:
        """The last answer, or None."""
        return self.values[-1] if self.values else None


def ask(
    script: Path,
    question: Any = None,
    *,
    deadline: float,
    python: str = "",
    isolated: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Answer:
    """Run `script` in a process group of its own and give it `deadline` seconds.

    `isolated=False` is for the target's interpreter, whose PYTHONPATH and user site count.
    """
    began = time.monotonic()
    python = python or sys.executable
    flags = ["-I"] if isolated else []
    command = [python, *flags, str(script), str(math.ceil(deadline) + 1)]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if env is None else {**env, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=cwd,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Answer("not-started", because=f"{python} could not be started: {error}")
    try:
        out, err = child.communicate(json.dumps(question).encode(), timeout=deadline)
    except subprocess.TimeoutExpired as late:
        out, err = _end(child, late)
        values, rest = _answers(out)
        return Answer(
            "deadline",
            values,
            f"there was no answer within {deadline:g} s",
            _text(rest + err),
            child.returncode,
            time.monotonic() - began,
        )
    except BaseException:
        _end(child)
        raise
    values, rest = _answers(out)
    seconds = time.monotonic() - began
    if child.returncode == 0:
        return Answer("well", values, "", _text(rest + err), 0, seconds)
    because = f"the asking process ended with {_code(child.returncode)}"
    return Answer("died", values, because, _text(rest + err), child.returncode, seconds)


def _end(
    child: subprocess.Popen[bytes], late: subprocess.TimeoutExpired | None = None
) -> tuple[bytes, bytes]:
    """Kill the child's whole group; it is our unreaped child, so the id can't be another's."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    try:
        return child.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired as stuck:
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                pipe.close()
        said = stuck if stuck.output else late
        return (said.output or b"", said.stderr or b"") if said else (b"", b"")


def _answers(out: bytes) -> tuple[tuple[Any, ...], bytes]:
    """The JSON lines, and everything else (a noisy sitecustomize, a banner)."""
    values: list[Any] = []
    rest: list[bytes] = []
    for line in out.splitlines(keepends=True):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            rest.append(line)
    return tuple(values), b"".join(rest)


def _text(raw: bytes) -> str:
    return raw[-65536:].decode("utf-8", "replace")


def _code(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
