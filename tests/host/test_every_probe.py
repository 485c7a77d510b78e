"""What holds for all probes of one host: rights, hostile words, a healthy machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from ddp_assist.probes.model import Finding, Probe

Ask = Callable[..., dict[str, Finding]]
Elsewhere = Callable[..., dict[str, tuple[str, dict[str, Any]]]]
MODULES = (
    "host.environment", "host.python", "host.torch_build", "host.limits", "host.memory",
    "host.kernel_log", "host.leftovers", "host.place",
    "network.names", "network.interface", "network.endpoint", "network.capacity",
)  # fmt: skip
PROBES: tuple[Probe, ...] = tuple(
    probe for name in MODULES for probe in import_module(f"ddp_assist.probes.{name}").PROBES
)
# What only this machine's state or other users' work decides.
OF_THE_DAY = {"memory", "kernel-log", "left-overs", "reverse-dns", "shm", "disk", "limits", "ports"}


def bad(found: dict[str, Finding]) -> set[str]:
    weights = {probe.id: probe for probe in PROBES}
    return {k for k, f in found.items() if weights[f.probe].weight(f.outcome) == "bad"}


def test_a_quiet_machine_without_a_launch_has_nothing_bad(ask: Ask) -> None:
    found = ask(*PROBES, env={"PATH": os.environ["PATH"]})
    assert not {key for key in bad(found) if key.partition(".")[0] not in OF_THE_DAY}


@pytest.mark.needs("root", "setpriv")
def test_nobody_may_ask_too(ask_elsewhere: Elsewhere) -> None:
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    found = ask_elsewhere(nobody, *MODULES, at=(("127.0.0.1", 1), ("localhost", 70000)))
    assert {key.partition(".")[0] for key in found} >= {"env", "limits", "left-overs", "ports"}
    assert not [told for told, _ in found.values() if "the probe failed" in told]


@pytest.mark.needs("namespaces")
def test_without_proc_and_sys_much_is_unknown_and_nothing_is_made_up(
    ask_elsewhere: Elsewhere,
) -> None:
    bare = (
        "umount -l /sys; umount -l /dev/shm; mount --bind /dev/null /etc/resolv.conf; "
        "mount -t tmpfs tmpfs /dev; mount -t tmpfs -o ro tmpfs /proc; "
        'exec 2>/dev/null; exec "$0" "$@"'
    )
    before = ["unshare", "-n", "-m", "--propagation", "private", "bash", "-c", bare]
    found = ask_elsewhere(before, *MODULES)
    assert found.keys() >= {
        "ports.unknown", "limits.unknown", "memory.unknown", "left-overs.unknown",
        "kernel-log.unknown", "shm.not-writable",
    }  # fmt: skip
    assert not found.keys() & {"left-overs.none", "ports.no-ipv6", "memory.fine", "limits.fine"}
    assert not [told for told, _ in found.values() if "the probe failed" in told]


@pytest.mark.parametrize(
    "hostile",
    [
        {
            "MASTER_ADDR": "\x1b]52;c;AAAA\x07",
            "MASTER_PORT": "-1",
            "RANK": "1e3",
            "WORLD_SIZE": "٣",
        },
        {"MASTER_ADDR": "h" * 4000, "MASTER_PORT": "9" * 5000, "WORLD_SIZE": "\udcff\udcfe"},
        {
            "PATH": ":\x01:" * 1000,
            "PYTHONPATH": ":\udcff:",
            "TMPDIR": "\udcff",
            "VIRTUAL_ENV": "\n",
        },
        {"SLURM_JOB_ID": "\x00"[:0], "SLURM_NTASKS": "many", "SLURM_STEP_ID": "\x7f"},
        {f"NCCL_{i}": "x" * 1000 for i in range(1000)},
        {"GLOO_SOCKET_IFNAME": ",,,", "NCCL_SOCKET_IFNAME": "^^=,", "LD_LIBRARY_PATH": "\udcff:"},
        {"LD_PRELOAD": "", "CUDA_VISIBLE_DEVICES": ",,[MIG]", "TORCH_DISTRIBUTED_DEBUG": "\r"},
    ],
)
def test_hostile_words_crash_nobody(ask: Ask, hostile: dict[str, str]) -> None:
    env = {"PATH": os.environ["PATH"]} | hostile
    host, port = env.get("MASTER_ADDR", "a\udcffb"), 29500
    for launch in (["python", "t.py"], ["torchrun", "--nnodes=2", "t.py"]):
        found = ask(*PROBES, env=env, launch=launch, at=[(host, port), ("", port), ("::%x", 1)])
        for key, finding in found.items():
            assert "the probe failed" not in finding.sentence, key
            assert finding.sentence.isprintable() and len(finding.sentence) < 2000, key
            json.dumps(dict(finding.data)).encode()
            for evidence in finding.evidence:
                assert all(line.isprintable() for line in evidence.lines), key
                assert all(isinstance(word, str) for word in evidence.see), key
