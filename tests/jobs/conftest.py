"""Real gloo jobs, small and short, started as people start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.jobs import scene
from ddp_assist.probes.jobs.find import find_jobs
from ddp_assist.probes.jobs.job import PROBES, job_of
from ddp_assist.probes.jobs.ranks import Job
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.network.ports import free_port
from ddp_assist.probes.network.sockets import tcp

BIN = Path(sys.executable).parent


def until(true: Callable[[], bool], seconds: float = 180) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come to this"
        time.sleep(0.1)


class Gang:
    """The processes of one job."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        port = free_port()
        assert port is not None
        self.port = port
        self.children: list[subprocess.Popen[bytes]] = []
        self.before: tuple[str, ...] = ()
        """What stands in front of each command: another user, another namespace."""

    def script(self, source: str) -> Path:
        path = self.folder / "train.py"
        path.write_text(source)
        return path

    def run(self, words: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
        given = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
        child = subprocess.Popen(
            [*self.before, *words], env=given | {"OMP_NUM_THREADS": "1"} | env, cwd=self.folder,
            stdout=(self.folder / f"out{len(self.children)}").open("wb"),
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.children.append(child)
        self.stack.callback(self._end, child)
        return child

    @staticmethod
    def _end(child: subprocess.Popen[bytes]) -> None:
        for pid in (child.pid, *(p.pid for p in snapshot().descendants(child.pid))):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        child.wait(20)

    def rank(
        self, source: str, rank: int, world: int, port: int | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.run(
            [sys.executable, str(self.script(source))], RANK=str(rank), WORLD_SIZE=str(world),
            MASTER_ADDR=host, MASTER_PORT=str(port or self.port),
        )  # fmt: skip

    def ranks(self, source: str, world: int, but: Sequence[int] = ()) -> None:
        for rank in range(world):
            if rank not in but:
                self.rank(source, rank, world)

    def torchrun(self, source: str, world: int) -> None:
        self.run([str(BIN / "torchrun"), "--nproc-per-node", str(world), "--master-port",
                  str(self.port), str(self.script(source))])  # fmt: skip

    def python(self, source: str) -> None:
        self.run([sys.executable, str(self.script(source)), str(self.port)])

    @property
    def output(self) -> str:
        return "".join(p.read_text(errors="replace") for p in sorted(self.folder.glob("out*")))

    @property
    def job(self) -> Job | None:
        return job_of(self.children[0].pid)

    def look(self) -> list[Finding]:
        return list(PROBES[0].look(Target(job=self.children[0].pid)))

    def shows(self, outcome: str) -> Finding:
        """What the probe says, once the job came to where it stays."""
        found: list[Finding] = []

        def there() -> bool:
            found[:] = [f for f in self.look() if f.outcome == outcome]
            return bool(found)

        try:
            until(there)
        except AssertionError as why:
            said = [f"{f.outcome}: {f.sentence}" for f in self.look()]
            raise AssertionError(f"{said}\n{self.output[-2000:]}") from why
        return found[0]

    def connections(self) -> int:
        """How many connections the store has."""
        return sum(s.port == self.port and s.state == "established" for s in tcp())

    until = staticmethod(until)

    def until_joined(self, clients: int) -> None:
        until(lambda: self.connections() >= clients)

    def diagnosed(self, *front: str, peek: bool = False) -> dict[str, Any]:
        words = [str(BIN / "ddp-assist"), "diagnose", "--job", str(self.children[0].pid),
                 "--no-trial", "--json", *(["--peek"] if peek else [])]  # fmt: skip
        done = subprocess.run([*front, *words], capture_output=True, check=False, timeout=120)
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[Gang]:
    with ExitStack() as stack:
        yield Gang(stack, tmp_path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait counts after a second, so that no test has to watch a job for longer."""
    monkeypatch.setattr(scene, "CALM", 1.0)
    monkeypatch.setattr(scene, "PATIENT", 2.0)
    monkeypatch.setattr(scene, "PATIENCE", 1.0)


def jobs_on(port: int) -> list[Job]:
    return [job for job in find_jobs(snapshot()) if job.port == port]
