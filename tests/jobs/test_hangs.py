"""Jobs that hang, each in its own way: the verdict names the rank and what it does instead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddp_assist.app.diagnose import Question, diagnose
from ddp_assist.probes.host.processes import look, read
from ddp_assist.probes.jobs.stacks import pyspy
from ddp_assist.probes.network.ports import free_port

HEAD = """
import os, sys, threading, time
import torch, torch.distributed as dist
"""
JOIN = HEAD + """
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
x = torch.ones(4)
"""
SKIPPED = HEAD + """
import torch.multiprocessing as mp

def work(rank, world, port):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank,
                            world_size=world)
    score = torch.ones(1)
    for step in range(5):
        if rank == 0 and step == 3:
            dist.all_reduce(score)
        dist.barrier()

if __name__ == "__main__":
    mp.spawn(work, (2, int(sys.argv[1])), nprocs=2)
"""
ORDER = JOIN + """
if rank == 1:
    dist.broadcast(x, 0)
    dist.all_reduce(x)
else:
    dist.all_reduce(x)
    dist.broadcast(x, 0)
"""
UNEVEN = JOIN + """
from torch.nn.parallel import DistributedDataParallel
model = DistributedDataParallel(torch.nn.Linear(4, 1))
batches = [torch.randn(2, 4) for _ in range(6 - rank)]
def epoch():
    for number, batch in enumerate(batches):
        model(batch).sum().backward()
epoch()
dist.barrier()
"""
LOADER = JOIN + """
from torch.utils.data import DataLoader, Dataset
class Slow(Dataset):
    def __len__(self):
        return 50
    def __getitem__(self, index):
        if index == 4 and rank == 1:
            time.sleep(600)
        return torch.ones(2)
for batch in DataLoader(Slow(), batch_size=1):
    total = batch.sum()
    dist.all_reduce(total)
"""
BUSY = JOIN + """
def tokenize():
    n = 0
    while True:
        n += 1
if rank == 0:
    tokenize()
dist.barrier()
"""
LATE = HEAD + """
if os.environ["RANK"] == "1":
    time.sleep(600)
dist.init_process_group("gloo")
"""
LOCK = HEAD + """
import multiprocessing
lock = threading.Lock()
def hold():
    with lock:
        time.sleep(600)
def record():
    with lock:
        print("got it")
if __name__ == "__main__":
    threading.Thread(target=hold, daemon=True).start()
    time.sleep(0.2)
    ctx = multiprocessing.get_context("fork")
    workers = [ctx.Process(target=record) for _ in range(2)]
    for w in workers: w.start()
    for w in workers: w.join()
"""
DEAD = HEAD + """
import multiprocessing
def work(rank, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if rank == 1:
        time.sleep(600)
    dist.init_process_group("gloo", rank=rank, world_size=3)
if __name__ == "__main__":
    ctx = multiprocessing.get_context("spawn")
    workers = [ctx.Process(target=work, args=(r, sys.argv[1])) for r in range(3)]
    for w in workers: w.start()
    for w in workers: w.join()
"""
KEY = JOIN + """
store = dist.distributed_c10d._get_default_store()
if rank == 1:
    store.get("ready")
dist.barrier()
"""
HANDLE = JOIN + """
while rank == 1:
    time.sleep(60)
work = dist.all_reduce(x, async_op=True)
work.wait()
"""
LEFT = JOIN + """
if rank == 1:
    os._exit(0)
time.sleep(600)
"""

pytestmark = [pytest.mark.usefixtures("soon"), pytest.mark.skipif(pyspy() is None, reason="py-spy")]


def first_cause(pid: int) -> str:
    return diagnose(Question(job=pid)).causes[0].cause


def test_one_rank_enters_a_collective_that_the_others_skip(gang) -> None:  # type: ignore[no-untyped-def]
    gang.python(SKIPPED)
    found = gang.shows("in-branch")
    assert found.data["rank"] == 0
    assert found.data["parted_by"] == "if rank == 0 and step == 3:"
    assert "all_reduce" in found.sentence
    assert "rank 1 waits in barrier" in found.sentence
    assert first_cause(gang.children[0].pid) == "collective-skipped"


def test_collectives_in_another_order(gang) -> None:  # type: ignore[no-untyped-def]
    gang.torchrun(ORDER, 2)
    found = gang.shows("apart")
    assert "all_reduce" in found.sentence
    assert "broadcast" in found.sentence
    assert first_cause(gang.children[0].pid) == "collective-order"


def test_uneven_inputs_name_the_rank_that_left_the_loop(gang) -> None:  # type: ignore[no-untyped-def]
    gang.torchrun(UNEVEN, 2)
    found = gang.shows("left-loop")
    assert found.data["rank"] == 1
    assert "waits in barrier" in found.sentence
    assert "backward" in found.sentence


def test_a_rank_in_its_data_loader(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(LOADER, 3)
    found = gang.shows("loading")
    assert found.data["rank"] == 1
    assert "__getitem__" in found.sentence
    assert "ranks 0, 2 wait in all_reduce" in found.sentence
    assert first_cause(gang.children[0].pid) == "rank0-busy"


def test_a_rank_that_works_alone(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(BUSY, 2)
    found = gang.shows("busy-alone")
    assert found.data["rank"] == 0
    assert "tokenize" in found.sentence


def test_a_rank_that_is_late_for_the_rendezvous(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(LATE, 2)
    found = gang.shows("not-yet-there")
    assert found.data["rank"] == 1
    assert "train.py:6" in found.sentence


def test_a_lock_that_was_held_when_the_workers_were_forked(gang) -> None:  # type: ignore[no-untyped-def]
    gang.python(LOCK)
    found = gang.shows("lock-waiting")
    assert "in record" in found.sentence
    assert first_cause(gang.children[0].pid) == "fork-with-threads"


def test_a_rank_that_was_killed_before_it_joined(gang) -> None:  # type: ignore[no-untyped-def]
    gang.python(DEAD)
    gang.shows("not-yet-there")
    victim = next(r.process.pid for r in gang.job.ranks if r.rank == 1)
    os.kill(victim, signal.SIGKILL)
    found = gang.shows("rank-killed")
    assert found.data["pid"] == victim
    assert "SIGKILL" in found.sentence


def test_a_key_that_nobody_sets(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(KEY, 2)
    found = gang.shows("store-waiting")
    assert found.data["rank"] == 1
    assert first_cause(gang.children[0].pid) == "store-key-never-set"


def test_the_handle_of_a_collective_is_a_wait_too(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(HANDLE, 2)
    assert gang.shows("behind").data["rank"] == 1


def test_a_rank_with_another_port_belongs_to_the_job(gang) -> None:  # type: ignore[no-untyped-def]
    gang.rank(JOIN, 0, 3)
    gang.rank(JOIN, 2, 3)
    gang.rank(JOIN, 1, 3, port=gang.port + 1)
    found = gang.shows("ports-differ")
    assert found.data["rank"] == 1
    assert set(found.data["ports"]) == {gang.port, gang.port + 1}
    assert first_cause(gang.children[0].pid) == "port-differs-per-rank"


@pytest.mark.needs("root")
@pytest.mark.parametrize("user", ["same", "nobody"])
def test_as_an_ordinary_user_and_as_root_without_ptrace(gang, user, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Who may not look inside says so, and still tells what the outside shows."""
    reads = "+dac_read_search"  # the interpreter may lie below /root
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
              "--inh-caps", reads, "--ambient-caps", reads)  # fmt: skip
    blind = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "env",
             f"HOME={tmp_path}", f"XDG_STATE_HOME={tmp_path}/state")  # fmt: skip
    if user == "nobody":
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        gang.before = (*nobody, "env", "HOME=/nonexistent")
    gang.ranks(HANDLE, 2)
    gang.shows("behind")
    front = (*nobody, "env", "HOME=/nonexistent", "XDG_STATE_HOME=/nonexistent")
    said = gang.diagnosed(*(front if user == "nobody" else blind))
    job = {f["outcome"]: f for f in said["findings"] if f["probe"] == "job"}
    if user == "nobody":
        assert "behind" in job, job
        assert job["behind"]["data"]["rank"] == 1
        assert said["causes"][0]["id"] == "collective-skipped"
    else:
        assert "CAP_SYS_PTRACE" in job["no-stacks"]["sentence"]
        assert not {"behind", "apart", "loading", "rank-missing"} & set(job)


def test_the_job_is_the_same_before_and_after(gang) -> None:  # type: ignore[no-untyped-def]
    def facts() -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for child in gang.children:
            status = (read(f"/proc/{child.pid}/status") or b"").decode().splitlines()
            words = {k: v.strip() for k, _, v in (line.partition(":") for line in status)}
            files = sorted(os.readlink(f"/proc/{child.pid}/fd/{fd}")
                           for fd in os.listdir(f"/proc/{child.pid}/fd"))  # fmt: skip
            process = look(child.pid)
            assert process is not None
            found.append((words["State"], words["TracerPid"], files, process.started))
        return found

    gang.ranks(HANDLE, 2)
    gang.shows("behind")
    before = facts()
    assert all("sleeping" in str(state) and tracer == "0" for state, tracer, *_ in before)
    gang.look()
    diagnose(Question(job=gang.children[0].pid))
    assert facts() == before


EARLY = HEAD + """
if os.environ["RANK"] == "5":
    sys.exit(0)
dist.init_process_group("gloo")
"""


def test_a_rank_of_eight_that_ends_well_before_it_joins(gang) -> None:  # type: ignore[no-untyped-def]
    """Torchrun started it, so it is not one that was never started."""
    gang.torchrun(EARLY, 8)
    found = gang.shows("rank-left-early")
    assert found.data["rank"] == 5
    assert first_cause(gang.children[0].pid) == "worker-crashed-first"


def test_two_hosts_of_one_job(gang, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Each rank in a network of its own, as on two hosts; here both are seen."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    names = [f"dj{os.getpid() % 10000}{side}" for side in "ab"]
    ip = lambda *words: subprocess.run(["ip", *words], check=True)  # noqa: E731
    for name in names:
        ip("netns", "add", name)
        gang.stack.callback(ip, "netns", "del", name)
    ends = ("veth0", "netns", names[0], "type", "veth", "peer", "veth0", "netns", names[1])
    ip("link", "add", *ends)
    for number, name in enumerate(names, 1):
        ip("-n", name, "addr", "add", f"10.99.7.{number}/24", "dev", "veth0")
        ip("-n", name, "link", "set", "veth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
    for rank, name in enumerate(names):
        gang.before = ("ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=veth0")
        gang.rank(ORDER, rank, 2, host="10.99.7.1")
    found = gang.shows("apart")
    assert "all_reduce" in found.sentence
    assert "broadcast" in found.sentence
    said = gang.diagnosed()
    assert said["causes"][0]["id"] == "collective-order"
    assert not any(c["id"] == "no-interface" for c in said["causes"])


def test_two_jobs_at_one_place_are_told_from_one_job_with_a_rank_twice(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(LATE, 2)
    gang.rank(LATE, 1, 2)
    found = gang.shows("duplicate-rank")
    assert found.data["rank"] == 1
    assert len(found.data["pids"]) == 2


def test_a_rank_that_left_while_others_go_on_is_no_hang(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(LEFT, 2)
    found = gang.shows("rank-missing")
    assert found.data["missing"] == [1]


RECORDED = JOIN + """
from torch._C._distributed_c10d import _dump_fr_trace_json
for n in range(3 if rank == 1 else 4):
    work = dist.all_reduce(x, async_op=True)
    n < 3 and work.wait()
with open(os.environ["TORCH_FR_DUMP_TEMP_FILE"] + str(rank), "wb") as f:
    dump = _dump_fr_trace_json(True, False)
    f.write(dump if isinstance(dump, bytes) else dump.encode())
time.sleep(600)
"""


def test_what_the_flight_recorders_of_a_live_job_wrote_is_read(gang, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    gang.before = ("env", f"TORCH_FR_DUMP_TEMP_FILE={tmp_path}/fr_")
    gang.ranks(RECORDED, 2)
    gang.until(lambda: all((tmp_path / f"fr_{n}").exists() for n in (0, 1)))
    said = gang.diagnosed()
    behind = next(f for f in said["findings"] if f["probe"] == "flight-recorder")
    assert (behind["outcome"], behind["data"]["rank"]) == ("rank-behind", 1)


SERVED = JOIN + """
import types
sys.modules["tabulate"] = types.SimpleNamespace(tabulate=None)  # for pages that nobody asks for
from torch.distributed.debug import start_debug_server
start_debug_server(port=int(os.environ["PAGES"]))
for n in range(3 if rank == 1 else 4):
    work = dist.all_reduce(x, async_op=True)
    n < 3 and work.wait()
print("there", flush=True)
time.sleep(600)
"""


def test_debug_servers_of_live_ranks_tell_who_is_behind_and_only_with_a_yes(gang) -> None:  # type: ignore[no-untyped-def]
    gang.before = ("env", f"PAGES={free_port()}")
    gang.ranks(SERVED, 3)
    gang.until(lambda: gang.output.count("there") == 3)
    for peek in (False, True):
        said = gang.diagnosed(peek=peek)
        behind = [f for f in said["findings"] if f["probe"] == "flight-recorder"]
        assert bool(behind) is peek, gang.output
    assert [(f["outcome"], f["data"]["rank"]) for f in behind] == [("rank-behind", 1)]
    assert "debug server of rank 1" in json.dumps(behind)
    assert said["causes"][0]["id"] == "uneven-inputs"


@pytest.mark.needs("root", "namespaces")
def test_ranks_in_containers_each_with_pids_of_its_own(gang) -> None:  # type: ignore[no-untyped-def]
    """Every rank is pid 1 or 2 to itself; the host names them by its own numbers."""
    gang.before = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    gang.ranks(HANDLE, 2)
    found = gang.shows("behind")
    assert found.data["rank"] == 1
    pids = {r.rank: r.process.pid for r in gang.job.ranks}
    assert len(set(pids.values())) == 2 and min(pids.values()) > 2


@pytest.mark.needs("root", "namespaces")
def test_where_hidepid_hides_others_nothing_is_claimed_of_their_jobs(gang) -> None:  # type: ignore[no-untyped-def]
    gang.ranks(HANDLE, 2)
    gang.shows("behind")
    mine = {child.pid for child in gang.children}
    seen = {}
    for hidden in ("0", "2"):
        look = (
            f"mount -t proc -o hidepid={hidden} proc /proc && exec setpriv --reuid 65534"
            " --regid 65534 --clear-groups --inh-caps +dac_read_search"
            " --ambient-caps +dac_read_search env HOME=/nonexistent"
            f" {sys.executable} -m ddp_assist jobs --json"
        )
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", look], capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        jobs = json.loads(done.stdout)["jobs"]
        seen[hidden] = {r["pid"] for job in jobs for r in job["ranks"]} & mine
    assert seen == {"0": mine, "2": set()}
