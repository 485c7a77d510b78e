"""What looking does to a machine, by the word of the kernel: no signal, no write, no stranger."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

CALLS = (
    "kill,tkill,tgkill,pidfd_send_signal,rt_sigqueueinfo,rt_tgsigqueueinfo,ptrace,"
    "process_vm_readv,process_vm_writev,open,openat,openat2,creat,mkdir,mkdirat,unlink,unlinkat,"
    "rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,"
    "fchown,fchownat,lchown,truncate,ftruncate,mount,umount2,setns,prlimit64,setpriority,"
    "connect,listen,sendto,sendmsg,sendmmsg"
)
READS = ("open", "openat", "openat2")
SENDS = ("connect", "sendto", "sendmsg", "sendmmsg")
ADDRESS = re.compile(
    r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([^"]+)"'
    r'|sin6_port=htons\((\d+)\).*?inet_pton\(AF_INET6, "([^"]+)"'
)
COMMAND = [sys.executable, "-m", "ddp_assist"]
SCRIPT = "import torch.distributed as dist\ndist.init_process_group('gloo')\n"


def servers() -> set[str]:
    lines = Path("/etc/resolv.conf").read_text(errors="replace").splitlines()
    return {words[1] for words in map(str.split, lines) if words[:1] == ["nameserver"]}


def deeds(trace: str, own: Path, named: frozenset[str] = frozenset()) -> list[str]:
    """Every call of a trace that is more than looking."""
    found = []
    lines = trace.splitlines()
    children = {line.partition(" ")[0] for line in lines}
    for line in lines:
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        if call is None:
            continue  # the end of a call whose begin stands above, or an exit
        name, words = call[1], call[2]
        if name in READS:
            writes = re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", words)
            path = re.search(r'"([^"]*)"', words)
            allowed = path and (path[1] == "/dev/null" or path[1].startswith(f"{own}/"))
            if writes and not allowed:
                found.append(line)
        elif name == "kill":
            # A child of ours that is late is ended with all that it started; nobody else is.
            whom = re.match(r"-(\d+), SIGKILL\)", words)
            if whom is None or whom[1] not in children:
                found.append(line)
        elif name == "prlimit64":
            if not re.search(r"\d+, RLIMIT_\w+, NULL", words):
                found.append(line)
        elif name in SENDS:
            if not _may_talk(words, named):
                found.append(line)
        else:
            found.append(line)
    return found


def _may_talk(words: str, named: frozenset[str]) -> bool:
    address = ADDRESS.search(words)
    if address is None:
        # The kernel's own tables, the name service of this host, or a socket that is connected.
        return "AF_INET" not in words
    port, host = int(address[1] or address[3]), ip_address(address[2] or address[4])
    return host.is_loopback or str(host) in named or (port == 53 and str(host) in servers())


def traced(tmp_path: Path, *command: str, before: tuple[str, ...] = ()) -> str:
    out = tmp_path / "trace"
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [*before, "strace", "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", f"trace={CALLS}",
         "-o", str(out), *command],
        capture_output=True, text=True, timeout=240, cwd=tmp_path, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | {"HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"},  # no look of ours
    )  # fmt: skip
    assert done.returncode in (0, 1, 5), done.stderr
    return out.read_text(errors="replace")


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    "words", [["check"], ["check", "--json"], ["jobs"], ["explain", "port-held-by-orphan"]]
)
def test_looking_changes_nothing(tmp_path: Path, words: list[str]) -> None:
    trace = traced(tmp_path, *COMMAND, *words)
    assert len(trace.splitlines()) > 50
    assert deeds(trace, tmp_path / "state") == []


@pytest.mark.needs("strace", "namespaces", "ip")
def test_only_what_the_target_names_is_spoken_to(tmp_path: Path) -> None:
    """All probes with a launch: its torch is imported, its endpoint on another host is tried."""
    setup = (
        "ip link set lo up; ip link add eth0 type veth peer name other; ip link set other up; "
        'ip addr add 10.66.0.1/24 dev eth0; ip link set eth0 up; exec "$0" "$@"'
    )
    launch = ["torchrun", "--nnodes=2", "--node-rank=1", "--master-addr=10.66.0.2",
              "--master-port=29500", "train.py"]  # fmt: skip
    inside = ("unshare", "-n", "bash", "-c", setup)
    trace = traced(tmp_path, *COMMAND, "check", "--json", "--", *launch, before=inside)
    assert "10.66.0.2" in trace
    assert deeds(trace, tmp_path / "state", frozenset({"10.66.0.2"})) == []


@pytest.mark.needs("strace")
def test_a_deed_would_be_seen(tmp_path: Path) -> None:
    code = (
        "import os, socket\n"
        "open('left', 'w').close(); os.rename('left', 'other'); os.kill(os.getpid(), 0)\n"
        "s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9))\n"
        "socket.create_server(('127.0.0.1', 0))\n"
    )
    found = deeds(traced(tmp_path, sys.executable, "-c", code), tmp_path / "state")
    assert [re.sub(r"\d+ +(\w+).*", r"\1", deed) for deed in found] == [
        "openat", "rename", "kill", "connect", "listen",
    ]  # fmt: skip
