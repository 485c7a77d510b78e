"""Who holds the memory of the GPUs: ranks, strangers, what is left over, what lives outside."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ddp_assist.probes.gpu.readings import Gpus
from ddp_assist.probes.host.processes import Process
from ddp_assist.probes.host.processes import look as look_at
from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.model import Evidence, Finding, Target

HELD = 1 << 30
"""Bytes; a desktop or a bare CUDA context holds less."""
FIRST_NAMESPACE = "pid:[4026531836]"
"""The kernel gives the first pid namespace this number; in any other NVML's pids are foreign."""
NCCL_THREADS = ("pt_nccl", "pt_autograd_nccl")


def in_own_namespace() -> bool:
    try:
        return os.readlink("/proc/self/ns/pid") != FIRST_NAMESPACE
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class Holder:
    """One process that NVML names; `process` is None where it is not (surely) one of ours."""

    pid: int
    process: Process | None

    @property
    def rank(self) -> tuple[str, str] | None:
        """The job and the rank it says it is."""
        env = (self.process.environ if self.process else None) or {}
        if not env.get("RANK"):
            return None
        names = ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
        return "|".join(env.get(name, "") for name in names), env["RANK"]

    @property
    def uses_nccl(self) -> bool:
        names = (self.process.thread_names if self.process else None) or ()
        return any(name.startswith(NCCL_THREADS) for name in names)


def holders(gpus: Gpus, index: int) -> list[Holder]:
    pids = [pid for pid, _ in gpus.devices[index].get("processes") or []]
    apart = in_own_namespace()
    return [Holder(pid, None if apart and not _has_gpu(pid) else look_at(pid)) for pid in pids]


def _has_gpu(pid: int) -> bool:
    """Whether that pid here has a GPU open; if not, NVML means another process outside."""
    try:
        files = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for name in files:
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}").startswith("/dev/nvidia"):
                return True
        except OSError:
            continue
    return False


def held(target: Target, gpus: Gpus) -> Iterator[Finding]:
    orphans = target.found("left-overs.orphan-ranks", "left-overs.orphan-ranks-aside")
    left = {pid for f in orphans for pid in f.data.get("pids", ())}
    for index, facts in gpus.devices.items():
        known = holders(gpus, index)
        if not known:
            continue
        yield from _shared(target, index, known)
        total, used = facts.get("memory") or (0, 0)
        if used < max(HELD, total // 10):
            continue
        stale = [h for h in known if h.pid in left or (h.process and h.process.state == "Z")]
        outcome = "stale-process" if stale else "busy"
        who = _who(stale or known)
        why = ", left over of an earlier run" if stale else ""
        first = next((h.pid for h in stale or known if h.process), None)
        yield Finding(
            "gpu", outcome, f"{used >> 20} MiB of GPU {index} are held by {who}{why}",
            gpus.data(gpu=index, pids=[h.pid for h in known], pid=first), (_see(known),),
        )  # fmt: skip


def _who(known: Sequence[Holder]) -> str:
    here = [f"pid {h.pid} ({brief(h.process.comm, 40)})" for h in known if h.process]
    others = len(known) - len(here)
    where = "outside this container" if in_own_namespace() else "that can't be seen from here"
    noun = "a process" if others == 1 else f"{others} processes"
    return several([*here, *([f"{noun} {where}"] if others else [])], 4)


def _shared(target: Target, index: int, known: Sequence[Holder]) -> Iterator[Finding]:
    """Two ranks of one job on one GPU: NCCL refuses that or hangs, gloo does not mind."""
    jobs: dict[str, dict[str, Holder]] = {}
    for holder in known:
        if rank := holder.rank:
            jobs.setdefault(rank[0], {})[rank[1]] = holder
    for ranks in jobs.values():
        if len(ranks) < 2 or not (
            target.backend == "nccl" or sum(h.uses_nccl for h in ranks.values()) > 1
        ):
            continue
        names = sorted((brief(rank, 12) for rank in ranks), key=lambda r: (len(r), r))
        sentence = f"ranks {several(names, 8)} of one job are all on GPU {index}"
        data = {"gpu": index, "ranks": names, "pids": [h.pid for h in ranks.values()]}
        yield Finding("gpu", "shared", sentence, data, (_see(list(ranks.values())),))


def _see(known: Sequence[Holder]) -> Evidence:
    pids = ",".join(str(h.pid) for h in known[:8] if h.process)
    if not pids:
        asked = "--query-compute-apps=gpu_uuid,pid,used_memory"
        return Evidence("NVML", (), ("nvidia-smi", asked, "--format=csv"))
    return Evidence("NVML", (), ("ps", "-o", "pid,ppid,user,stat,etime,args", "-p", pids))
