"""All probes, in the order in which their answers are shown."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from ddp_assist.probes.model import Probe

MODULES = (
    "logs.log",
    "logs.story",
    "logs.flight_recorder",
    "logs.ras",
    "script.check",
    "launch.check",
    "jobs.job",
    "jobs.peek",
    "network.ports",
    "network.names",
    "network.interface",
    "network.endpoint",
    "network.capacity",
    "network.aside",
    "fleet.probe",
    "host.environment",
    "host.python",
    "host.torch_build",
    "host.limits",
    "host.memory",
    "host.kernel_log",
    "gpu.gpus",
    "host.leftovers",
    "host.place",
)

# These read what was given and tell the others where to look.
READERS = frozenset({"log", "story", "flight-recorder", "ras"})


def of_the_network() -> frozenset[str]:
    """What they see is true of this host's network only."""
    return _ids(n for n in MODULES if n.startswith("network.") and n != "network.aside")


def of_this_host() -> frozenset[str]:
    """What they see is true of this host only: of no use where the ranks run on others."""
    parts = ("python", "torch_build", "limits", "memory", "kernel_log", "leftovers")
    return of_the_network() | _ids(f"host.{part}" for part in parts) | _ids(["gpu.gpus"])


def _ids(modules: Iterable[str]) -> frozenset[str]:
    return frozenset(
        p.id for name in modules for p in import_module(f"ddp_assist.probes.{name}").PROBES
    )


def probes() -> tuple[Probe, ...]:
    found: list[Probe] = []
    for name in MODULES:
        found += import_module(f"ddp_assist.probes.{name}").PROBES
    return tuple(found)
