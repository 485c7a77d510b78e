"""The session through `ssh -tt` to another host as an ordinary user: cut in the middle, resumed."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/fleet"))

from fleet_nodes import ALICE, Nodes, ours, start  # type: ignore[import-not-found]  # noqa: E402
from pty_terminal import Terminal  # type: ignore[import-not-found]  # noqa: E402

pytestmark = pytest.mark.needs(
    "root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter", "setpriv"
)
SERVER = (
    "import socket, time; s = socket.create_server(('0.0.0.0', 29500)); print('up', flush=True);"
    " time.sleep(600)"
)
LAUNCH = ("torchrun", "--nproc-per-node=2", "--master-port=29500", "train.py")


@pytest.fixture
def node() -> Iterator[Nodes]:
    """One host where somebody's server has the rendezvous port."""
    nodes = start(("node1",))
    (nodes.at / "home/train.py").write_text(
        "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
    )
    server = f"{shlex.join((sys.executable, '-c', SERVER))} >/srv/server.log 2>&1 </dev/null &"
    nodes.on("node1", "sh", "-c", f"{server} until grep -q up /srv/server.log; do sleep 0.1; done")
    yield nodes
    nodes.close()


def session(nodes: Nodes, tmp_path: Path, *words: str) -> Terminal:
    """What alice sees who logs in from the host that sees the node."""
    program = shlex.join((f"PATH={Path(sys.executable).parent}:/usr/bin:/bin", *ours(*words)))
    who = ("setpriv", "--reuid", str(ALICE), "--regid", str(ALICE), "--clear-groups")
    lab = Path(f"/proc/{nodes.lab.pid}/task/{nodes.lab.pid}/children").read_text().split()[0]
    there = ("nsenter", "-t", lab, "-n", "-m", "-p", "--", *who)
    program = f"PYTHONPATH={ROOT}/tests/typing PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 {program}"
    return Terminal(
        tmp_path, command=(*there, "ssh", "-tt", "node1", f"cd /srv/home && exec env {program}")
    )


def test_a_cut_connection_loses_nothing(node: Nodes, tmp_path: Path) -> None:
    here = session(node, tmp_path, "--", *LAUNCH)
    here.shows("recognised")
    here.type(b"\r")
    here.shows("Who has the port?")
    here.shows("1 seen")
    here.child.send_signal(signal.SIGKILL)  # the connection, not the session
    here.child.wait(30)
    here.close()
    wait = "for i in $(seq 600); do pgrep -f '[d]dp_assist' >/dev/null || exit 0; sleep 0.1; done"
    gone = node.inside("sh", "-c", f"{wait}; ps -o pid,args -u {ALICE}; exit 1")
    assert gone.returncode == 0, gone.stdout
    again = session(node, tmp_path, "resume")
    again.shows("Who has the port?")
    again.shows("1 seen")
    again.type(b"\r")
    again.shows("The cause is")
    again.shows("port 29500 is held")
    again.type(b"\r")
    again.shows("Fix 1 of")
    again.type(b"x")
    again.shows("Write the files")
    again.type(b"\r")
    again.shows("WRITTEN")
    again.type(b"q")
    assert again.ended() == 0
    left = again.bytes.decode("utf-8", "replace")
    assert "corrected launch" in left
    assert "ddp-assist resume" in left
    again.close()
    (report,) = (node.at / "home/.local/state/ddp-assist/reports").glob("*/report.md")
    assert "29500" in report.read_text()
    assert report.stat().st_uid == ALICE
