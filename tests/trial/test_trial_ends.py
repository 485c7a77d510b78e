"""However ddp-assist ends, every process of a trial is gone, and nothing is left behind.

Moments are random. DDP_ASSIST_MOMENTS says how many a cell of the matrix has (25 before a release).
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.trial.guarded import MARK
from ddp_assist.probes.trial.run import run_trial
from ddp_assist.probes.trial.shelter import Shelter, sweep
from ddp_assist.probes.trial.spec import Stage, TrialSpec
from ddp_assist.probes.trial.warm import WarmTorch

ROOT = Path(__file__).parents[2]
MOMENTS = int(os.environ.get("DDP_ASSIST_MOMENTS", "4"))
SIDE_BY_SIDE = 4
DEADLINE = 3.0
# Rank 2 never comes, so that the trial lives until something ends it.
COLD = f"run_trial(TrialSpec(nproc=3, ranks=(0, 1), deadline={DEADLINE}))"
ASKERS = {
    "cold": COLD,
    "warm": f"with WarmTorch() as warm:\n        warm.{COLD}",
    "torchrun": "run_trial(TrialSpec(torchrun=('--nnodes=2', '--node-rank=0', "
    "'--nproc-per-node=2', '--master-addr=127.0.0.1', '--master-port=0'), deadline=20))",
}
ASKER = """
from ddp_assist.probes.trial.run import TrialSpec, run_trial
from ddp_assist.probes.trial.warm import WarmTorch
if __name__ == "__main__":
    {what}
"""


class Asker:
    """A ddp-assist in a process of its own, with a trial under way."""

    def __init__(self, lab: Any, tmp: Path, what: str = COLD, **popen: Any) -> None:
        self.lab = lab
        self.token = secrets.token_hex(8)
        env = {
            **os.environ, "ASKER": self.token, "TMPDIR": str(tmp),
            "PYTHONPATH": str(ROOT / "tests" / "typing"),
        }  # fmt: skip
        command = [sys.executable, "-c", ASKER.format(what=what)]
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, **popen)

    def started(self) -> list[int]:
        """Processes of its trial: they have its token, and the mark of a trial."""
        marks = set(self.lab.marked(f"{MARK}="))
        return [pid for pid in self.lab.marked(f"ASKER={self.token}") if pid in marks]

    def guard(self) -> int | None:
        """The one that is a child of the asker."""
        for pid in self.started():
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == self.process.pid:
                return pid
        return None

    def signal(self, number: signal.Signals, *whom: str) -> bool:
        """Whether there was somebody to signal: a guard may not have started, or have ended."""
        guard = self.guard() if "guard" in whom else None
        if guard is not None:
            os.kill(guard, number)
        if "asker" in whom:
            self.process.send_signal(number)
        return guard is not None or "asker" in whom

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()


@pytest.fixture
def shared_memory() -> Iterator[None]:
    before = set(os.listdir("/dev/shm"))
    yield
    mine = [n for n in set(os.listdir("/dev/shm")) - before if "nccl" in n or "torch" in n]
    assert mine == []


def moments(seed: str, longest: float) -> list[list[float]]:
    """Random moments, in groups that run side by side; the seed is in the name of the cell."""
    chosen = random.Random(os.environ.get("DDP_ASSIST_SEED", seed))
    all_of_them = [chosen.uniform(0, longest) for _ in range(MOMENTS)]
    return [sorted(all_of_them[i : i + SIDE_BY_SIDE]) for i in range(0, MOMENTS, SIDE_BY_SIDE)]


# name: what is signalled, and within how many seconds all must be gone
CELLS: dict[str, tuple[signal.Signals, tuple[str, ...], float]] = {
    "asker killed": (signal.SIGKILL, ("asker",), 1.0),
    "guard killed": (signal.SIGKILL, ("guard",), 1.0),
    "both killed": (signal.SIGKILL, ("guard", "asker"), 1.0),
    "asker terminated": (signal.SIGTERM, ("asker",), 1.0),
    "asker hung up": (signal.SIGHUP, ("asker",), 1.0),
    "asker frozen": (signal.SIGSTOP, ("asker",), DEADLINE + 4),
    "guard frozen": (signal.SIGSTOP, ("guard",), DEADLINE + 4),
    "both frozen": (signal.SIGSTOP, ("guard", "asker"), DEADLINE + 4),
}


# Warm processes are the same, but for what they wait for.
@pytest.mark.parametrize(
    ("cell", "kind"),
    [(cell, "cold") for cell in CELLS] + [(cell, "warm") for cell in list(CELLS)[:3]],
)
def test_matrix(
    lab: Any, private_tmp: Path, shared_memory: None, cell: str, kind: str
) -> None:
    number, whom, patience = CELLS[cell]
    for group in moments(f"{cell} {kind}", 1.6):
        askers = [Asker(lab, private_tmp, ASKERS[kind]) for _ in group]
        try:
            began = time.monotonic()
            hit = []
            for moment, asker in zip(group, askers, strict=True):
                time.sleep(max(0.0, began + moment - time.monotonic()))
                if asker.signal(number, *whom):
                    hit.append((moment, asker))
            for moment, asker in hit:
                gone = lab.wait_until(lambda a=asker: not living(a, cell), patience)
                assert gone, (cell, moment, describe(asker))
        finally:
            for asker in askers:
                asker.end()
        for asker in askers:
            assert lab.wait_until(lambda a=asker: not a.started(), 2.0), describe(asker)
    swept_by_the_next_start(lab, private_tmp)


def living(asker: Asker, cell: str) -> list[int]:
    """The trial's processes; a guard that we froze ourselves is not counted, its ranks are."""
    started = asker.started()
    if cell == "both frozen":
        return [pid for pid in started if state(pid) != "T"]
    return started


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def describe(asker: Asker) -> list[str]:
    found = []
    for pid in asker.started():
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        found.append(f"{pid} {state(pid)} {command[-120:]}")
    return found


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


@pytest.mark.parametrize("target", ["asker", "both"])
def test_a_real_torchrun_ends_with_us(
    lab: Any, private_tmp: Path, shared_memory: None, target: str
) -> None:
    whom = ("guard", "asker") if target == "both" else ("asker",)
    asker = Asker(lab, private_tmp, ASKERS["torchrun"])
    try:
        agent = lab.wait_until(lambda: len(asker.started()) >= 2, 5)
        assert agent
        asker.signal(signal.SIGKILL, *whom)
        assert lab.wait_until(lambda: not asker.started(), 1.0), describe(asker)
    finally:
        asker.end()
    swept_by_the_next_start(lab, private_tmp)


def test_the_terminal_is_closed(lab: Any, private_tmp: Path) -> None:
    """As when an ssh connection drops: the session's leader, which asks, gets SIGHUP."""
    leader, follower = pty.openpty()
    asker = Asker(
        lab, private_tmp, stdin=follower, stdout=follower, start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
    )  # fmt: skip
    os.close(follower)
    try:
        assert lab.wait_until(lambda: len(asker.started()) >= 3, 10)
        os.close(leader)
        assert asker.process.wait(5) == -signal.SIGHUP
        assert lab.wait_until(lambda: not asker.started(), 1.0), describe(asker)
    finally:
        asker.end()
    swept_by_the_next_start(lab, private_tmp)


def test_a_thread_that_ends_does_not_take_its_trial_along(lab: Any) -> None:
    """PDEATHSIG follows threads; so the asker, which has many, must not use it."""
    warm = WarmTorch()
    thread = threading.Thread(target=warm.start)
    thread.start()
    thread.join()
    try:
        pid = warm.pid
        assert warm.run_trial(TrialSpec(backend="store")).joined
        assert pid is not None and warm.pid == pid
    finally:
        warm.close()


def test_idle_torch_is_given_back(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddp_assist.probes.trial.warm.IDLE", 0.3)
    with WarmTorch() as warm:
        assert warm.run_trial(TrialSpec(backend="store")).joined
        assert lab.wait_until(lambda: warm.pid is None, 5)
        assert warm.run_trial(TrialSpec(backend="store")).joined  # and comes back when needed


SLOW = """
import sys, time
sys.path.remove({here!r})
del sys.modules["torch"]
time.sleep(4)
import torch
"""


def test_a_trial_that_came_in_time_outlasts_a_slow_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asked for anything within FIRST seconds of the import's end, but of its start."""
    monkeypatch.setattr("ddp_assist.probes.trial.warm.FIRST", 1.0)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(SLOW.format(here=str(tmp_path)))
    with WarmTorch(env={"PYTHONPATH": str(tmp_path)}) as warm:
        result = warm.run_trial(TrialSpec(backend="store", env=warm.env, deadline=60))
    assert result.joined, result.sentence


# Rank 1 joins the group and then keeps the others waiting for its part of the all_reduce.
WAITING_RANK = """
import hashlib, sys
import torch.distributed as dist
raw = dist.TCPStore("127.0.0.1", int(sys.argv[1]), 2, False, wait_for_workers=False)
store = dist.PrefixStore("ddp-assist/" + "0" * 32, raw)
store.set("here/1", hashlib.sha256(("0" * 32 + ":1").encode()).hexdigest())
store.wait(["here/0"])
dist.init_process_group("gloo", store=dist.PrefixStore("group", store), rank=1, world_size=2)
sys.stdin.read()
"""


@pytest.mark.parametrize("libuv", ["1", "0"])
def test_sockets_listen_on_the_chosen_address_only(lab: Any, libuv: str) -> None:
    """Looked at while rank 0 waits in the all_reduce, with the store's and gloo's sockets open."""
    heard: set[tuple[str, int]] = set()
    others: list[subprocess.Popen[bytes]] = []
    seen, token = threading.Event(), secrets.token_hex(8)

    def look(stage: Stage) -> None:
        if (stage.stage, stage.state) == ("listen", "passed"):
            command = [sys.executable, "-c", WAITING_RANK, str(stage.facts["port"])]
            env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
            others.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE))
        if (stage.stage, stage.state) == ("all-reduce", "begun"):
            heard.update(lab.listening(lab.marked(f"LOOKED_AT={token}")))
            seen.set()

    env = {"USE_LIBUV": libuv, "LOOKED_AT": token}
    spec = TrialSpec(ranks=(0,), key="0" * 32, deadline=60, env=env)
    try:
        result = run_trial(spec, look, seen)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert result.kind == "cancelled" and result.outcome == "all-reduce"
    assert {host for host, _ in heard} == {"0100007F"}
    assert result.port in {port for _, port in heard} and len(heard) >= 2


def test_cancelled_trials_end_at_once(lab: Any) -> None:
    cancel = threading.Event()

    def stop(stage: Stage) -> None:
        if stage.stage == "rendezvous":
            cancel.set()

    spec = TrialSpec(nproc=3, ranks=(0, 1), deadline=30)
    result = run_trial(spec, stop, cancel)
    assert not result.joined and "cancelled" in result.sentence and result.seconds < 10
    with WarmTorch() as warm:
        cancel.clear()
        assert not warm.run_trial(spec, stop, cancel).joined
        pid = warm.pid
        assert warm.run_trial(TrialSpec()).joined and warm.pid == pid  # torch was kept


def test_twenty_trials_leave_no_file_descriptors() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with WarmTorch() as warm:
        for _ in range(20):
            assert warm.run_trial(TrialSpec(backend="store")).joined
    assert set(os.listdir("/proc/self/fd")) <= before | {"3"}  # the listing's own


def test_a_living_trials_directory_is_not_swept(private_tmp: Path) -> None:
    mine = Shelter()
    foreign = private_tmp / "ddp-assist-trial-link"
    foreign.symlink_to("/etc")
    assert sweep() == [] and mine.path.exists()
    assert mine.path.stat().st_mode & 0o777 == 0o700
    mine.release()
    foreign.unlink()


def test_a_trial_that_starts_is_not_swept_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another start sweeps before and after ours has locked its directory."""
    flock = fcntl.flock
    ours: list[int] = []
    swept: list[Path] = []

    def lock(fd: int, how: int) -> None:
        if not ours:
            ours.append(fd)
            swept.extend(sweep())
            flock(fd, how)
            swept.extend(sweep())
        else:
            flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    mine = Shelter()
    assert swept == [] == sweep() and mine.path.exists()
    mine.release()


def test_a_kept_log_is_private(private_tmp: Path) -> None:
    result = run_trial(TrialSpec(backend="store", keep_log=True))
    assert result.log_path
    path = Path(result.log_path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.unlink()
