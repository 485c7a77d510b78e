"""Folders as schedulers leave them: Ray's sessions as recorded, Slurm's from a real Slurm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from slurm_bed import in_slurm

from ddp_assist.app.diagnose import Diagnosis, Question, diagnose

AT = "[2026-02-03 10:00:0{n},500 I 812 812] "
DAEMONS = {
    "gcs_server.out": [
        "(gcs_server) gcs_node_manager.cc:734: , death reason = EXPECTED_TERMINATION, death "
        "message = received SIGTERM node_id=cb node_name=127.0.0.1",
        "(gcs_server) gcs_server_main.cc:266: GCS server received SIGTERM, shutting down...",
    ],
    "raylet.out": [
        "(raylet) node_manager.cc:124: DisconnectClient: sending SIGTERM to pgid=991",
        "(raylet) main.cc:1174: received SIGTERM. Existing local drain request = None",
        'reason_message: "received SIGTERM"',
    ],
    "dashboard.log": ["WARNING dashboard.py:303 -- Exiting with SIGTERM immediately..."],
    "events/event_RAYLET.log": ['{"label": "RAY", "message": "KeyError: \'RANK\'"}'],
    "python-core-driver-01ff_4711.log": ["core_worker.cc:591: RPC error: Connection refused"],
}
GONE = (
    "(gcs_server) gcs_worker_manager.cc:70: Reporting worker exit, worker id = b4, "
    "exit_type = SYSTEM_ERROR, exit_detail = Worker unexpectedly exits with a connection error "
    "code 2. End of file. Some common causes include: (1) the process was killed by the OOM killer"
)
CRASH = "*** SIGSEGV received at time=17957 on cpu 0 ***\nFatal Python error: Segmentation fault"


def session(folder: Path, *gcs: str, **workers: str) -> Path:
    for name, lines in DAEMONS.items():
        path = folder / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        said = [*gcs, *lines] if name == "gcs_server.out" else lines
        path.write_text("".join(AT.format(n=n % 10) + line + "\n" for n, line in enumerate(said)))
    for pid, text in workers.items():
        path = folder / "logs" / f"worker-b4ff-01000000-{pid[1:]}.err"
        path.write_text(f":job_id:01\n{text}\n")
    return folder


def told(*logs: Path) -> Diagnosis:
    return diagnose(Question(logs=tuple(map(str, logs)), env={}, cwd=logs[0].parent))


@pytest.mark.parametrize("part", ["", "logs"])
def test_a_session_of_ray_that_ended_well_names_nothing(part: str, tmp_path: Path) -> None:
    outcome = told(session(tmp_path, p4712="epoch 1 step 9 loss 0.2", p9913="done") / part)
    assert outcome.causes == []


def test_a_worker_that_is_gone_is_told_by_rays_own_book(tmp_path: Path) -> None:
    outcome = told(session(tmp_path, GONE, p4712="epoch 1 step 9 loss 0.2"))
    assert [c.cause for c in outcome.causes] == ["worker-crashed-first", "rank-oom-killed"]
    assert outcome.causes[0].certainty == "likely"


def test_a_worker_that_says_why_is_believed_and_its_pid_is_no_rank(tmp_path: Path) -> None:
    outcome = told(session(tmp_path, GONE, p4712=CRASH, p9913="step 9"))
    (first,) = (f for f in outcome.findings if f.key == "story.first-failure")
    assert "SIGSEGV" in first.sentence
    assert "rank" not in first.data
    assert outcome.causes[0].cause == "worker-crashed-first"


RANK = """
import os, torch.distributed as dist
rank, size = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
print("rank", rank, "of", size, flush=True)
dist.init_process_group("gloo", init_method="tcp://10.66.0.1:29655", rank=rank, world_size=size)
dist.barrier()
if rank == 2:
    raise KeyError("shard-17")
dist.barrier()
"""


@pytest.mark.needs("root", "namespaces", "ip", "munged", "slurmctld", "slurmd", "srun")
@pytest.mark.parametrize(
    ("how", "given"),
    [
        ("--output={here}/%j_%t.out --error={here}/%j_%t.err", "."),
        ("--label --output={here}/slurm-%j.out", "slurm-1.out"),
        ("--output={here}/fit-%j-%N-%t.log", "."),
    ],
)
def test_the_rank_that_failed_is_named_from_slurms_files(
    how: str, given: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="needs torch for real ranks")
    here, state = tmp_path / "out", tmp_path / "state"
    here.mkdir()
    state.mkdir()
    script = tmp_path / "fit.py"
    script.write_text(RANK)
    words = how.format(here=here)
    job = f"srun -n3 -N2 {words} {sys.executable} {script} || true"
    in_slurm(state, "bash", "-c", job, timeout=240)
    outcome = told(here / given)
    said = "\n".join(path.read_text() for path in here.iterdir())[-3000:]
    (first,) = (f for f in outcome.findings if f.key == "story.first-failure")
    assert "KeyError" in first.sentence, said
    assert first.data.get("rank") == 2, said
    assert outcome.causes[0].cause == "worker-crashed-first"
