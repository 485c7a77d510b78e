"""The distributed jobs alive on this host, found without being told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ddp_assist.probes.host.processes import Process, Processes
from ddp_assist.probes.network.holder import is_launcher, is_torch, short

TORCH_THREADS = ("pt_", "gloo_tcp", "gloo_")


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a job. `rank` is None where nothing tells it."""

    process: Process
    rank: int | None
    local_rank: int | None
    env: Mapping[str, str]


@dataclass(slots=True)
class Job:
    """Ranks that were told to meet at the same place."""

    id: str
    launcher: Process | None
    kind: str
    host: str
    port: int | None
    world_size: int | None
    ranks: list[Rank] = field(default_factory=list)

    @property
    def is_local(self) -> bool:
        """Whether all ranks of it belong on this host."""
        sizes = [_number(r.env, "LOCAL_WORLD_SIZE") for r in self.ranks]
        if any(size is not None for size in sizes):
            return all(size == self.world_size for size in sizes)
        return self.host in ("", "localhost") or self.host.startswith("127.")

    @property
    def missing(self) -> list[int]:
        """Ranks that should live here and do not."""
        here = {r.rank for r in self.ranks}
        if self.world_size is None or None in here:
            return []
        if self.is_local:
            return [n for n in range(self.world_size) if n not in here]
        size = next((_number(r.env, "LOCAL_WORLD_SIZE") for r in self.ranks), None)
        node = next((_number(r.env, "GROUP_RANK") for r in self.ranks), None)
        if size is None or node is None:
            return []
        return [n for n in range(node * size, (node + 1) * size) if n not in here]

    @property
    def twice(self) -> list[int]:
        """Ranks that two processes claim to be."""
        seen = [r.rank for r in self.ranks if r.rank is not None]
        return sorted({n for n in seen if seen.count(n) > 1})


def find_jobs(processes: Processes) -> list[Job]:
    jobs: dict[tuple[str, ...], Job] = {}
    waiting: list[Process] = []
    for process in processes:
        if process.kernel or not _may_be_rank(process):
            continue
        if is_launcher(process):
            waiting.append(process)
            continue
        env = process.environ or {}
        rank = _number(env, "RANK")
        if rank is not None or _is_spawned(process, processes):
            _add(jobs, processes, process, env, rank)
    started = {job.launcher.pid for job in jobs.values() if job.launcher}
    for launcher in waiting:
        if launcher.pid not in started and not _has_ranks(launcher, jobs.values(), processes):
            key = (f"launcher {launcher.pid}",)
            jobs[key] = Job(str(launcher.pid), launcher, _kind(launcher), "", None, None)
    return sorted(jobs.values(), key=lambda job: job.id)


def unnamed(pid: int, processes: Processes) -> Job | None:
    """Processes below `pid` that have torch in them, where no variable calls them ranks."""
    asked = processes.get(pid)
    below = [p for p in [asked, *processes.descendants(pid)] if p is not None and _may_be_rank(p)]
    found = [p for p in below if is_torch(p) and not is_launcher(p)]
    parents = {p.ppid for p in found}
    ranks = [p for p in found if p.pid not in parents] or found
    if not ranks:
        return None
    job = Job(str(pid), asked, "", "", None, None)
    job.ranks = [Rank(p, None, None, p.environ or {}) for p in ranks]
    return job


def _may_be_rank(process: Process) -> bool:
    return process.comm.startswith(("python", "pt_", "torchrun", "accelerate", "deepspeed"))


def _is_spawned(process: Process, processes: Processes) -> bool:
    """A worker of mp.spawn or fork whose parent has torch in it."""
    argv = " ".join((process.argv or ())[:6])
    if "resource_tracker" in argv or "forkserver" in argv:
        return False
    parent = processes.get(process.ppid)
    named = any(name.startswith(TORCH_THREADS) for name in process.thread_names or ())
    return named and parent is not None and parent.comm.startswith("python")


def _add(
    jobs: dict[tuple[str, ...], Job],
    processes: Processes,
    process: Process,
    env: Mapping[str, str],
    rank: int | None,
) -> None:
    launcher = next((p for p in processes.ancestors(process.pid) if is_launcher(p)), None)
    parent = processes.get(process.ppid)
    if launcher is None and rank is None:
        launcher = parent
    host, port = env.get("MASTER_ADDR", ""), _number(env, "MASTER_PORT")
    run = env.get("TORCHELASTIC_RUN_ID", "")
    key = (run, host, str(port)) if port or run else (f"parent {process.ppid}",)
    kind = (
        _kind(launcher)
        if launcher and is_launcher(launcher)
        else "spawn"
        if rank is None
        else "env"
    )
    job = jobs.setdefault(
        key,
        Job(str(launcher.pid if launcher else process.pid), launcher, kind, host, port, None),
    )
    job.world_size = job.world_size or _number(env, "WORLD_SIZE")
    job.ranks.append(Rank(process, rank, _number(env, "LOCAL_RANK"), env))


def _has_ranks(launcher: Process, jobs: Iterable[Job], processes: Processes) -> bool:
    below = {p.pid for p in processes.descendants(launcher.pid)}
    return any(r.process.pid in below for job in jobs for r in job.ranks)


def _kind(process: Process) -> str:
    return short(process.argv or (process.comm,)).split(" ")[0]


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "")
    return int(text) if text.isdecimal() else None


def family(job: Job, processes: Processes) -> set[int]:
    """Every pid that belongs to the job: launcher, ranks, and what stands between and above."""
    pids = {r.process.pid for r in job.ranks} | ({job.launcher.pid} if job.launcher else set())
    for pid in list(pids):
        pids |= {p.pid for p in processes.descendants(pid)}
        pids |= {p.pid for p in processes.ancestors(pid) if p.pid != 1}
    return pids
