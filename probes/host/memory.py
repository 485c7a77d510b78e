"""Memory: what the control group allows, what it killed, what the host has left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ddp_assist.probes.host.cgroup import Cgroup
from ddp_assist.probes.host.kernel_log import messages
from ddp_assist.probes.host.processes import read
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown

GIB = 1 << 30
CLOSE = 0.92
LITTLE = 0.03
RECENT = 3600.0
OOM = re.compile(
    r"(?:Memory cgroup out|Out) of memory[^:]*: Kill(?:ed)? process (?P<pid>\d+) \((?P<comm>.*?)\)"
)


def host_memory() -> tuple[int, int] | None:
    """Bytes of memory the host has, and may still give."""
    lines = (read("/proc/meminfo", 1 << 16) or b"").decode("ascii", "replace").splitlines()
    sizes = {w[0]: int(w[1]) * 1024 for w in map(str.split, lines) if len(w) > 1 and w[1].isdigit()}
    total, left = sizes.get("MemTotal:"), sizes.get("MemAvailable:")
    return (total, left) if total and left is not None else None


def tightest(group: Cgroup) -> tuple[int, int, str] | None:
    """The limit nearest to being reached on the way up: limit, used without caches, where."""
    names = ("memory.max", "memory.current") if group.version == 2 else (
        "memory.limit_in_bytes", "memory.usage_in_bytes",
    )  # fmt: skip
    found = []
    for path in group.upwards():
        limit, used = (group.number(name, path) for name in names)
        if limit and used is not None:
            stat = group.counts("memory.stat", path)
            cache = stat.get("total_inactive_file", stat.get("inactive_file", 0))
            found.append((limit, max(0, used - cache), str(path)))
    return max(found, key=lambda f: f[1] / f[0], default=None)


def killed(group: Cgroup) -> int:
    """How many processes of this very group the kernel killed since the group was made."""
    name = "memory.events" if group.version == 2 else "memory.oom_control"
    return group.counts(name).get("oom_kill", 0)


def kernel_kills() -> Iterator[Finding]:
    """Processes that the kernel says it killed for memory, the latest first."""
    try:
        said = messages()
    except OSError:
        return  # the probe of the kernel log says that it can't be read
    for message in reversed(said):
        if found := OOM.search(message.text):
            pid, comm = int(found["pid"]), brief(found["comm"], 20)
            when = f"{message.age / 60:.0f} minutes ago"
            data = {"pid": pid, "comm": comm, "seconds_ago": round(message.age)}
            data["limit"] = "cgroup" if "cgroup" in message.text else "host"
            sentence = f"the kernel killed process {pid} ({comm}) for want of memory, {when}"
            evidence = Evidence("kernel log", (brief(message.text, 300),), ("dmesg", "-T"))
            outcome = "oom-seen" if message.age < RECENT else "oom-earlier"
            yield Finding("memory", outcome, sentence, data, (evidence,))


def _look(target: Target) -> Iterator[Finding]:
    group, host = Cgroup.of(target.job or "self", "memory"), host_memory()
    if group is None and host is None:
        yield unknown("memory", "neither a control group nor /proc/meminfo could be read")
        return
    kills = list(islice(kernel_kills(), 8))
    yield from kills
    fine = not any(kill.outcome == "oom-seen" for kill in kills)
    data: dict[str, Any] = {}
    if group:
        name = "memory.events" if group.version == 2 else "memory.oom_control"
        if (count := killed(group)) and fine:
            fine = False
            where = str(group.path / name)
            sentence = f"the memory limit of this control group has killed {count} processes"
            see = (Evidence(where, (f"oom_kill {count}",), ("cat", where)),)
            yield Finding("memory", "oom-seen", sentence, {"kills": count, "cgroup": where}, see)
        if limit := tightest(group):
            most, used, path = limit
            data |= {"limit": most, "used": used, "cgroup": path}
            if used > CLOSE * most:
                fine = False
                sentence = (
                    f"{_gib(used)} of the {_gib(most)} that the control group allows are used"
                )
                yield Finding("memory", "near-limit", sentence, data, (Evidence(path),))
    if host:
        total, left = host
        data |= {"total": total, "available": left}
        if left < LITTLE * total:
            fine = False
            sentence = f"only {_gib(left)} of the host's {_gib(total)} are free"
            yield Finding(
                "memory",
                "near-limit",
                sentence,
                data,
                (Evidence("/proc/meminfo", see=("free", "-h")),),
            )
    if fine:
        free = min(v for v in (host[1] if host else None, _left(data)) if v is not None)
        yield Finding("memory", "fine", f"{_gib(free)} of memory are free", data)


def _left(data: dict[str, Any]) -> int | None:
    return data["limit"] - data["used"] if "limit" in data else None


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


# A process killed within the hour is no cause by itself: it explains a rank that was seen to die.
MEMORY = Probe(
    "memory",
    "Is there memory left, and was somebody killed for it?",
    {"fine": "ok", "oom-seen": "info", "oom-earlier": "info", "near-limit": "bad"},
    _look,
)
PROBES: tuple[Probe, ...] = (MEMORY,)
