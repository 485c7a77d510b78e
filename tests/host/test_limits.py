"""Limits, /dev/shm, temporary space, memory: with real limits, mounts and control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.host import cgroup as groups
from ddp_assist.probes.host import kernel_log, limits, memory
from ddp_assist.probes.host.limits import DISK, LIMITS, SHM
from ddp_assist.probes.model import Finding

Ask = Callable[..., dict[str, Finding]]
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
IN_NAMESPACE = ["unshare", "-m", "--propagation", "private", "bash", "-c"]


def shm(ask: Elsewhere, setup: str, user: str = "") -> dict[str, tuple[str, dict[str, Any]]]:
    run = f'exec {user} "$0" "$@"'
    found = ask([*IN_NAMESPACE, f"{setup} && {run}"], "host.limits")
    return {key: told for key, told in found.items() if key.startswith("shm.")}


def test_enough_of_all(ask: Ask) -> None:
    found = ask(LIMITS, SHM, DISK)
    assert {key.partition(".")[0] for key in found} == {"limits", "shm", "disk"}


def test_few_open_files(ask_elsewhere: Elsewhere) -> None:
    found = ask_elsewhere(["bash", "-c", 'ulimit -n 200; exec "$0" "$@"'], "host.limits")
    assert found["limits.nofile-low"][1] == {"nofile": 200}
    assert "limits.fine" not in found


def test_the_launch_lowers_its_own_limit(ask: Ask) -> None:
    found = ask(LIMITS, launch="ulimit -n 256\npython train.py")
    assert found["limits.nofile-low"].data["nofile"] == 256
    assert "limits.nofile-low" not in ask(LIMITS, launch="# ulimit -n 256\npython t.py")


def test_a_job_has_limits_of_its_own(ask: Ask) -> None:
    process = subprocess.Popen(["bash", "-c", "ulimit -n 100; echo; read"], stdin=-1, stdout=-1)
    try:
        assert process.stdout and process.stdout.readline()
        assert ask(LIMITS, job=process.pid)["limits.nofile-low"].data["nofile"] == 100
    finally:
        process.communicate()
    assert ask(LIMITS, job=process.pid)["limits.unknown"].sentence.startswith("unknown")


@pytest.mark.needs("root", "setpriv")
def test_few_threads(ask_elsewhere: Elsewhere) -> None:
    limited = 'ulimit -u 40; exec setpriv --reuid 65534 --clear-groups "$0" "$@"'
    found = ask_elsewhere(["bash", "-c", limited], "host.limits")
    assert found["limits.nproc-low"][1]["by"] == "ulimit -u 40"


def test_locked_memory_counts_where_there_is_rdma(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    low = {"Max open files": 4096, "Max locked memory": 64 << 10}
    monkeypatch.setattr(limits, "limits_of", lambda pid: low)
    monkeypatch.setattr(limits, "_has_rdma", lambda: True)
    assert ask(LIMITS)["limits.memlock-low"].data["memlock"] == 64 << 10
    monkeypatch.setattr(limits, "_has_rdma", lambda: False)
    assert set(ask(LIMITS)) == {"limits.fine"}


@pytest.mark.needs("namespaces")
def test_shm_small_full_read_only_and_gone(ask_elsewhere: Elsewhere) -> None:
    assert set(shm(ask_elsewhere, "mount -t tmpfs -o size=64m tmpfs /dev/shm")) == {"shm.small"}
    filled = "mount -t tmpfs -o size=400m tmpfs /dev/shm && head -c 380M /dev/zero > /dev/shm/x"
    assert set(shm(ask_elsewhere, filled)) == {"shm.full"}
    read_only = shm(ask_elsewhere, "mount -t tmpfs -o size=1g,ro tmpfs /dev/shm")
    assert "read-only" in read_only["shm.not-writable"][0]
    assert set(shm(ask_elsewhere, "mount -t tmpfs -o size=1g tmpfs /dev/shm")) == {"shm.fine"}
    assert set(shm(ask_elsewhere, "umount -l /dev/shm; mount -t tmpfs tmpfs /dev")) == {
        "shm.not-writable"
    }


@pytest.mark.needs("namespaces", "setpriv")
def test_shm_of_others(ask_elsewhere: Elsewhere) -> None:
    user = "setpriv --reuid 65534 --clear-groups"
    mount = "mount -t tmpfs -o size=1g,mode=%s tmpfs /dev/shm"
    assert set(shm(ask_elsewhere, mount % "755", user)) == {"shm.not-writable"}
    assert set(shm(ask_elsewhere, mount % "1777", user)) == {"shm.fine"}


@pytest.mark.needs("namespaces")
def test_temporary_space(ask_elsewhere: Elsewhere, tmp_path: Path) -> None:
    def disk(options: str, then: str = "true") -> str:
        run = 'exec "$0" "$@"'
        setup = f"mount -t tmpfs -o {options} tmpfs {tmp_path} && {then} && {run}"
        found = ask_elsewhere([*IN_NAMESPACE, setup], "host.limits", env={"TMPDIR": str(tmp_path)})
        return next(key for key in found if key.startswith("disk."))

    assert disk("size=16m") == "disk.full"
    assert disk("size=256m,nr_inodes=200") == "disk.inodes"
    assert disk("size=256m,ro") == "disk.not-writable"
    assert disk("size=256m") == "disk.fine"


def test_no_temporary_folder(ask: Ask, tmp_path: Path) -> None:
    assert set(ask(DISK, env={"TMPDIR": str(tmp_path / "none")})) == {"disk.missing"}
    assert set(ask(DISK, env={"TMPDIR": "a\0b"})) == {"disk.missing"}


def test_memory_of_this_host(ask: Ask) -> None:
    found = ask(memory.MEMORY)
    assert found.keys() & {"memory.fine", "memory.near-limit", "memory.oom-seen"}


def test_host_memory_runs_out(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "host_memory", lambda: (100 << 30, 1 << 30))
    monkeypatch.setattr(memory.Cgroup, "of", lambda pid, controller: None)
    assert "memory.near-limit" in ask(memory.MEMORY)
    monkeypatch.setattr(memory, "host_memory", lambda: None)
    assert "memory.unknown" in ask(memory.MEMORY)


@pytest.fixture
def limited() -> Iterator[Path]:
    """A control group of our own, in whichever tree this machine has."""
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = top / f"ddp_assist_{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        old, new = group / "memory.limit_in_bytes", group / "memory.max"
        if old.exists() or new.exists():
            (old if old.exists() else new).write_text(str(96 << 20))
            yield group
            group.rmdir()
            return
        group.rmdir()
    pytest.skip("no memory control group can be made here")


@pytest.mark.needs("root")
def test_a_group_that_is_full_and_one_that_killed(limited: Path, ask: Ask) -> None:
    code = (
        "import sys; open(sys.argv[1], 'w').write('0')\n"
        "kept = b'x' * (80 << 20); print(flush=True)\n"
        "for line in sys.stdin: kept += b'x' * (1 << 20) * int(line); print(flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(limited / "cgroup.procs")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin and process.stdout
    try:
        assert process.stdout.readline()
        group = groups.Cgroup.of(process.pid, "memory")
        assert group and group.path == limited
        tight = memory.tightest(group)
        assert tight and tight[0] == 96 << 20 and tight[1] > 80 << 20 and tight[2] == str(limited)
        assert memory.killed(group) == 0
        assert (
            "memory.near-limit" in ask(memory.MEMORY, job=process.pid) or tight[1] < 0.92 * tight[0]
        )
        process.stdin.write(b"60\n")
        process.stdin.flush()
        assert process.wait(20) == -9
        assert memory.killed(group) == 1
        killed = [f for f in memory.kernel_kills() if f.data["pid"] == process.pid]
        assert not os.access("/dev/kmsg", os.R_OK) or killed[0].data["limit"] == "cgroup"
    finally:
        process.kill()
        process.communicate()


def test_old_kills_only_steer(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Out of memory: Killed process 77 (pt_main\x1b[2J) total-vm:1kB"
    for age, outcome in ((60.0, "oom-seen"), (90_000.0, "oom-earlier")):
        monkeypatch.setattr(memory, "messages", lambda age=age: [kernel_log.Message(age, text)])
        (found,) = memory.kernel_kills()
        assert (found.outcome, found.data["pid"], found.data["limit"]) == (outcome, 77, "host")
        assert found.sentence.isprintable()


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", "xid"),
        ("NVRM: Xid (PCI:0000:3b:00): 31, pid=4, name=python, MMU Fault", "xid-program"),
        ("usb 1-1: new device", "fine"),
    ],
)
def test_gpu_faults_in_the_kernel_log(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, text: str, outcome: str
) -> None:
    monkeypatch.setattr(kernel_log, "messages", lambda: [kernel_log.Message(60.0, text)])
    assert set(ask(kernel_log.KERNEL_LOG)) == {f"kernel-log.{outcome}"}


@pytest.mark.needs("root", "setpriv")
def test_the_kernel_log_may_be_closed(ask_elsewhere: Elsewhere) -> None:
    drop = ["setpriv", "--reuid", "65534", "--clear-groups"]
    found = ask_elsewhere(drop, "host.kernel_log")
    assert found.keys() <= {"kernel-log.unknown", "kernel-log.fine"}
    if not found.keys() & {"kernel-log.fine"}:
        assert "can't be read" in found["kernel-log.unknown"][0]
