"""Hosts on one machine: namespaces with an sshd each, inside namespaces of their own.

Everything is a descendant of one PID 1 and dies with it; the machine's own network, mounts and
daemons are never touched.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PORT = 29500
SSHD = """
Port 22
HostKey {at}/host
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile {at}/user.pub
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
{more}
"""
SSH = """
Host *
  IdentityFile {at}/user
  UserKnownHostsFile {at}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""
INIT = """set -e
hostname {name}
mount --bind {at}/{name}.hosts /etc/hosts
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin HOME=/root {daemon}
"""
LAB = """set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
mount --bind {at}/hosts /etc/hosts
mount --bind {at}/ssh_config /etc/ssh/ssh_config
ip link set lo up
ip link add br0 type bridge mcast_snooping 0
ip addr add 10.99.0.254/24 dev br0
ip link set br0 up
{nodes}
echo up
read end
"""
NODE = """ip netns add {name}
ip link add v{number} type veth peer name eth0 netns {name}
ip link set v{number} master br0 up
ip -n {name} link set lo up
ip -n {name} addr add 10.99.0.{number}/24 dev eth0
ip -n {name} link set eth0 up
ip netns exec {name} unshare --uts --mount --pid --fork --kill-child --mount-proc \
  sh {at}/{name}.init </dev/null >{at}/{name}.log 2>&1 &
"""


@dataclass(slots=True)
class Nodes:
    at: Path
    names: Sequence[str]
    lab: subprocess.Popen[str]

    def inside(self, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
        """A command where the nodes are, on the host that sees them all."""
        pid = self._first()
        command = ["nsenter", "-t", pid, "-n", "-m", "-p", "--", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, **more,  # type: ignore[call-overload]
        )

    def on(self, name: str, *words: str) -> str:
        """A command in the network of one node; it must succeed, or the fault is not there."""
        done = self.inside("ip", "netns", "exec", name, *words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def filter(self, name: str, *rules: str) -> None:
        """An input chain with these rules; none takes it away."""
        self.on(name, "nft", "flush", "ruleset")
        if rules:
            body = "".join(f"    {rule}\n" for rule in rules)
            hook = "    type filter hook input priority 0;\n"
            text = f"table inet t {{\n  chain c {{\n{hook}{body}  }}\n}}\n"
            path = self.at / f"{name}.nft"
            path.write_text(text)
            self.on(name, "nft", "-f", str(path))
            assert "chain c" in self.on(name, "nft", "list", "ruleset")

    def hosts(self, name: str, own: str | None) -> None:
        """The hosts file of a node, with what it takes its own name for."""
        (self.at / f"{name}.hosts").write_text(_hosts(self.names, name, own))

    def _first(self) -> str:
        path = Path(f"/proc/{self.lab.pid}/task/{self.lab.pid}/children")
        return path.read_text().split()[0]

    def close(self) -> None:
        self.lab.kill()
        self.lab.communicate()


def _hosts(names: Sequence[str], me: str = "", own: str | None = None) -> str:
    lines = ["127.0.0.1 localhost"]
    for number, name in enumerate(names, 1):
        address = f"10.99.0.{number}" if name != me else own
        lines += [f"{address} {name}"] if address else []
    return "\n".join(lines) + "\n"


def start(
    at: Path, names: Sequence[str], config: Mapping[str, str] | None = None,
    no_daemon: Sequence[str] = (),
) -> Nodes:  # fmt: skip
    """`config` has further lines of a node's sshd_config."""
    for key in ("host", "user", "other"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(at / key)],
            check=True,
        )
    (at / "hosts").write_text(_hosts(names))
    (at / "ssh_config").write_text(SSH.format(at=at))
    key = (at / "host.pub").read_text().strip()
    (at / "known_hosts").write_text("".join(f"{name} {key}\n" for name in names))
    parts = []
    for number, name in enumerate(names, 1):
        (at / f"{name}.hosts").write_text(_hosts(names, name, f"10.99.0.{number}"))
        more = (config or {}).get(name, "")
        (at / f"{name}.sshd").write_text(SSHD.format(at=at, more=more))
        sshd = f"/usr/sbin/sshd -D -e -f {at}/{name}.sshd"
        daemon = "/bin/sleep 600" if name in no_daemon else sshd
        (at / f"{name}.init").write_text(INIT.format(name=name, at=at, daemon=daemon))
        parts.append(NODE.format(name=name, number=number, at=at))
    (at / "lab").write_text(LAB.format(at=at, nodes="".join(parts)))
    lab = subprocess.Popen(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", str(at / "lab")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert lab.stdout is not None
    line = lab.stdout.readline()
    nodes = Nodes(at, names, lab)
    if line != "up\n":
        lab.kill()
        raise RuntimeError(lab.communicate()[1])
    for name in names:
        if name not in no_daemon:
            done = nodes.inside(
                "sh", "-c",
                f"for i in $(seq 100); do grep -q 'Server listening' {at}/{name}.log && exit 0;"
                " sleep 0.05; done; exit 1",
            )  # fmt: skip
            assert done.returncode == 0, (at / f"{name}.log").read_text()
    return nodes
