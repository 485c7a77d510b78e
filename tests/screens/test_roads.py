"""Each way in, on real terminals, with a real fault behind it: to a written report."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

import pytest
from pty_terminal import Terminal  # type: ignore[import-not-found]

BIN = Path(sys.executable).parent
ALONE = """
import torch.distributed as dist
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:{port}", rank=0, world_size=2)
"""
PORTS = """
import os
import torch.distributed as dist
rank = int(os.environ["RANK"])
os.environ["MASTER_ADDR"] = "127.0.0.1"
os.environ["MASTER_PORT"] = str(29500 + rank)
dist.init_process_group("gloo")
"""
PLAIN = """
import torch.distributed as dist
dist.init_process_group("gloo")
"""
HELD = (
    "RuntimeError: The server socket has failed to listen on any local network address. "
    "port: {port}, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use\n"
)


@dataclass(frozen=True)
class Road:
    """The keys of the way in, what the report must name, and the terminal it is walked on."""

    keys: str
    cause: str
    script: str = PLAIN
    env: tuple[tuple[str, str], ...] = ()
    log: str = ""
    runs: bool = False


ROADS = {
    "a pasted error": Road(
        "p|Paste it now|\x1b[200~{log}\x1b[201~|1 lines|\x13|recognised",
        "port-held-by-service", log=HELD,
    ),
    "a log": Road(
        "l|Open a log|{folder}/rank0.log|rank0.log|\r|recognised", "port-held-by-service", log=HELD,
        env=(("TERM", "screen-256color"),),
    ),
    "a folder of logs": Road(
        "l|Open a log|{folder}|/work|\r|recognised", "missing-env", env=(("TERM", "linux"),),
        log="[rank0]: ValueError: Error initializing torch.distributed using env:// rendezvous: "
        "environment variable MASTER_ADDR expected, but not set\n",
    ),
    "a command": Road(
        "c|The launch command|torchrun --nproc-per-node=2 --master-port={port} train.py|train.py"
        "|\r|recognised",
        "port-held-by-service", env=(("TERM", "vt100"),),
    ),
    "a script": Road(
        "f|The training script|{folder}/train.py|train.py|\r|recognised", "port-differs-per-rank",
        script=PORTS, env=(("NO_COLOR", "1"),),
    ),
    "a job that is alive": Road(
        "j|pid {pid}|{pick}\r|recognised", "rank-never-started", script=ALONE,
        env=(("LANG", "C"), ("LC_ALL", "")), runs=True,
    ),
}  # fmt: skip


@pytest.fixture
def held() -> Iterator[int]:
    """A port that a server of somebody else's holds."""
    serve = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
    serve += "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


def to_the_report(here: Terminal) -> str:
    """From where something was recognised, as anybody would: the diagnosis, its fix, the report."""
    here.type(b"d")
    here.shows("Diagnosis")
    here.read(lambda: " fix " in here.text)
    here.type(b"\r")
    here.shows("Fix ")
    here.type(b"x")
    here.shows("Write the files")
    here.type(b"\r")
    here.shows("WRITTEN")
    here.type(b"q")
    assert here.ended() == 0
    return here.bytes.decode("utf-8", "replace")


@pytest.mark.parametrize("name", ROADS)
def test_a_way_in_leads_to_a_report(name: str, held: int, tmp_path: Path) -> None:
    road, work = ROADS[name], tmp_path / "work"
    work.mkdir()
    port = held
    if road.runs:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
    (work / "train.py").write_text(road.script.replace("{port}", str(port)))
    log = road.log.replace("{port}", str(port))
    if log:
        (work / "rank0.log").write_text(log)
    job = subprocess.Popen([sys.executable, "train.py"], cwd=work) if road.runs else None
    env = dict(road.env)
    here = Terminal(
        tmp_path / "state",
        command=("env", "-C", str(work), sys.executable, "-m", "ddp_assist"),
        PATH=f"{BIN}:/usr/bin:/bin", **env,
    )  # fmt: skip
    try:
        here.shows("What did you see?")
        for number, word in enumerate(road.keys.split("|")):
            text = word.replace("{folder}", str(work)).replace("{port}", str(port))
            text = text.replace("{log}", log).replace("{pid}", str(job.pid if job else ""))
            if number % 2:
                here.shows(text)
            elif "{pick}" in text:
                assert job is not None
                until_on(here, job.pid)
                here.type(b"\r")
            else:
                here.type(text.encode())
        left = to_the_report(here)
    finally:
        here.close()
        if job is not None:
            job.kill()
            job.wait(10)
    (report,) = (tmp_path / "state/ddp-assist/reports").glob("*/report.md")
    assert road.cause in report.read_text()
    assert "ddp-assist resume" in left


def until_on(here: Terminal, pid: int) -> None:
    """Goes down to the line of that job: others may be alive on the machine."""
    for _ in range(60):
        if any(line.startswith(" >") and f"pid {pid}" in line for line in here.picture.display):
            return
        before = here.text
        here.type(b"\x1b[B")
        here.read(lambda before=before: here.text != before)
    raise AssertionError(here.text)


def test_a_saved_case_goes_on_where_it_was(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_text(HELD.replace("{port}", "29500"))
    first = Terminal(tmp_path / "state", "--log", str(log), TERM="tmux-256color")
    first.shows("recognised")
    first.type(b"q")
    assert first.ended() == 0
    first.close()
    here = Terminal(tmp_path / "state", TERM="tmux-256color")
    here.shows("What did you see?")
    here.type(b"o")
    here.shows("Saved cases")
    here.type(b"\r")
    here.shows("recognised")
    to_the_report(here)
    (report,) = (tmp_path / "state/ddp-assist/reports").glob("*/report.md")
    assert "port-held-by-own-job" in report.read_text()
    here.close()


def test_stopped_and_woken_it_goes_on(tmp_path: Path) -> None:
    """ctrl+z gives the terminal back as it was; `fg` brings the screen back."""
    here = Terminal(
        tmp_path, command=("bash", "--norc", "-i"), PS1="ready$ ", HISTFILE="/dev/null"
    )  # fmt: skip
    here.shows("ready$")
    here.type(f"{sys.executable} -m ddp_assist --demo\r".encode())
    here.shows("Pick one")
    here.type(b"\x1a")
    here.shows("Stopped")
    assert here.bytes.rfind(b"\x1b[?1049l") > here.bytes.rfind(b"\x1b[?1049h")
    here.type(b"fg\r")
    here.shows("Pick one")
    here.type(b"q")
    here.read(lambda: here.bytes.count(b"ready$") == 3)
    here.type(b"exit\r")
    assert here.ended() == 0
    here.close()


@pytest.mark.parametrize(("rows", "columns"), [(15, 60), (80, 250), (6, 20)])
def test_it_follows_the_size_of_the_terminal(tmp_path: Path, rows: int, columns: int) -> None:
    """So small that nothing fits, too; and back again all is there."""
    here = Terminal(tmp_path, "--demo")
    here.shows("Pick one")
    for size in ((rows, columns), (24, 80)):
        here.picture.resize(*size)
        here.picture.erase_in_display(2)  # what stands there from now on was painted anew
        ioctl(here.slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        os.kill(here.child.pid, signal.SIGWINCH)
        if size[0] >= 15:
            here.shows("Pick one")
    here.type(b"\r")
    here.shows("recognised")
    here.type(b"q")
    assert here.ended() == 0
    here.close()


def test_a_state_folder_that_takes_nothing_is_said(tmp_path: Path) -> None:
    """And the session goes on."""
    (tmp_path / "state").write_text("a file, where the folder should be")
    log = tmp_path / "rank0.log"
    log.write_text(HELD.replace("{port}", "29500"))
    here = Terminal(tmp_path / "state", "--log", str(log))
    here.shows("this case is not saved")
    here.shows("recognised")
    here.type(b"d")
    here.shows("Diagnosis")
    here.type(b"q")
    assert here.ended() == 0
    here.close()
