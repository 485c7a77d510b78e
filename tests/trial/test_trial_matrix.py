"""However ddp-assist ends while a trial runs, the trial's processes are gone a second later.

The session on a terminal and the command without a screen, each with itself, the trial's guard or
both killed, frozen, or its terminal closed, at random moments of a trial. Its ranks are real
processes with a light torch; test_trial_ends.py does it with the real one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import secrets
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.trial.guarded import MARK
from ddp_assist.probes.trial.shelter import sweep

ROOT = Path(__file__).resolve().parents[2]
LIGHT = Path(__file__).parent / "light"
MOMENTS = int(os.environ.get("DDP_ASSIST_MOMENTS", "25"))
SIDE_BY_SIDE = 5
LONGEST_MOMENT = 0.5
"""Seconds after a trial's first process was seen, and in every other run after its last."""
SHORT = 6.0
SPARE = 4.0
"""Seconds after the deadline in which what nobody watches any more has ended."""


class Asker:
    """ddp-assist on a terminal of its own, with a trial under way."""

    words: tuple[str, ...] = ("trial", "--nproc", "2")
    if_short: tuple[str, ...] = ("--timeout", str(SHORT))

    def __init__(self, tmp: Path, short: bool) -> None:
        """`short`: with an early deadline, where it can be told one."""
        words = (*self.words, *self.if_short) if short else self.words
        self.deadline = SHORT if short and self.if_short else 30.0
        self.token = secrets.token_hex(8)
        self.shown = b""
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, b"\x18\0\x50\0\0\0\0\0")
        env = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "TMUX")}
        env |= {
            "ASKER": self.token, "TMPDIR": str(tmp), "TERM": "xterm-256color",
            "XDG_STATE_HOME": str(tmp.parent / "state"),
            "PYTHONPATH": f"{ROOT / 'tests/typing'}:{LIGHT}",
        }  # fmt: skip
        self.front = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "ddp_assist", *words],
            stdin=follower, stdout=follower, stderr=follower, env=env,
        )  # fmt: skip
        os.close(follower)
        self.over = threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        """A terminal that nobody reads would block its program."""
        while not self.over.is_set():
            if select.select([self.leader], [], [], 0.05)[0]:
                try:
                    self.shown += os.read(self.leader, 65536)
                except OSError:
                    return

    def begin(self) -> None:
        """The trial begins of itself."""

    def trial(self) -> list[int]:
        """The living processes of its trial."""
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and self._of(name)]

    def guards(self) -> list[int]:
        """Those that this process started itself: whichever thread of it did."""
        started: list[str] = []
        drawing = self.drawing()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{drawing}/task").iterdir():
                started += (task / "children").read_text().split()
        return [int(name) for name in started if self._of(name)]

    def complete(self) -> bool:
        """Guard, worker and both ranks are there."""
        return len(self.trial()) == 4

    def _of(self, pid: str) -> bool:
        """Whether this is a process of its trial."""
        try:
            told = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"ASKER={self.token}".encode() in told and f"{MARK}=".encode() in told

    def drawing(self) -> int:
        """The process that asked for the trial: it started the guard."""
        return self.front.pid

    def ended(self) -> bool:
        return self.front.poll() is not None

    def close_terminal(self) -> None:
        if not self.over.is_set():
            self.over.set()
            self.reader.join()
            os.close(self.leader)

    def end(self) -> None:
        for pid in {self.front.pid, self.drawing(), *self.trial()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.front.wait()
        self.close_terminal()


class Session(Asker):
    """The guided session, with a trial begun on its screen for that."""

    words = ()
    if_short = ()

    def begin(self) -> None:
        """From screen to screen, each once it is there."""
        for shown, key in (("What did you see", "t"), ("not started yet", "\r")):
            self.wait_for(shown.encode())
            os.write(self.leader, key.encode())

    def wait_for(self, text: bytes) -> None:
        until = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < until, self.shown[-2000:]
            time.sleep(0.02)

    def drawing(self) -> int:
        """The terminal's own guard is in front; its child draws."""
        with contextlib.suppress(OSError, IndexError):
            path = Path(f"/proc/{self.front.pid}/task/{self.front.pid}/children")
            return int(path.read_text().split()[0])
        return self.front.pid


def strike(cell: str, asker: Asker) -> None:
    """What happens to it, at this moment."""
    if cell == "terminal closed":
        asker.close_terminal()
        return
    number = signal.SIGSTOP if "frozen" in cell else signal.SIGKILL
    whom = {
        "asker": [asker.drawing()],
        "guard": asker.guards(),
        "both": [*asker.guards(), asker.drawing()],
    }[cell.split()[0]]
    for pid in whom:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


CELLS = ("asker killed", "guard killed", "both killed", "asker frozen", "terminal closed")
MATRIX = [(kind, cell) for kind in (Asker, Session) for cell in CELLS]


@pytest.mark.parametrize(("kind", "cell"), MATRIX, ids=lambda it: getattr(it, "__name__", it))
def test_matrix(lab: Any, private_tmp: Path, kind: type[Asker], cell: str) -> None:
    chosen = random.Random(os.environ.get("DDP_ASSIST_SEED", f"{kind.__name__} {cell}"))
    moments = [chosen.uniform(0, LONGEST_MOMENT) for _ in range(MOMENTS)]

    def one(place: int) -> str:
        """What was left of it, if anything."""
        moment = moments[place]
        asker = kind(private_tmp, "frozen" in cell)
        try:
            asker.begin()
            if not lab.wait_until(asker.complete if place % 2 else asker.guards, 60):
                return f"{moment:.3f}: no trial began: {asker.shown[-500:]!r}"
            time.sleep(moment)
            strike(cell, asker)
            if cell == "terminal closed" and not lab.wait_until(asker.ended, 20):
                return f"{moment:.3f}: it did not end with its terminal"
            patience = asker.deadline + SPARE if "frozen" in cell else 1.0
            if lab.wait_until(lambda: not asker.trial(), patience):
                return ""
            return f"{moment:.3f}: {[describe(pid) for pid in asker.trial()]}"
        finally:
            asker.end()

    # Who is frozen is waited for until the deadline, so all of them are at once.
    with ThreadPoolExecutor(MOMENTS if "frozen" in cell else SIDE_BY_SIDE) as pool:
        left = [said for said in pool.map(one, range(MOMENTS)) if said]
    assert left == []
    swept_by_the_next_start(lab, private_tmp)


def describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return f"{pid} ended"
    return f"{pid} {state} {command[-100:]}"


def swept_by_the_next_start(lab: Any, tmp: Path) -> None:
    """Only who was killed before it had locked its directory leaves one, for a minute."""

    def locks() -> list[Path]:
        sweep()  # again, because a process that ends closes its files after it is last seen
        return list(tmp.glob("*/lock"))

    assert lab.wait_until(lambda: not locks(), 2.0), list(tmp.rglob("*"))
    for path in tmp.glob("ddp-assist-trial-*"):
        os.utime(path, (0, 0))
    sweep()
    assert list(tmp.iterdir()) == []
