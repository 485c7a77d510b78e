"""The Hosts screen in a real terminal, while real nodes with several troubles are asked."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from fleet_nodes import ALICE, Nodes, as_alice, ours, start  # type: ignore[import-not-found]

sys.path.append(str(Path(__file__).parents[1] / "screens"))
from pty_terminal import Terminal  # type: ignore[import-not-found]  # noqa: E402

pytestmark = pytest.mark.needs(
    "root", "namespaces", "ip", "nft", "sshd", "ssh", "nsenter", "setpriv"
)
NAMES = tuple(f"node{number:02}" for number in range(1, 9))
OTHER_TORCH, SHUT, DEAD, LOOPBACK, HANGING = ("node03", "node08"), *NAMES[3:7]
WELL = [name for name in NAMES if name not in (DEAD, HANGING)]
"""Those that answer."""
LAUNCH = (
    str(Path(sys.executable).with_name("torchrun")), "--nnodes=8", "--node-rank=0",
    "--master-addr=node01", "--master-port=29500", "--nproc-per-node=1", "train.py",
)  # fmt: skip
BASHRC = f"case $(hostname) in {HANGING}) sleep 600;; esac\n"


@pytest.fixture(scope="module")
def bed() -> Iterator[Nodes]:
    torch = find_spec("torch")
    assert torch is not None and torch.origin is not None
    version = Path(torch.origin).with_name("version.py")
    other = re.sub(r"(__version__ *= *)'[^']*'", r"\1'2.1.0'", version.read_text())
    nodes = start(
        NAMES,
        init=dict.fromkeys(OTHER_TORCH, f"mount --bind /srv/version.py {version}"),
        files={"version.py": other.encode(), "home/.bashrc": BASHRC.encode()},
    )
    try:
        accept = ("ct state established,related accept", "tcp dport 22 accept")
        nodes.filter(SHUT, *accept, "tcp dport 1-65535 drop")
        nodes.on(DEAD, "ip", "link", "set", "eth0", "down")
        nodes.hosts(LOOPBACK, "127.0.1.1")
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def terminal(bed: Nodes, tmp_path: Path) -> Iterator[Terminal]:
    """The app of an ordinary user on the log-in host, in which the nodes have just been named."""
    command = [*bed.entered(), *as_alice(["TERM=xterm-256color"]), *ours("--", *LAUNCH)]
    here = Terminal(tmp_path, command=command)
    here.shows("What did you see")
    here.type(b"h")
    here.shows("> Hosts")
    here.type(b"n")
    here.shows("Which nodes?")
    here.type(b"node[01-08]\r")
    yield here
    if here.child.poll() is None or not here.closed:
        here.close()


def test_troubles_among_many_are_told_apart(bed: Nodes, terminal: Terminal) -> None:
    """Who answered is shown while one still hangs; then each trouble with its node, and the many
    that are alike in one line."""
    terminal.shows(f"{LOOPBACK} this host's own name {LOOPBACK} is the loopback address")
    terminal.shows("answered node[03,08] torch 2.1.0")
    # Where this host is quick the dead one is still awaited too; where it is slow nobody is.
    assert re.search(rf"(asked|hangs) +({HANGING}|node\[05,07\])", terminal.text), terminal.text
    terminal.shows("enter goes on to it and 2 more")
    text = terminal.text
    assert "CERTAIN: The host's own name leads to 127.x" in text
    assert f"told {LOOPBACK}: this host's own name" in text, "the headline says which node"
    assert f"hangs {HANGING} the log-in worked" in text and "does its shell start-up hang?" in text
    assert f"no-route {DEAD} there is no route to it" in text
    assert f"SHUT all 5 that tried -> {SHUT} data ports: silent" in text
    terminal.type(b"\x1b[F")
    terminal.shows(f"none of the 5 nodes that tried can reach any data port tried of {SHUT}")
    terminal.shows("the version of torch differs: 2.1.0 on node[03,08]")
    terminal.type(b"\r")
    terminal.shows("CERTAIN The rendezvous port is open, but the ports of the data")
    terminal.shows("LIKELY The peer on the master port speaks another store protocol")
    terminal.type(b"q")
    assert terminal.ended() == 0


WAYS = ("q", "ctrl+c twice", "the terminal goes", "kill -9 of the screen", "kill -9 of both")


@pytest.mark.parametrize("way", WAYS)
def test_leaving_ends_the_asking(bed: Nodes, terminal: Terminal, way: str) -> None:
    terminal.shows("answered node[03,08] torch 2.1.0")
    assert "ddp-assist-node-" in bed.user("ls", "/run/tmp", on="node01").stdout
    if way == "q":
        terminal.type(b"q")
    elif way == "ctrl+c twice":
        terminal.type(b"\x03")
        terminal.shows("again")
        terminal.type(b"\x03")
    elif way == "the terminal goes":
        terminal.close()
    else:
        ours_here = bed.inside("pgrep", "-u", str(ALICE), "-f", "m ddp_assist").stdout.split()
        assert len(ours_here) == 2
        last = ours_here[1:] if way == "kill -9 of the screen" else ours_here
        assert bed.inside("kill", f"-{signal.SIGKILL:d}", *last).returncode == 0
    here = "pgrep -u alice -r D,R,S,T -a 'ssh|python'"  # the bed's first process reaps nobody
    gone = f"for i in $(seq 400); do {here} || exit 0; sleep 0.05; done; exit 1"
    assert bed.inside("sh", "-c", gone).returncode == 0, "an ssh client or the app is still here"
    assert bed.left(WELL) == ""
