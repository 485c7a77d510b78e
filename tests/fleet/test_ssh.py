"""Every way in which a log-in fails is one line about that node; the others still answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fleet_nodes import ours, start  # type: ignore[import-not-found]

from ddp_assist.probes.fleet.parcel import boot, parcel
from ddp_assist.probes.fleet.reasons import SENTENCES, reason

SAID = {
    "host-key-changed": "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key "
    "verification failed.",
    "host-key-unknown": "Host key verification failed.",
    "name-unknown": "ssh: Could not resolve hostname n9: Name or service not known",
    "banner-timeout": "Connection timed out during banner exchange",
    "timed-out": "ssh: connect to host n1 port 22: Connection timed out",
    "refused": "ssh: connect to host n1 port 22: Connection refused",
    "no-route": "ssh: connect to host n1 port 22: No route to host",
    "password-wanted": "me@n1: Permission denied (publickey,password).",
    "no-python": "no-python",
    "no-python-runs": "sh: 1: /opt/python3: Exec format error\nno-python",
    "python-too-old": "python-too-old",
    "account-closed": "Access denied: user alice (uid=2001) has no active jobs on this node.",
    "no-slurm-step": "srun: error: Unable to create step for job 7: Job/step already completing",
    "no-room": "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']",
}


@pytest.mark.parametrize("state", SAID)
def test_reasons(state: str) -> None:
    assert reason("asked", SAID[state]) == state
    assert state in SENTENCES


def test_a_connection_that_was_well_died() -> None:
    assert reason("ok", "Connection closed by remote host") == "died"


BASHRC = """case $(hostname) in
hanging) sleep 300;;
noisy) for i in $(seq 200); do echo noise on stdout $i; done; echo '{"did": "hello"}'
  echo noise on stderr >&2;;
esac
"""
FOREIGN = bytes.fromhex("7f454c46020101000000000000000000" "0200b70001000000") + bytes(72)
"""The head of a program for another architecture."""
TEMPORARY = ("/run/tmp", "/tmp", "/var/tmp", "/usr/tmp", "/srv/home")  # noqa: S108 - of the node


def everywhere(*options: str) -> str:
    """Each place that Python takes for temporary files, mounted anew in that node only."""
    lines = []
    for path in TEMPORARY:
        lines.append(f"test ! -d {path} || mount -t tmpfs {' '.join(options)} tmpfs {path}")
    return "\n".join(lines)


def instead_of_python(path: str) -> str:
    return f"for p in /usr/bin/python3.* /usr/local/bin/python*; do\n  case $p in *[a-z]);; *" \
        f"[0-9]) test ! -e $p || mount --bind {path} $p;; esac\ndone"


@pytest.mark.needs("root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter", "setpriv")
def test_all_at_once() -> None:
    names = ("good1", "good2", "refused", "dropped", "stopped", "hanging", "changed", "stranger",
             "noisy", "nopython", "oldpython", "foreign", "locked", "full", "readonly")  # fmt: skip
    hanging = "\n".join(f"head -c 40k /dev/zero >{p}/all || true" for p in TEMPORARY)
    nodes = start(
        names,
        {"locked": "PubkeyAuthentication no"},
        no_daemon=("refused",),
        init={
            "nopython": instead_of_python("/dev/null"),
            "oldpython": instead_of_python("/srv/old"),
            "foreign": instead_of_python("/srv/foreign"),
            "full": everywhere("-o", "size=64k,mode=1777") + "\n" + hanging,
            "readonly": everywhere("-o", "ro"),
        },
        files={"old": b"#!/bin/sh\nexit 93\n", "foreign": FOREIGN, "home/.bashrc": BASHRC.encode()},
    )
    try:
        other = (nodes.at / "other.pub").read_text()
        key = (nodes.at / "host.pub").read_text()
        kept = [n for n in names if n not in ("stranger", "changed")]
        (nodes.at / "known_hosts").write_text(f"{','.join(kept)} {key}changed {other}")
        nodes.filter("dropped", "tcp dport 22 drop")
        assert nodes.inside("pkill", "-STOP", "-o", "-f", "srv/stopped.sshd").returncode == 0
        begun = time.monotonic()
        every = ",".join([*names, "nowhere"])
        done = nodes.user(*ours("fleet", "--json", "--no-trial", "-w", every))
        text = nodes.user(*ours("fleet", "--no-trial", "-w", "good1,locked")).stdout
        seconds = time.monotonic() - begun
        left = nodes.user("sh", "-c", "ls /run/tmp", on="good1").stdout
    finally:
        nodes.close()
    assert done.returncode in (1, 5), done.stderr
    result = json.loads(done.stdout)
    states = {n["node"]: n["state"] for n in result["nodes"]}
    assert states == {
        "good1": "ok",
        "good2": "ok",
        "refused": "refused",
        "dropped": "timed-out",
        "stopped": "banner-timeout",
        "hanging": "hangs",
        "changed": "host-key-changed",
        "stranger": "host-key-unknown",
        "noisy": "ok",
        "nopython": "no-python",
        "oldpython": "python-too-old",
        "foreign": "no-python-runs",
        "locked": "password-wanted",
        "full": "no-room",
        "readonly": "no-room",
        "nowhere": "name-unknown",
    }
    assert {link["from"] for link in result["links"]} == {"good1", "good2", "noisy"}
    lines = [f["sentence"] for f in result["findings"] if f["data"].get("state")]
    silent = {state for state in states.values() if state != "ok"}
    assert len(lines) == len(silent) and all("\n" not in line for line in lines)
    assert "locked" in text.splitlines()[1] and "set up a key" in text.splitlines()[1]
    assert left == "" and seconds < 90


PYTHONS = [sys.executable, *(Path.home() / ".pyenv" / "versions").glob("*/bin/python")]
"""Whatever else this machine has, from 2.7 on."""


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: str(path).split("/")[-3])
def test_the_first_line_is_understood_by_every_python(python: Path) -> None:
    """Those too old say so with a code; those new enough read the parcel, say hello and look."""
    asked = {"do": "look", "name": "here", "launch": ["torchrun", "--nnodes=2", "t.py"], "cwd": "/",
             "names": [], "seconds": 30}  # fmt: skip
    what = "import sys; print('%d%02d' % sys.version_info[:2])"
    version = subprocess.run([python, "-c", what], capture_output=True, text=True, check=True)
    node = subprocess.Popen(
        ["sh", "-c", boot([str(python)], "token")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert node.stdin is not None and node.stdout is not None and node.stderr is not None
    if int(version.stdout) < 309:
        assert node.communicate()[1].split()[-1] == b"python-too-old"
        return
    node.stdin.write(parcel() + json.dumps(asked).encode() + b"\n")
    node.stdin.flush()
    told = [line for line in (node.stdout.readline() for _ in range(4)) if line.strip()]
    node.communicate()
    hello, answer = (json.loads(line.partition(b" ")[2]) for line in told)
    assert hello["did"] == "hello"
    sentences = {f["probe"]: f["sentence"] for f in answer["findings"]}
    assert not [said for said in sentences.values() if "probe failed" in said]
    assert {"own-name", "limits", "torch"} <= set(sentences)
