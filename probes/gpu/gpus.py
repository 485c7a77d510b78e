"""The GPUs of this host as NVML tells them: is the driver there, and does it answer?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddp_assist.probes.child import ask
from ddp_assist.probes.gpu.health import lost, modes, pairs, sick, stuck
from ddp_assist.probes.gpu.holders import held
from ddp_assist.probes.gpu.readings import SEE, Gpus, read
from ddp_assist.probes.gpu.wanted import architecture, counts, driver, wants
from ddp_assist.probes.host.processes import read as read_file
from ddp_assist.probes.host.words import brief, counted
from ddp_assist.probes.model import Finding, Probe, Target, Weight, unknown

CHILD = Path(__file__).with_name("nvml_child.py")
DEADLINE = 8.0
"""Seconds; without persistence mode each GPU is woken first, which takes about one."""
LIBRARY = "libnvidia-ml.so.1"
FOLDERS = ("/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
           "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/wsl/lib")  # fmt: skip
# What nvmlInit may fail with.
START: Mapping[int, tuple[str, str]] = {
    18: ("driver-mismatch", "the NVIDIA kernel module and the driver library differ"),
    9: ("driver-not-loaded", "the NVIDIA driver's library is here, its kernel module is not"),
    4: ("no-permission", "NVML may not be asked by you"),
    17: ("no-permission", "the operating system keeps the devices of the GPUs from this process"),
    15: ("lost", "a GPU has fallen off the bus"),
    16: ("lost", "a GPU must be reset"),
}
# A container shares the host's kernel module, so there the same codes mean its devices.
IN_CONTAINER: Mapping[int, str] = {
    9: "was given no GPU",
    999: "has lost its GPUs: the rules for its devices were renewed",
}
ABSENT = 12


def look(target: Target) -> Iterator[Finding]:
    if not os.path.exists("/proc/driver/nvidia") and not _library(os.environ):
        yield _none(target, "there is no NVIDIA driver on this host")
        return
    question = {"patience": 0.7 * DEADLINE}
    # Not isolated: where we were installed for one user, pynvml is in that user's own folder.
    answer = ask(CHILD, question, deadline=DEADLINE, python=sys.executable, isolated=False)
    error = next((v for v in answer.values if "error" in v and "index" not in v), None)
    if error is not None:
        yield _failed(target, error)
        return
    gpus = read(answer)
    if gpus.count is not None:
        yield from _all(target, gpus)
    if answer.ended != "well" or gpus.count is None:
        because = answer.because or "it told nothing"
        yield unknown("gpu", f"NVML was asked: {because}", SEE, hung=answer.ended == "deadline")
    elif gpus.count and len(gpus.stuck) == gpus.count:
        because = f"the driver counts {gpus.count} GPUs and then answers nothing"
        yield unknown("gpu", because, SEE, hung=True)


def _library(env: Mapping[str, str]) -> bool:
    """Whether the loader would find NVML; no program is started to learn that."""
    folders = [f for f in env.get("LD_LIBRARY_PATH", "").split(":") if f]
    if any(os.path.exists(os.path.join(folder, LIBRARY)) for folder in (*folders, *FOLDERS)):
        return True
    return LIBRARY.encode() in (read_file("/etc/ld.so.cache") or b"")


def _none(target: Target, why: str) -> Finding:
    if os.path.exists("/dev/kfd"):
        return Finding("gpu", "none", f"{why}; AMD GPUs are not asked", {}, (SEE,))
    if wants(target):
        return Finding("gpu", "missing", f"{why}, but the launch wants NCCL", {}, (SEE,))
    return Finding("gpu", "none", why, {}, (SEE,))


def _failed(target: Target, error: Mapping[str, Any]) -> Finding:
    code = error["error"]
    if code == "no-pynvml":
        return unknown("gpu", f"pynvml can't be imported: {brief(str(error['said']))}")
    if code == ABSENT:
        return _none(target, "NVML finds no NVIDIA driver library")
    if code in IN_CONTAINER and target.found("place.container", "place.kubernetes"):
        sentence = f"this container {IN_CONTAINER[code]}"
        return Finding("gpu", "no-permission", sentence, {"nvml": code}, (SEE,))
    if code in START:
        outcome, sentence = START[code]
        return Finding("gpu", outcome, sentence, {"nvml": code}, (SEE,))
    return unknown("gpu", f"NVML said: {brief(str(error['said']))}", SEE, nvml=code)


def _all(target: Target, gpus: Gpus) -> Iterator[Finding]:
    if gpus.count == 0:
        yield _none(target, f"driver {gpus.driver} is loaded, and there is no GPU")
        return
    found = [
        *lost(gpus), *stuck(gpus), *sick(gpus), *modes(target, gpus), *held(target, gpus),
        *counts(target, gpus), *driver(target, gpus), *architecture(target, gpus), *pairs(gpus),
    ]  # fmt: skip
    yield from found
    if gpus.devices.keys() - gpus.stuck and not any(OUTCOMES[f.outcome] == "bad" for f in found):
        names = sorted({brief(str(facts.get("name"))) for facts in gpus.devices.values()})
        told = ("name", "uuid", "pci", "memory", "compute_mode", "mig", "capability", "ecc",
                "remapped", "persistence", "nvlinks", "fabric")  # fmt: skip
        each = [
            {"index": index, **{key: facts[key] for key in told if key in facts}}
            for index, facts in sorted(gpus.devices.items())
        ]
        what = counted(gpus.count or 0, "GPU")
        yield Finding(
            "gpu", "fine", f"{what} ({', '.join(names)}), driver {gpus.driver}",
            gpus.data(cuda=gpus.cuda, gpus=each, apart=gpus.apart), (SEE,),
        )  # fmt: skip


OUTCOMES: Mapping[str, Weight] = {
    "fine": "ok",
    "none": "info",
    "missing": "bad",
    "lost": "bad",
    "hung": "bad",
    "ecc": "bad",
    "exclusive": "bad",
    "busy": "info",
    "stale-process": "bad",
    "shared": "bad",
    "fewer-than-ranks": "bad",
    "wrong-visible": "bad",
    "mig": "info",
    "mig-spans": "bad",
    "driver-mismatch": "bad",
    "driver-not-loaded": "bad",
    "driver-too-old": "bad",
    "architecture": "bad",
    "no-permission": "bad",
    "fabric": "bad",
    "no-peers": "info",
    "throttled": "info",
}
PROBES = (
    Probe(
        "gpu",
        "Are the GPUs there, well, and free?",
        OUTCOMES,
        look,
        deadline=DEADLINE + 2,
        needs=frozenset({"gpu"}),
        after=("torch", "left-overs", "place"),
    ),
)
