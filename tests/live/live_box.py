"""A throw-away machine: its own network, mounts, processes, names and IPC, ended with one kill.

What happens inside can't be seen outside: ports, firewalls, host names, /dev/shm and left-over
processes are the box's own. Two hosts are two network namespaces inside it, with a cable.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
OUTSIDE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ["--net", "--mount", "--pid", "--uts", "--ipc"]
HOSTS = "127.0.0.1 localhost\n127.0.0.1 trainbox\n"
INIT = """set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
{opened}mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm
mount --bind {at}/hosts /etc/hosts
mount --bind {at}/resolv.conf /etc/resolv.conf
hostname trainbox
ip link set lo up
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null || true
echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start
echo up
read end
"""
OPEN = """mkdir -p /run/kept/{number}
mount --bind {path} /run/kept/{number}
"""
SHUT = """mount -t tmpfs -o mode=755 tmpfs {shut}
"""
AGAIN = """mkdir -p {path}
mount --bind /run/kept/{number} {path}
"""
TWO = """set -e
for n in alpha beta; do ip netns add $n; ip -n $n link set lo up; done
ip link add eth0 netns alpha type veth peer name eth0 netns beta
ip -n alpha addr add 10.66.0.1/24 dev eth0
ip -n beta addr add 10.66.0.2/24 dev eth0
ip -n alpha link set eth0 up
ip -n beta link set eth0 up
for n in alpha beta; do
  printf '127.0.0.1 localhost\\n10.66.0.1 alpha\\n10.66.0.2 beta\\n' > {at}/hosts.$n
done
"""
ON = """#!/bin/sh
# on HOST COMMAND...: a command on one of the two hosts, with its own name and hosts file.
host=$1; shift
exec ip netns exec "$host" unshare --mount --uts --propagation private \
  sh -c 'hostname "$0"; mount --bind "{at}/hosts.$0" /etc/hosts; exec "$@"' "$host" "$@"
"""


@dataclass(slots=True)
class Box:
    """`at` is the user's folder in it, where the job and what the tool writes lie."""

    at: Path
    first: int
    env: dict[str, str]
    user: int = 0

    def words(self, command: Sequence[str], user: int | None = None) -> list[str]:
        """A command as it is started from outside, in the user's folder."""
        who = self.user if user is None else user
        rights = ["setpriv", "--reuid", str(who), "--regid", str(who), "--clear-groups"]
        return [
            "nsenter", "-t", str(self.first), "-n", "-m", "-p", "-u", "-i", "--",
            "env", f"--chdir={self.at}", *(rights if who else []), *command,
        ]  # fmt: skip

    def run(
        self,
        *command: str,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end; one that takes too long is ended, and its code is 124."""
        process = self.start("timeout", "-k", "5", str(timeout), *command, user=user, env=env)
        try:
            out, err = process.communicate(timeout=timeout + 15)
        except subprocess.TimeoutExpired as late:
            process.kill()  # what it started keeps the pipes open, and ends with the box
            said = (late.stdout or b"", late.stderr or b"")
            out, err = (s if isinstance(s, str) else s.decode(errors="replace") for s in said)
            return subprocess.CompletedProcess(command, 124, out, err)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def start(
        self,
        *command: str,
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[str]:
        """A command in a session of its own; its output goes to `log`, or to pipes."""
        with contextlib.ExitStack() as stack:
            to = stack.enter_context(log.open("w")) if log else subprocess.PIPE
            return subprocess.Popen(
                self.words(command, user),
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=subprocess.STDOUT if log else subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def shell(self, text: str, user: int | None = None) -> str:
        """A few lines of the stage; they must succeed, or the fault is not there."""
        done = self.run("bash", "-ec", text, user=0 if user is None else user)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def processes(self) -> dict[int, tuple[int, str]]:
        """pid in the box -> (parent, command line) of every process with an interpreter of ours."""
        code = (
            "for p in /proc/[0-9]*; do x=$(readlink $p/exe) || continue;"
            ' case "$x" in *python3*) echo "${p#/proc/} $(sed -n s/^PPid:.//p $p/status)'
            " $(tr '\\0' ' ' <$p/cmdline)\";; esac; done"
        )
        lines = self.run("sh", "-c", code, user=0).stdout.splitlines()
        rows = (line.split(" ", 2) for line in lines)
        return {int(r[0]): (int(r[1]), r[2]) for r in rows if len(r) == 3 and r[1].isdigit()}


def opened() -> str:
    """Python and this checkout stay reachable for an ordinary user, wherever they lie.

    A folder above them that only root may enter is covered, and what is needed put back in.
    """
    needed = {Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent, BIN.parent, ROOT}
    shut: dict[Path, list[Path]] = {}
    for path in sorted(path.resolve() for path in needed):
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                if not any(path.is_relative_to(kept) for kept in shut.get(above, ())):
                    shut.setdefault(above, []).append(path)
                break
    text = ""
    for above, paths in shut.items():
        places = list(enumerate(paths, len(text)))
        text += "".join(OPEN.format(number=n, path=path) for n, path in places)
        text += SHUT.format(shut=above)
        text += "".join(AGAIN.format(number=n, path=path) for n, path in places)
    return text


@contextlib.contextmanager
def box(user: int = 0, two_hosts: bool = False) -> Iterator[Box]:
    """Everything inside ends with the box, and its folder goes with it."""
    top = Path(tempfile.mkdtemp(prefix="ddp-assist-box-"))
    top.chmod(0o711)
    at, tools = top / "home", top / "bin"
    at.mkdir(mode=0o755)
    tools.mkdir(mode=0o755)
    (top / "tmp").mkdir()
    (top / "tmp").chmod(0o1777)
    (top / "hosts").write_text(HOSTS)
    (top / "resolv.conf").write_text("")
    (tools / "on").write_text(ON.format(at=top))
    (tools / "on").chmod(0o755)
    os.chown(at, user, user)
    env = {
        "PATH": f"{tools}:{BIN}:{OUTSIDE}",
        "HOME": str(at),
        "TMPDIR": str(top / "tmp"),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "BOX": str(top),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore:Failed to initialize NumPy",
    }
    holder = subprocess.Popen(
        ["unshare", *NAMESPACES, "--fork", "--kill-child=SIGKILL", "--mount-proc",
         "--propagation", "private", "sh", "-c", INIT.format(at=top, opened=opened())],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={"PATH": OUTSIDE},
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline() != "up\n":
            raise RuntimeError(f"no box: {holder.stderr.read()}")
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text()
        made = Box(at, int(children.split()[0]), env, user)
        if two_hosts:
            made.shell(TWO.format(at=top))
        yield made
    finally:
        holder.kill()
        holder.communicate()
        shutil.rmtree(top, ignore_errors=True)


def until(what: Callable[[], bool], limit: float, step: float = 0.2) -> bool:
    """Waits for a condition; whether it came."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(step)
    return what()
