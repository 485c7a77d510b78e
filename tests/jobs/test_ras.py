"""RAS of a live job: asked twice, only on its own port, and only where that is safe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ddp_assist.probes.jobs.ras_server import asked
from ddp_assist.probes.model import Finding
from ddp_assist.probes.network.ports import free_port

RANK = """
import mmap, pathlib, socket, sys
library, port, *answers = sys.argv[1:]
file = open(library, "rb")
kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
door = socket.create_server(("127.0.0.1", int(port)))
print("up", flush=True)
for answer in answers:
    guest, _ = door.accept()
    heard = b""
    while not heard.endswith(b"VERBOSE STATUS\\n"):
        heard += guest.recv(99)
    guest.sendall(b"SERVER PROTOCOL 2\\nOK\\n" + pathlib.Path(answer).read_bytes())
    guest.close()
print("asked", flush=True)
"""
BEHIND = """#0-0 (27a079b828ff1a75) MISMATCH
  Communicator ranks have different collective operation counts
  3 ranks have launched up to operation {front}
  1 rank has launched up to operation {last}
  Rank 2 -- GPU 2 managed by process 990 on node 10.1.1.4
"""
HEALTHY = (Path(__file__).parents[1] / "logs" / "real_gpu" / "ras.txt").read_text()
Ask = Callable[..., list[Finding]]


@pytest.fixture
def ras(tmp_path: Path) -> Iterator[Ask]:
    """What is found where a rank with this NCCL gives these answers."""
    with ExitStack() as stack:

        def ranks(version: str, *answers: str, count: int = 1) -> list[Finding]:
            library = tmp_path / "site-packages" / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
            library.parent.mkdir(parents=True)
            library.write_bytes(bytes(4096))
            (library.parents[3] / f"nvidia_nccl_cu13-{version}.dist-info").mkdir()
            files = []
            for number, text in enumerate(answers):
                files.append(tmp_path / f"answer{number}")
                files[-1].write_text(text)
            port = free_port()
            env = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": "1", "NCCL_RAS_ADDR": f"localhost:{port}"}  # fmt: skip
            rank = subprocess.Popen(
                [sys.executable, "-c", RANK, library, str(port), *files],
                env=os.environ | env, stdout=subprocess.PIPE,
            )  # fmt: skip
            stack.callback(rank.wait)
            stack.callback(rank.kill)
            assert rank.stdout is not None and rank.stdout.readline() == b"up\n"
            return list(asked(rank.pid))

        yield ranks


def test_a_difference_that_stays_is_one(ras: Ask) -> None:
    (found,) = ras("2.29.7", *[BEHIND.format(front=41, last=40)] * 2)
    assert (found.outcome, found.data["rank"]) == ("rank-behind", 2)
    assert "NCCL RAS at 127.0.0.1" in found.evidence[0].source


def test_a_difference_that_moves_is_none(ras: Ask) -> None:
    assert ras("2.28.9", *(BEHIND.format(front=n, last=n - 1) for n in (41, 97))) == []


def test_a_healthy_job(ras: Ask) -> None:
    assert [f.outcome for f in ras("2.28.9", HEALTHY, HEALTHY)] == ["healthy"]


@pytest.mark.parametrize("version", ["2.27.3", "2.26.2.post1"])
def test_where_an_answer_may_end_the_job_nobody_asks(ras: Ask, version: str) -> None:
    (found,) = ras(version, HEALTHY)
    assert found.outcome == "unknown"
    assert "may end the job when it is asked" in found.sentence
