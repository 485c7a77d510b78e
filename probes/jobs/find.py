"""The distributed jobs alive on this host, found without being told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddp_assist.probes.host.processes import Process, Processes, read
from ddp_assist.probes.jobs.ranks import (
    Job,
    Rank,
    as_number,
    is_loopback,
    is_spawned,
    number_in,
)
from ddp_assist.probes.network.holder import is_launcher, is_torch, launches, short

GROUP_THREADS = ("pt_tcpstore", "pt_gloo", "gloo_", "pt_nccl")
"""Threads that only a process has which joined a store or a group, or hosts one."""
WORKERS = ("pt_data_", "pt_inductor")
AS_GOOD = 10.0
"""Seconds for which what one scan read of a process need not be read again by the next."""
MOST_KEPT = 4096
NEVER = ("resource_tracker", "forkserver", "semaphore_tracker")


def find_jobs(processes: Processes) -> list[Job]:
    """All of them, the ranks of each in order."""
    tree = _Tree(processes, {}, set())
    pythons: list[Process] = []
    launchers: list[Process] = []
    for process in processes:
        tree.by_parent.setdefault(process.ppid, []).append(process)
        if process.kernel or not _may_be_rank(process):
            continue
        is_one = launches(process.comm, tree.argv(process))
        (launchers if is_one else pythons).append(process)
    tree.launchers.update(p.pid for p in launchers)
    found = _merged([*_named(tree, pythons), *_spawned(tree, pythons), *_hidden(tree, launchers)])
    jobs = [part for job in found for part in _generations(job)]
    started = {p.pid for job in jobs for r in job.ranks for p in processes.ancestors(r.process.pid)}
    for launcher in launchers:
        if launcher.pid not in started and not _is_inner(tree, launcher):
            jobs.append(Job(str(launcher.pid), launcher, _kind(launcher), "", None, None))
    for job in jobs:
        job.ranks.sort(key=lambda r: (r.rank is None, r.rank or 0, r.process.started))
        job.helpers = {r.process.pid: tree.below(r.process.pid) for r in job.ranks}
        job.dead = _dead(tree, job)
        job.seen_at = processes.when
    return sorted(jobs, key=lambda job: int(job.id))


def _generations(job: Job) -> list[Job]:
    """An earlier run that was told the same place: its shell is gone, that of the new ranks not."""
    old = [r for r in job.ranks if r.process.ppid == 1]
    new = [r for r in job.ranks if r.process.ppid != 1]
    if not job.twice or not old or not new:
        return [job]
    first = job.launcher or new[0].process
    before = str(old[0].process.pid)
    return [
        replace(job, id=str(first.pid), ranks=new),
        replace(job, id=before, launcher=None, ranks=old),
    ]


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
    job.ranks = [Rank(p, None, None, p.environ or {}, "") for p in ranks]
    return job


def family(job: Job, processes: Processes) -> set[int]:
    """Every pid that belongs to the job: launcher, ranks, and what stands between and above."""
    pids = set(job.pids) | ({job.launcher.pid} if job.launcher else set())
    for pid in list(pids):
        pids |= {p.pid for p in processes.descendants(pid)}
        pids |= {p.pid for p in processes.ancestors(pid) if p.pid != 1}
    return pids


_ENVIRONS: dict[int, tuple[int, tuple[str, ...], float, Mapping[str, str] | None]] = {}
"""Of the last scans; what execs meanwhile has another command line."""


def _environ(process: Process, argv: tuple[str, ...]) -> Mapping[str, str] | None:
    now = time.monotonic()
    known = _ENVIRONS.get(process.pid)
    if known is not None and known[:2] == (process.started, argv) and now - known[2] < AS_GOOD:
        return known[3]
    found = process.environ
    if len(_ENVIRONS) > MOST_KEPT:
        _ENVIRONS.clear()
    _ENVIRONS[process.pid] = (process.started, argv, now, found)
    return found


@dataclass(frozen=True, slots=True)
class _Tree:
    """All processes, and what was read of them: each file once."""

    processes: Processes
    by_parent: dict[int, list[Process]]
    launchers: set[int]
    words: dict[int, tuple[str, ...]] = field(default_factory=dict)
    envs: dict[int, Mapping[str, str] | None] = field(default_factory=dict)
    met: dict[int, bool] = field(default_factory=dict)

    def argv(self, process: Process) -> tuple[str, ...]:
        if process.pid not in self.words:
            self.words[process.pid] = process.argv or ()
        return self.words[process.pid]

    def env(self, process: Process) -> Mapping[str, str]:
        if process.pid not in self.envs:
            self.envs[process.pid] = _environ(process, self.argv(process))
        return self.envs[process.pid] or {}

    def in_group(self, process: Process) -> bool:
        if process.pid not in self.met:
            self.met[process.pid] = in_group(process)
        return self.met[process.pid]

    def children(self, pid: int) -> Sequence[Process]:
        return self.by_parent.get(pid, ())

    def below(self, pid: int) -> list[Process]:
        found: list[Process] = []
        waiting = [pid]
        while waiting and len(found) < 10_000:
            for child in self.children(waiting.pop()):
                found.append(child)
                waiting.append(child.pid)
        return found

    def launcher_of(self, process: Process) -> Process | None:
        above = self.processes.ancestors(process.pid)
        return next((p for p in above if p.pid in self.launchers), None)


def _may_be_rank(process: Process) -> bool:
    return process.comm.startswith(("python", "pt_", "torchrun", "accelerate", "deepspeed"))


def in_group(process: Process) -> bool:
    return any(name.startswith(GROUP_THREADS) for name in process.thread_names or ())


def _named(tree: _Tree, pythons: Sequence[Process]) -> Iterator[Job]:
    """Ranks whose environment says which they are, by the place where they are to meet."""
    envs = {p.pid: tree.env(p) for p in pythons if p.state not in "ZX"}
    named = {pid for pid, env in envs.items() if number_in(env, "RANK") is not None}
    ranks = [p for p in pythons if p.pid in named and not _is_helper(tree, p, envs, named)]
    found: dict[tuple[str, ...], Job] = {}
    for process in ranks:
        env = envs[process.pid]
        host, port = env.get("MASTER_ADDR", ""), number_in(env, "MASTER_PORT")
        run = env.get("TORCHELASTIC_RUN_ID", "")
        place = _netns(process) if is_loopback(host) else ""
        key = (
            (str(process.uid), place, run, host, str(port))
            if port or run
            else (f"parent {process.ppid}",)
        )
        launcher = tree.launcher_of(process)
        kind = _kind(launcher) if launcher else "env"
        job = found.setdefault(
            key, Job(str((launcher or process).pid), launcher, kind, host, port, None)
        )
        job.world_size = job.world_size or number_in(env, "WORLD_SIZE")
        job.ranks.append(Rank(process, number_in(env, "RANK"), number_in(env, "LOCAL_RANK"), env))
    return iter(found.values())


def _is_helper(
    tree: _Tree, process: Process, envs: Mapping[int, Mapping[str, str]], named: set[int]
) -> bool:
    """A process that inherited a rank's variables: a data loader's worker, a tracker, a tool.

    Of a rank and what it started the upper one is the rank, unless it merely wraps the one that
    joined the group.
    """
    if _is_tracker(tree.argv(process)) or process.comm.startswith(WORKERS):
        return True
    env = envs[process.pid]
    for above in tree.processes.ancestors(process.pid):
        if above.pid in named and _same_rank(envs[above.pid], env):
            wraps = tree.in_group(process) and not tree.in_group(above)
            return not wraps or _is_copy(tree, process, above)
    return any(
        child.pid in named and _same_rank(envs[child.pid], env)
        and tree.in_group(child) and not tree.in_group(process)
        for child in tree.below(process.pid) if child.pid in envs
    )  # fmt: skip


def _is_copy(tree: _Tree, process: Process, parent: Process) -> bool:
    """Started by multiprocessing, not as a program of its own."""
    words = tree.argv(process)
    return is_spawned(words) or bool(words) and words == tree.argv(parent)


def _same_rank(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    return all(one.get(name) == other.get(name) for name in names)


def _is_tracker(words: Sequence[str]) -> bool:
    return any(word in text for text in words[:6] for word in NEVER)


def _spawned(tree: _Tree, pythons: Sequence[Process]) -> Iterator[Job]:
    """Ranks that no variable names: children of one parent that meet in a group.

    Their command line may say which they are, and multiprocessing starts its workers in order.
    """
    families: dict[int, list[Process]] = {}
    envs: dict[int, Mapping[str, str]] = {}
    for process in pythons:
        if _is_tracker(tree.argv(process)) or process.comm.startswith(WORKERS):
            continue
        above = tree.processes.get(process.ppid)
        envs[process.pid] = env = tree.env(process)
        inherited = above is not None and _is_copy(tree, process, above)
        if number_in(env, "RANK") is None or inherited:
            families.setdefault(process.ppid, []).append(process)
    for ppid, children in families.items():
        above = tree.processes.get(ppid)
        if ppid == 1:
            yield from _orphans(tree, children, envs)
        elif above is not None and ppid not in tree.launchers:
            yield from _family(tree, above, children, envs)


def _family(
    tree: _Tree, above: Process, children: Sequence[Process], envs: Mapping[int, Mapping[str, str]]
) -> Iterator[Job]:
    met = [p for p in children if tree.in_group(p)]
    copies = [p for p in children if _is_copy(tree, p, above)]
    if copies and (any(p in met for p in copies) or _is_about_to_meet(above, copies)):
        if not tree.in_group(above):  # else it is a rank itself, and these are its helpers
            yield _in_order(copies, envs, above, str(above.pid))
    elif met:
        yield _in_order(met, envs, above if above.comm.startswith("python") else None,
                        str(met[0].pid), alone=False)  # fmt: skip


def _orphans(
    tree: _Tree, children: Sequence[Process], envs: Mapping[int, Mapping[str, str]]
) -> Iterator[Job]:
    """Ranks whose parent is gone, told apart by session; some may have ended since."""
    groups: dict[tuple[int, int], list[Process]] = {}
    for process in children:
        if tree.in_group(process):
            groups.setdefault((process.session, process.group), []).append(process)
    for found in groups.values():
        yield _in_order(found, envs, None, str(found[0].pid), alone=False)


def _in_order(
    children: Sequence[Process], envs: Mapping[int, Mapping[str, str]],
    above: Process | None, name: str, alone: bool = True,
) -> Job:  # fmt: skip
    """`alone`: these are all that were started, so that their order counts."""
    children = sorted(children, key=lambda p: (p.started, p.pid))
    first = envs[children[0].pid]
    host = first.get("MASTER_ADDR") or _word(children[0], "master-addr") or ""
    port = number_in(first, "MASTER_PORT") or _option(children[0], "master-port")
    job = Job(name, above, "spawn" if alone else "env", host, port, None)
    for place, process in enumerate(children):
        job.world_size = job.world_size or _option(process, "world-size")
        if process.state in "ZX":
            continue
        said = _option(process, "rank")
        number, told_by = (said, "command line") if said is not None else (
            (place, "start order") if alone else (None, ""))  # fmt: skip
        rank = Rank(process, number, None, envs[process.pid], told_by)  # type: ignore[arg-type]
        job.ranks.append(rank)
    return job


def _is_about_to_meet(parent: Process, children: Sequence[Process]) -> bool:
    """Whether a script that names torch.distributed has children that could be its ranks."""
    return len(children) > 1 and any(
        word in script(parent) for word in (b"init_process_group", b"torch.distributed")
    )


def script(process: Process) -> bytes:
    """The text of the Python script that a process runs, where it may be read."""
    for word in (process.argv or ())[1:6]:
        if word.endswith(".py"):
            path = os.path.join(f"{process.path}/cwd", word) if word[0] != "/" else word
            return read(path, 1 << 20) or b""
    return b""


def _hidden(tree: _Tree, launchers: Sequence[Process]) -> Iterator[Job]:
    """Ranks below a launcher whose environments are not for us: only their order tells them."""
    for launcher in launchers:
        children = [p for p in tree.children(launcher.pid)
                    if _may_be_rank(p) and p.pid not in tree.launchers
                    and not _is_tracker(tree.argv(p))]  # fmt: skip
        if not children or any(p.environ is not None for p in children if p.state not in "ZX"):
            continue
        children.sort(key=lambda p: (p.started, p.pid))
        size, nodes = _option(launcher, "nproc-per-node"), _option(launcher, "nnodes")
        alone = nodes in (None, 1) and size == len(children)
        job = Job(str(launcher.pid), launcher, _kind(launcher), "", None, size if alone else None)
        for place, process in enumerate(children):
            if process.state not in "ZX":
                job.ranks.append(Rank(process, place if alone else None, place if alone else None,
                                      {}, "start order" if alone else ""))  # fmt: skip
        yield job


def _merged(jobs: Sequence[Job]) -> list[Job]:
    """Halves of one job whose ranks were told different ports are put together again."""
    kept: list[Job] = []
    for job in sorted(jobs, key=lambda job: -len(job.ranks)):
        other = next((k for k in kept if _are_halves(k, job)), None)
        if other is None:
            kept.append(job)
            continue
        for half in (other, job):
            if half.port is not None and half.port not in other.ports:
                other.ports[half.port] = [r.rank for r in half.ranks if r.rank is not None]
        other.ranks += job.ranks
        other.id = min(other.id, job.id, key=int)
    return kept


def _are_halves(one: Job, other: Job) -> bool:
    """The same script of the same user, both incomplete, and together no rank twice."""
    if not (one.ranks and other.ranks) or one.port == other.port:
        return False
    first, second = one.ranks[0], other.ranks[0]
    ranks = [r.rank for r in (*one.ranks, *other.ranks)]
    return (
        one.world_size == other.world_size is not None
        and (one.launcher and one.launcher.pid) == (other.launcher and other.launcher.pid)
        and first.process.uid == second.process.uid
        and len(set(ranks)) == len(ranks) <= (one.world_size or 0)
        and None not in ranks
        and bool(one.missing or one.elsewhere) and bool(other.missing or other.elsewhere)
        and _script_name(first.process) == _script_name(second.process) != ""
        and first.process.cwd == second.process.cwd
    )  # fmt: skip


def _script_name(process: Process) -> str:
    words = (process.argv or ())[1:6]
    return next((w for place, w in enumerate(words)
                 if w.endswith(".py") or place and words[place - 1] == "-m"), "")  # fmt: skip


def _dead(tree: _Tree, job: Job) -> list[Process]:
    parents = {r.process.ppid for r in job.ranks} | ({job.launcher.pid} if job.launcher else set())
    parents -= {1}
    return [p for pid in parents for p in tree.children(pid) if p.state == "Z"]


def _is_inner(tree: _Tree, launcher: Process) -> bool:
    """A launcher that another one started (accelerate starts torchrun): one of them is enough."""
    return tree.launcher_of(launcher) is not None


def _netns(process: Process) -> str:
    try:
        return os.readlink(f"{process.path}/ns/net")
    except OSError:
        return ""


def _word(process: Process, name: str) -> str | None:
    """What stands after `--name` or `--name=` of a command line."""
    words = process.argv or ()
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option.replace("_", "-") == f"--{name}":
            return value if equals else words[place + 1] if place + 1 < len(words) else None
    return None


def _option(process: Process, name: str) -> int | None:
    return as_number(_word(process, name) or "")


def _kind(process: Process) -> str:
    return short(process.argv or (process.comm,)).split(" ")[0]
