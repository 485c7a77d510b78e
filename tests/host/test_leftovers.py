"""Left-overs: real processes in a PID namespace of their own, so that nobody else's are seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import AS_NOBODY, reachable

from ddp_assist.probes.host import leftovers
from ddp_assist.probes.host.leftovers import LEFT_OVERS
from ddp_assist.probes.host.processes import snapshot
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target

pytestmark = pytest.mark.needs("namespaces")
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
Ask = Callable[..., dict[str, Finding]]
SLEEPER = "import time; time.sleep(600)"


@pytest.fixture
def boxed(
    user: str, ask_elsewhere: Elsewhere
) -> Callable[[str], dict[str, tuple[str, dict[str, Any]]]]:
    """What the probe says in a box where `setup` ran first; the box ends with the question."""

    def asked(setup: str) -> dict[str, tuple[str, dict[str, Any]]]:
        box = ["unshare", "-p", "-m", "-f", "--mount-proc", "--kill-child=SIGKILL"]
        shell = [*(AS_NOBODY if user == "nobody" else []), "bash", "-c"]
        return ask_elsewhere([*box, *shell, f'{setup}\n"$0" "$@"'], "host.leftovers")

    return asked


def rank(variables: str, before: str = "") -> str:
    """A rank whose parent is gone: the first process of the box has inherited it."""
    run = f"env {variables} {sys.executable} -c '{SLEEPER}'"
    wait = "until readlink /proc/$P/exe | grep -q python; do :; done"
    return f"P=$({before} {run} >/dev/null 2>&1 & echo $!); {wait}"


def test_nothing_is_left(boxed: Callable[..., Any]) -> None:
    assert set(boxed("true")) == {"left-overs.none"}


def test_ranks_that_outlived_torchrun(boxed: Callable[..., Any]) -> None:
    found = boxed(rank("RANK=1 WORLD_SIZE=2 TORCHELASTIC_RUN_ID=x"))
    sentence, data = found["left-overs.orphan-ranks"]
    assert "torchrun is gone" in sentence and len(data["pids"]) == 1


def test_a_rank_started_by_hand_is_no_orphan(boxed: Callable[..., Any]) -> None:
    found = boxed(rank("RANK=0 WORLD_SIZE=2 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500"))
    assert set(found) == {"left-overs.none"}
    assert len(found["left-overs.none"][1]["ranks"]) == 1


def test_a_rank_under_its_launcher_is_alive(boxed: Callable[..., Any], tmp_path: Path) -> None:
    launcher = tmp_path / "torchrun"
    launcher.write_text(
        "import os, subprocess, sys\n"
        "env = dict(os.environ, RANK='0', WORLD_SIZE='1', TORCHELASTIC_RUN_ID='x')\n"
        f"child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], env=env)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    started = f"exec 3< <({sys.executable} {launcher}); read -u 3 P"
    wait = "until readlink /proc/$P/exe | grep -q python; do :; done"
    assert "left-overs.orphan-ranks" not in boxed(f"{started}; {wait}")


def test_a_launcher_whose_shell_is_gone(boxed: Callable[..., Any], tmp_path: Path) -> None:
    launcher = tmp_path / "torchrun"
    launcher.write_text(SLEEPER)
    wait = "until readlink /proc/$P/exe | grep -q python; do :; done"
    started = f"P=$({sys.executable} {launcher} >/dev/null 2>&1 & echo $!); {wait}"
    found = boxed(started)
    assert set(found) == {"left-overs.orphan-launcher"}
    assert "torchrun" in found["left-overs.orphan-launcher"][0]


def test_a_stopped_rank(boxed: Callable[..., Any]) -> None:
    stop = "kill -STOP $P; until grep -q '^State:.T' /proc/$P/status; do :; done"
    found = boxed(rank("RANK=3 WORLD_SIZE=4") + "; " + stop)
    assert list(found["left-overs.stopped"][1]["ranks"].values()) == ["3"]


def test_a_rank_of_spawn_whose_parent_died(boxed: Callable[..., Any]) -> None:
    wait = "until readlink /proc/$P/exe | grep -q python; do :; done"
    real = (
        "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, parent_pid=99999)"
    )
    argv = f"exec -a python {sys.executable} -c 'import time; time.sleep(600)' '{real}'"
    found = boxed(f'P=$(bash -c "{argv}" >/dev/null 2>&1 & echo $!); {wait}')
    assert "the script that spawned it" in found["left-overs.orphan-ranks"][0]


@pytest.mark.as_root
def test_a_rank_of_spawn_in_a_container_names_its_parent_by_another_number(
    boxed: Callable[..., Any],
) -> None:
    """The box below the box is seen from above, as a container is from its host."""
    wait = "until readlink /proc/$P/exe | grep -q python; do :; done"
    real = (
        "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, parent_pid=99999)"
    )
    argv = f"exec -a python {sys.executable} -c 'import time; time.sleep(600)' '{real}'"
    inner = f'unshare -p -f --kill-child=SIGKILL bash -c "{argv}" >/dev/null 2>&1 & '
    child = 'until P=$(cat /proc/$!/task/$!/children) && [ -n "$P" ]; do :; done; P=${P%% *}'
    found = boxed(f"{inner}{child}; {wait}")
    assert set(found) == {"left-overs.none"} and found["left-overs.none"][1]["ranks"]


def test_what_is_left_of_another_job_is_no_fault_of_a_launch_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = Finding("left-overs", "stopped", "pid 7: stopped", {"pids": [7]})
    monkeypatch.setattr(leftovers, "_seen", lambda: iter([stopped]))
    launch = read_launch(["torchrun", "train.py"], {}, Path("/"))
    for target, outcome in (
        (Target(), "stopped"),
        (Target(plan=launch.main), "stopped-aside"),
        (Target(plan=launch.main, job=7), "stopped"),
        (Target(plan=launch.main, logs=("x.log",)), "stopped"),
    ):
        assert [f.outcome for f in LEFT_OVERS.look(target)] == [outcome]


def test_ended_children_that_nobody_fetched(boxed: Callable[..., Any]) -> None:
    code = (
        "import os, time\\npid = os.fork() or os._exit(1)\\n"
        "print(pid, flush=True)\\ntime.sleep(600)"
    )
    started = (
        f"exec 3< <(RANK=0 WORLD_SIZE=1 {sys.executable} -c $'{code}'); read -u 3 P; "
        "until grep -q '^State:.Z' /proc/$P/status; do :; done"
    )
    found = boxed(started)
    assert found["left-overs.zombies"][1]["pids"]


def test_a_rank_that_hangs_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """No device here hangs on demand: the state is the only thing that is made up."""
    mine = next(iter(snapshot().by_pid.values()))._replace(state="D", pid=4242)
    monkeypatch.setattr(leftovers, "look", lambda pid: mine)
    (found,) = leftovers._stuck([mine])
    assert found.outcome == "d-state" and found.data["pids"] == [4242]
    monkeypatch.setattr(leftovers, "look", lambda pid: mine._replace(cpu=mine.cpu + 1))
    assert not list(leftovers._stuck([mine]))


@pytest.mark.needs("setpriv")
def test_hidden_processes_are_said_to_be(ask_elsewhere: Elsewhere) -> None:
    user = "setpriv --reuid 65534 --clear-groups"
    inner = f'mount -t proc -o hidepid=2 proc /proc; {user} "$0" "$@"'
    found = ask_elsewhere(["unshare", "-p", "-m", "-f", "bash", "-c", inner], "host.leftovers")
    assert "hidepid" in found["left-overs.hidden"][0]


def test_it_does_not_blame_who_asks(ask: Callable[..., dict[str, Finding]]) -> None:
    for finding in ask(LEFT_OVERS).values():
        json.dumps(dict(finding.data))


@pytest.mark.needs("setpriv")
def test_a_stopped_orphan_beside_a_launch_to_come_only_steers(ask: Ask, tmp_path: Path) -> None:
    """The rank belongs to a user whom both who ask may look at."""
    code = "import os, signal; print('up', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
    rank = subprocess.Popen(
        [*AS_NOBODY, sys.executable, "-c", code],
        env={"RANK": "0", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "old",
             "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE, preexec_fn=lambda: reachable(tmp_path),
    )  # fmt: skip
    try:
        assert rank.stdout and rank.stdout.readline() == b"up\n"
        os.waitid(os.P_PID, rank.pid, os.WSTOPPED | os.WNOWAIT)
        found = ask(LEFT_OVERS, launch=["torchrun", "t.py"])
        assert rank.pid in found["left-overs.stopped-aside"].data["pids"]
        assert rank.pid in found["left-overs.orphan-ranks-aside"].data["pids"]
    finally:
        rank.kill()
        rank.communicate()
