"""Hosts on one machine: namespaces with an sshd each, inside namespaces of their own.

Everything is a descendant of one PID 1 and dies with it; the machine's own network, mounts and
daemons are never touched. Inside, the folder of the bed is /srv, and `alice` is an ordinary user.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PORT = 29500
ALICE = 2001
SSHD = """
Port 22
HostKey /srv/host
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile /srv/user.pub
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 200
SetEnv {env}
{more}
"""
SSH = """
Host *
  IdentityFile /srv/home/key
  UserKnownHostsFile /srv/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""
INIT = """set -e
hostname {name}
mount --bind /srv/{name}.hosts /etc/hosts
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /run/tmp
chmod 1777 /run/tmp
{more}
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin HOME=/root {daemon}
"""
LAB = """set -e
mount --bind {at} /srv
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
{opened}
mount --bind /srv/hosts /etc/hosts
mount --bind /srv/passwd /etc/passwd
mount --bind /srv/ssh_config /etc/ssh/ssh_config
ip link set lo up
for n in 0 1; do
  ip link add br$n type bridge mcast_snooping 0
  ip link set br$n up
done
ip addr add 10.99.0.254/16 dev br0
ip -6 addr add fd99::254/64 dev br0 nodad
{nodes}
{more}
echo up
read end
"""
NODE = """ip netns add {name}
ip link add v{number} type veth peer name eth0 netns {name}
ip link set v{number} master br0 up
ip -n {name} link set lo up
{addresses}
ip -n {name} link set eth0 up
{more}
ip netns exec {name} unshare --uts --mount --pid --fork --kill-child --mount-proc \
  sh /srv/{name}.init </dev/null >/srv/{name}.log 2>&1 &
"""
SECOND = """ip link add w{number} type veth peer name eth1 netns {name}
ip link set w{number} master br1 up
ip -n {name} addr add 10.98.0.{number}/24 dev eth1
ip -n {name} link set eth1 up
"""


@dataclass(slots=True)
class Nodes:
    at: Path
    names: Sequence[str]
    lab: subprocess.Popen[str]
    v6: bool = False

    def inside(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        """A command where the nodes are, on the host that sees them all."""
        command = [*self.entered(), *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=240, check=False, **more,  # type: ignore[call-overload]
        )

    def entered(self) -> list[str]:
        """What a command begins with to run there."""
        return ["nsenter", "-t", self._first(), "-n", "-m", "-p", "--"]

    def user(
        self, *words: str, on: str | None = None, env: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """The same as an ordinary user, on the log-in host or from a node."""
        where = ["ssh", on, shlex.join(["env", *_environment(env), *words])] if on else []
        return self.inside(*as_alice(env), *(where or words))

    def fleet(
        self, *words: str, launch: Sequence[str] = (), on: str | None = None,
        env: Sequence[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        """What `ddp-assist fleet --json` tells alice."""
        given = ["--", *launch] if launch else []
        done = self.user(*ours("fleet", "--json", *words, *given), on=on, env=env)
        assert done.returncode in (0, 1, 5), done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def on(self, name: str, *words: str) -> str:
        """A command in the network of one node; it must succeed, or the fault is not there."""
        done = self.inside("ip", "netns", "exec", name, *words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def within(self, name: str, *words: str) -> str:
        """A command in all namespaces of one node, as root there."""
        outer = self.inside("pgrep", "-f", f"^unshare .*/srv/{name}.init").stdout.split()[0]
        found = self.inside("pgrep", "-P", outer).stdout
        done = self.inside("nsenter", "-t", found.strip(), "-n", "-m", "-u", "-p", "--", *words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def filter(self, name: str, *rules: str) -> None:
        """An input chain with these rules; none takes it away."""
        self.on(name, "nft", "flush", "ruleset")
        if rules:
            body = "".join(f"    {rule}\n" for rule in rules)
            hook = "    type filter hook input priority 0;\n"
            text = f"table inet t {{\n  chain c {{\n{hook}{body}  }}\n}}\n"
            (self.at / f"{name}.nft").write_text(text)
            self.on(name, "nft", "-f", f"/srv/{name}.nft")
            assert "chain c" in self.on(name, "nft", "list", "ruleset")

    def hosts(self, name: str, own: str | None, **others: str) -> None:
        """The hosts file of a node, with what it takes its own name, and others, for."""
        text = _hosts(self.names, name, own, self.v6, others)
        (self.at / f"{name}.hosts").write_text(text)

    def address(self, name: str) -> str:
        number = self.names.index(name) + 1
        return f"fd99::{number}" if self.v6 else f"10.99.0.{number}"

    def left(self, names: Sequence[str] = ()) -> str:
        """What lies in the temporary folders of the nodes and who still runs there for us, when
        those that are about to leave have had their time."""
        look = "ls /run/tmp; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o "
        look += "'[r]un_module.*\\|[d]dp-assist-node-.*' || true"
        said = ""
        for _ in range(40):
            asked = names or self.names
            said = "".join(self.user("sh", "-c", look, on=name).stdout for name in asked)
            if "ddp-assist" not in said and "run_module" not in said:
                break
        return said

    def _first(self) -> str:
        path = Path(f"/proc/{self.lab.pid}/task/{self.lab.pid}/children")
        return path.read_text().split()[0]

    def close(self) -> None:
        self.lab.kill()
        self.lab.communicate()
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.at)], check=True)


def _opened() -> str:
    """Commands that let an ordinary user reach the interpreter and this checkout, where they lie
    in somebody's private folder: only there, in the bed, it is replaced by one with just these."""
    wanted = dict.fromkeys(map(Path, (sys.base_prefix, sys.prefix, str(ROOT))))
    lines: list[str] = []
    kept: dict[Path, list[tuple[Path, str]]] = {}
    for number, path in enumerate(wanted):
        shut = next((p for p in reversed(path.parents) if not p.stat().st_mode & 1), None)
        if shut is not None:
            lines += [f"mkdir /run/kept{number}", f"mount --rbind {path} /run/kept{number}"]
            kept.setdefault(shut, []).append((path, f"/run/kept{number}"))
    for shut, paths in kept.items():
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shut}")
        for path, at in paths:
            lines += [f"mkdir -p {path}", f"mount --rbind {at} {path}"]
    return "\n".join(lines)


def as_alice(env: Sequence[str] = ()) -> list[str]:
    """What a command begins with to be that of the ordinary user."""
    who = ["setpriv", "--reuid", str(ALICE), "--regid", str(ALICE), "--clear-groups"]
    return [*who, "env", "-i", "-C", "/srv/home", *_environment(env)]


def ours(*words: str) -> list[str]:
    return [sys.executable, "-m", "ddp_assist", *words]


def _environment(more: Sequence[str]) -> list[str]:
    return [
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin", "HOME=/srv/home", "LANG=C.UTF-8",
        f"PYTHONPATH={ROOT}/tests/typing", "PYTHONDONTWRITEBYTECODE=1", *more,
    ]  # fmt: skip


def _hosts(
    names: Sequence[str], me: str = "", own: str | None = None, v6: bool = False,
    others: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    lines = ["127.0.0.1 localhost"]
    for number, name in enumerate(names, 1):
        usual = f"fd99::{number:x}" if v6 else f"10.99.{number >> 8}.{number & 255}"
        address = (others or {}).get(name, usual) if name != me else own
        full = "" if address == own == "127.0.1.1" else f" {name}.cluster.local"
        lines += [f"{address} {name}{full}"] if address else []
    return "\n".join(lines) + "\n"


def start(
    names: Sequence[str], config: Mapping[str, str] | None = None,
    no_daemon: Sequence[str] = (), env: Mapping[str, str] | None = None,
    init: Mapping[str, str] | None = None, second: bool = False, v6: bool = False,
    files: Mapping[str, bytes] | None = None, daemon: str = "", more: str = "",
) -> Nodes:  # fmt: skip
    """`config` has further lines of a node's sshd_config, `env` further variables of its log-ins,
    `init` commands that run in it first; `files` lie in /srv; `second` gives every node an eth1 in
    another network; `daemon` runs in each node in place of sshd, `more` where they all are."""
    at = Path(tempfile.mkdtemp(prefix="ddp-assist-bed-"))
    at.chmod(0o755)
    for key in ("host", "user", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(at / key)],
            check=True,
        )
    (at / "home").mkdir()
    (at / "home" / "key").write_bytes((at / "user").read_bytes())
    for path in (at / "home", at / "home" / "key"):
        os.chown(path, ALICE, ALICE)
        path.chmod(0o700)
    for name, content in (files or {}).items():
        (at / name).parent.mkdir(exist_ok=True)
        (at / name).write_bytes(content)
        (at / name).chmod(0o755)
    users = Path("/etc/passwd").read_text()
    (at / "passwd").write_text(f"{users}alice:x:{ALICE}:{ALICE}::/srv/home:/bin/bash\n")
    (at / "hosts").write_text(_hosts(names, v6=v6))
    (at / "ssh_config").write_text(SSH)
    key = (at / "host.pub").read_text().strip()
    known = ",".join([*names, *(f"{n}.cluster.local" for n in names), "10.99.*", "fd99::*"])
    (at / "known_hosts").write_text(f"{known} {key}\n")
    parts = []
    nodes = Nodes(at, names, None, v6)  # type: ignore[arg-type]
    for number, name in enumerate(names, 1):
        nodes.hosts(name, f"fd99::{number:x}" if v6 else f"10.99.{number >> 8}.{number & 255}")
        variables = f"TMPDIR=/run/tmp {(env or {}).get(name, '')}"
        (at / f"{name}.sshd").write_text(
            SSHD.format(more=(config or {}).get(name, ""), env=variables)
        )
        serves = daemon or f"/usr/sbin/sshd -D -e -f /srv/{name}.sshd"
        serves = "/bin/sleep 600" if name in no_daemon else serves
        first = (init or {}).get(name, "")
        (at / f"{name}.init").write_text(INIT.format(name=name, daemon=serves, more=first))
        own = [] if v6 else [f"10.99.{number >> 8}.{number & 255}/16"]
        own += [f"fd99::{number:x}/64"] if v6 else []
        given = "\n".join(f"ip -n {name} addr add {a} dev eth0" + (" nodad" if ":" in a else "")
                          for a in own)  # fmt: skip
        extra = SECOND.format(name=name, number=number) if second else ""
        parts.append(NODE.format(name=name, number=number, addresses=given, more=extra))
    text = LAB.format(at=at, nodes="".join(parts), opened=_opened(), more=more)
    (at / "lab").write_text(text)
    nodes.lab = lab = subprocess.Popen(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", str(at / "lab")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert lab.stdout is not None
    if lab.stdout.readline() != "up\n":
        lab.kill()
        raise RuntimeError(lab.communicate()[1])
    listening = [name for name in names if name not in no_daemon and not daemon]
    done = nodes.inside(
        "sh", "-c",
        f"for n in {' '.join(listening)}; do for i in $(seq 400); do"
        " grep -q 'Server listening' /srv/$n.log && break; sleep 0.05; done;"
        " grep -q 'Server listening' /srv/$n.log || exit 1; done",
    )  # fmt: skip
    assert done.returncode == 0, [(at / f"{n}.log").read_text() for n in listening]
    return nodes
