"""The control group that a process is in, whether its controller lives in the old or new tree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ddp_assist.probes.host.processes import read

UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group of one controller; `version` is that of the tree it lives in."""

    path: Path
    top: Path
    version: int

    @classmethod
    def of(cls, pid: int | str, controller: str) -> Cgroup | None:
        """The group that limits `controller` for a process, None where it is not mounted."""
        groups = (read(f"/proc/{pid}/cgroup") or b"").decode("utf-8", "surrogateescape")
        mounts = (read("/proc/self/mountinfo") or b"").decode("utf-8", "surrogateescape")
        found: Cgroup | None = None
        for line in groups.splitlines():
            number, names, where = ([*line.split(":", 2), "", ""])[:3]
            old = controller in names.split(",")
            if not old and number != "0":
                continue
            for mount in mounts.splitlines():
                head, _, tail = mount.partition(" - ")
                kind, _, options = tail.partition(" ")
                wanted = controller in options.rpartition(" ")[2].split(",")
                if kind != ("cgroup" if old else "cgroup2") or (old and not wanted):
                    continue
                fields = head.split()
                top = Path(fields[4])
                inside = os.path.relpath(where or "/", fields[3])
                # In a container the mount may begin at our own group.
                path = top / inside if not inside.startswith("..") else top
                if old:
                    return cls(path if path.is_dir() else top, top, 1)
                if found is None and _controls(path if path.is_dir() else top, controller):
                    found = cls(path if path.is_dir() else top, top, 2)
        return found

    def upwards(self) -> Iterator[Path]:
        """This group and those around it, each of which limits it too."""
        yield self.path
        if self.path != self.top and self.top in self.path.parents:
            for parent in self.path.parents:
                yield parent
                if parent == self.top:
                    return

    def number(self, name: str, path: Path | None = None) -> int | None:
        """A file with one number; None for `max`, an absurd one, or no such file."""
        raw = (read(str((path or self.path) / name), 64) or b"").strip()
        value = int(raw) if raw.isdigit() else None
        return value if value is not None and value < UNLIMITED else None

    def counts(self, name: str, path: Path | None = None) -> dict[str, int]:
        """A file of lines `word number`."""
        raw = (read(str((path or self.path) / name), 1 << 16) or b"").decode("ascii", "replace")
        pairs = (line.split() for line in raw.splitlines())
        return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].isdigit()}


def _controls(path: Path, controller: str) -> bool:
    offered = read(str(path / "cgroup.controllers"), 4096)
    return offered is not None and controller.encode() in offered.split()
