"""Who holds a port: the process, whose it is, and whether its launcher is still there."""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import dataclass

from ddp_assist.probes.host.processes import TICKS, Process, Processes, look, read, snapshot
from ddp_assist.probes.network.sockets import Socket, owner
from ddp_assist.probes.text import clean

INITS = ("systemd", "init", "tini", "dumb-init", "docker-init", "catatonit", "s6-svscan")
LAUNCHERS = frozenset(
    {"torchrun", "accelerate", "deepspeed", "srun", "mpirun", "mpiexec", "orted"}
    | {"torch.distributed.run", "torch.distributed.launch"}
)
WINDOW = 0.4
BUSY = 0.25


@dataclass(frozen=True, slots=True)
class Holder:
    """The process behind a socket, as far as we may see it."""

    socket: Socket
    process: Process | None
    user: str
    command: str
    is_torch: bool
    launcher_gone: bool
    busy: bool
    parent: str
    age: float
    cwd: str | None
    ancestors: tuple[int, ...]

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def data(self) -> dict[str, object]:
        started = time.time() - self.age
        return {
            "port": self.socket.port,
            "address": self.socket.host,
            "uid": self.socket.uid,
            "user": self.user,
            "pid": self.pid,
            "ticks": self.process.started if self.process else None,
            "command": self.command,
            "parent": self.parent,
            "started": time.strftime("%H:%M:%S", time.localtime(started)) if self.process else None,
            "age_s": round(self.age),
            "cwd": self.cwd,
        }


def short(argv: tuple[str, ...]) -> str:
    """A command line as people say it: without the folders of interpreter and script."""
    names = [os.path.basename(word) if place < 2 else word for place, word in enumerate(argv)]
    if len(names) > 1 and names[0].startswith("python") and names[1] in LAUNCHERS:
        names = names[1:]
    return " ".join(" ".join(names).split())


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def identify(sock: Socket) -> Holder:
    """All that is known of whoever owns this socket."""
    pid = owner(sock.inode) if sock.inode else None
    process = look(pid) if pid else None
    if process is None:
        return Holder(sock, None, user_name(sock.uid), "", False, False, False, "", 0.0, None, ())
    others = snapshot()
    ancestors = others.ancestors(process.pid)
    argv = process.argv or ()
    torch = is_torch(process)
    parent = ancestors[0] if ancestors else None
    described = f"{parent.pid} ({clean(parent.comm)})" if parent else "not visible"
    return Holder(
        sock,
        process,
        user_name(process.uid),
        clean(short(argv)) or clean(process.comm),
        torch,
        torch and _launcher_gone(process, ancestors),
        torch and _busy(process, others),
        described,
        process.age(),
        process.cwd,
        tuple(p.pid for p in ancestors),
    )


def is_torch(process: Process) -> bool:
    """By what it runs, then by the library it has loaded; anything inherits an environ."""
    if process.comm.startswith("pt_") or is_launcher(process):
        return True
    maps = read(f"{process.path}/maps", 8 << 20)
    return bool(maps and (b"libtorch" in maps or b"libc10" in maps))


def is_launcher(process: Process) -> bool:
    """The program itself or what an interpreter runs, not any word of its arguments."""
    return launches(process.comm, process.argv or ())


def launches(comm: str, argv: tuple[str, ...]) -> bool:
    words = [os.path.basename(word) for word in argv[:4]]
    return comm == "pt_elastic" or any(
        word in LAUNCHERS and (place == 0 or words[0].startswith("python"))
        for place, word in enumerate(words)
    )


def _launcher_gone(process: Process, ancestors: list[Process]) -> bool:
    """A rank that torchrun started and no longer watches, or a launch whose shell is gone."""
    env = process.environ or {}
    launched = not is_launcher(process) and "TORCHELASTIC_RUN_ID" in env
    if launched:
        return not any(is_launcher(p) for p in ancestors)
    top = process
    for parent in ancestors:
        if not (is_launcher(parent) or is_torch(parent)):
            return _adopted(top, parent)
        top = parent
    return not ancestors


def _adopted(process: Process, parent: Process) -> bool:
    """Its real parent ended, and init or a subreaper took it over."""
    return parent.pid == 1 or (parent.comm in INITS and process.session != parent.session)


def _busy(process: Process, others: Processes) -> bool:
    """Whether it and what it started used the processor over a short window."""
    family = [process, *others.descendants(process.pid)]
    before = {p.pid: p.cpu for p in family}
    time.sleep(WINDOW)
    used = sum(now.cpu - before[p.pid] for p in family if (now := look(p.pid)) is not None)
    return used / WINDOW > max(BUSY, 2 / TICKS / WINDOW)


def is_ours(holder: Holder) -> bool:
    return holder.socket.uid == os.geteuid()
