"""What NCCL's RAS says of a job that lives: asked over loopback, on request, where that is safe.

Before 2.28 an answer could end the job (NVIDIA/nccl 1669, 1718, 1762): those are left alone, and
so is a port on which anybody else's process listens as well, for the kernel picks who answers.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddp_assist.probes.host.processes import Process, look, read
from ddp_assist.probes.jobs.job import job_of
from ddp_assist.probes.jobs.ranks import Job, is_loopback
from ddp_assist.probes.logs.ranks import Line
from ddp_assist.probes.logs.ras import told
from ddp_assist.probes.model import Finding, unknown
from ddp_assist.probes.network.sockets import on_port, owner
from ddp_assist.probes.text import clean

USUAL = 28028
SAFE_FROM = (2, 28)
WITHIN = 8.0
BETWEEN = 2.0
MOST_BYTES = 8 << 20
ASKS = b"CLIENT PROTOCOL 2\nTIMEOUT 5\nVERBOSE STATUS\n"
PACKAGE = re.compile(r"nvidia_nccl_cu\d+-(\d+\.\d+)\.\w[\w.]*\.dist-info$")
LIBRARY = re.compile(rb"(/\S+/)libnccl\.so(?:\.(\d+)\.(\d+)\.\d+)?\S*$", re.MULTILINE)


def asked(pid: int) -> Iterator[Finding]:
    """What the probe `ras` adds for a live job, once the user said yes."""
    job = job_of(pid)
    if job is None or not job.ranks or job.uid != os.getuid():
        return
    port = _port(job)
    if port is None:
        return
    listening = [s for s in on_port(port) if s.state == "listen"]
    if not listening:
        return
    why = _why_not(job, [owner(s.inode) for s in listening])
    if why:
        yield unknown("ras", f"RAS is not asked: {why}")
        return
    try:
        first = _answer(port)
        time.sleep(BETWEEN)
        second = _answer(port)
    except OSError as problem:
        yield unknown("ras", f"RAS on port {port} did not answer: {clean(str(problem))}")
        return
    before = {_gist(f) for f in told(_lines(first, port))}
    # A job that goes on shows differences, too; only what does not move is one.
    yield from (f for f in told(_lines(second, port)) if _gist(f) in before)


def _gist(finding: Finding) -> tuple[object, ...]:
    data = finding.data
    return finding.outcome, data.get("rank"), data.get("last"), data.get("front")


def _lines(text: str, port: int) -> list[Line]:
    name = f"NCCL RAS at 127.0.0.1:{port}"
    return [Line(name, number, line) for number, line in enumerate(text.splitlines(), 1)]


def _port(job: Job) -> int | None:
    """Where the ranks' RAS listens for clients; None where that is not on loopback, or off."""
    env = job.ranks[0].env
    host, _, port = env.get("NCCL_RAS_ADDR", f"localhost:{USUAL}").rpartition(":")
    if env.get("NCCL_RAS_ENABLE") == "0" or not is_loopback(host):
        return None
    return int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else None


def _why_not(job: Job, owners: Sequence[int | None]) -> str:
    if not set(owners) <= set(job.pids):
        return "processes that are no ranks of this job listen there as well"
    for pid in {pid for pid in owners if pid is not None}:
        process = look(pid)
        version = nccl_version(process) if process is not None else None
        if version is None:
            return "which NCCL the ranks have is not known, and old ones end a job that is asked"
        if version < SAFE_FROM:
            said = ".".join(map(str, version))
            return f"NCCL {said} may end the job when it is asked; that is mended in 2.28"
    return ""


def nccl_version(process: Process) -> tuple[int, int] | None:
    """Of the library that the process has loaded: by its own name, or its package's."""
    found = LIBRARY.search(read(f"{process.path}/maps", 16 << 20) or b"")
    if found is None:
        return None
    if found[2]:
        return int(found[2]), int(found[3])
    folder = Path(f"{process.path}/root{found[1].decode(errors='replace')}")
    try:
        names = os.listdir(folder.parents[2])  # site-packages, above nvidia/nccl/lib
    except OSError:
        return None
    versions = {m[1] for name in names if (m := PACKAGE.match(name))}
    if len(versions) != 1:
        return None
    major, minor = versions.pop().split(".")
    return int(major), int(minor)


def _answer(port: int) -> str:
    ends = time.monotonic() + WITHIN
    data = b""
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as link:
        link.sendall(ASKS)
        while time.monotonic() < ends and len(data) < MOST_BYTES:
            link.settimeout(max(0.05, ends - time.monotonic()))
            part = link.recv(1 << 16)
            if not part:
                break
            data += part
    return clean(data.decode("utf-8", "replace"))
