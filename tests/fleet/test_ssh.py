"""Every way in which a log-in fails is one line about that node; the others still answer."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from fleet_nodes import start  # type: ignore[import-not-found]

from ddp_assist.probes.fleet.engine import SENTENCES, reason

ROOT = Path(__file__).resolve().parents[2]
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
    "no-python": "sh: 1: python3: not found",
    "python-too-old": "python-too-old 3.8.",
    "no-room": "FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']",
}


@pytest.mark.parametrize("state", SAID)
def test_reasons(state: str) -> None:
    assert reason("asked", SAID[state]) == state
    assert state in SENTENCES


def test_a_connection_that_was_well_died() -> None:
    assert reason("ok", "Connection closed by remote host") == "died"


@pytest.mark.needs("root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter")
def test_all_at_once(tmp_path: Path) -> None:
    names = ("good1", "good2", "refused", "dropped", "hanging", "changed", "stranger", "noisy",
             "nopython", "locked", "full")  # fmt: skip
    shell = '/bin/sh -c "$SSH_ORIGINAL_COMMAND"'
    nodes = start(
        tmp_path,
        names,
        {
            "hanging": "ForceCommand sleep 300",
            "noisy": f"ForceCommand echo welcome to noisy; echo '{{\"did\": \"hello\"}}'; {shell}",
            "nopython": f"ForceCommand PATH=/nowhere {shell}",
            "locked": "PubkeyAuthentication no",
            "full": "ForceCommand cd /proc; TMPDIR=/proc; export TMPDIR; "
            "unshare -m sh -c 'for d in /tmp /var/tmp; do mount --bind -o ro /proc $d; done; "
            "exec sh -c \"$SSH_ORIGINAL_COMMAND\"'",
        },
        no_daemon=("refused",),
    )
    try:
        other = (tmp_path / "other.pub").read_text()
        lines = (tmp_path / "known_hosts").read_text().splitlines()
        kept = [x for x in lines if not x.startswith(("stranger ", "changed "))]
        (tmp_path / "known_hosts").write_text("\n".join([*kept, f"changed {other}"]))
        nodes.filter("dropped", "tcp dport 22 drop")
        begun = time.monotonic()
        done = nodes.inside(
            "env", f"PYTHONPATH={ROOT}/tests/typing", sys.executable, "-m", "ddp_assist", "fleet",
            "--json", "--no-trial", "-w", ",".join([*names, "nowhere"]),
        )  # fmt: skip
        seconds = time.monotonic() - begun
    finally:
        nodes.close()
    assert done.returncode == 5, done.stderr
    result = json.loads(done.stdout)
    states = {n["node"]: n["state"] for n in result["nodes"]}
    assert states == {
        "good1": "ok",
        "good2": "ok",
        "refused": "refused",
        "dropped": "timed-out",
        "hanging": "hangs",
        "changed": "host-key-changed",
        "stranger": "host-key-unknown",
        "noisy": "ok",
        "nopython": "no-python",
        "locked": "password-wanted",
        "full": "no-room",
        "nowhere": "name-unknown",
    }
    assert {link["from"] for link in result["links"]} == {"good1", "good2", "noisy"}
    assert seconds < 60
