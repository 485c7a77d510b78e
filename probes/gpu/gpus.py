"""The GPUs of this host as NVML tells them, judged against what the launch wants."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddp_assist.probes.child import Answer, ask
from ddp_assist.probes.host.processes import look as look_at
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown
from ddp_assist.probes.text import clean

CHILD = Path(__file__).with_name("nvml_child.py")
DEADLINE = 5.0
SEE = Evidence("NVML", (), ("nvidia-smi", "-q"))
# What nvmlInit or a device handle may fail with.
START: Mapping[int, tuple[str, str]] = {
    18: ("driver-mismatch", "the NVIDIA kernel module and the driver library differ"),
    9: (
        "driver-not-loaded",
        "the NVIDIA driver's library is here, its kernel module is not loaded",
    ),
    4: ("no-permission", "NVML may not be asked by you"),
    17: ("no-permission", "the operating system keeps the devices of the GPUs from this process"),
    15: ("lost", "a GPU has fallen off the bus"),
    16: ("lost", "a GPU must be reset"),
}
ABSENT = (12, 9999)
EXCLUSIVE, PROHIBITED = 3, 2
FABRIC_DONE = 3
HELD = 1 << 30


@dataclass(slots=True)
class Gpus:
    """What the child said."""

    driver: str | None = None
    cuda: int | None = None
    count: int = 0
    devices: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    lost: dict[int, tuple[int, str]] = field(default_factory=dict)
    closed_pairs: list[list[int]] | None = None


def look(target: Target) -> Iterator[Finding]:
    if not os.path.exists("/proc/driver/nvidia") and not _library():
        yield _none(target, "there is no NVIDIA driver on this host")
        return
    answer = ask(CHILD, deadline=DEADLINE, python=sys.executable, isolated=False)
    error = next((v for v in answer.values if "error" in v and "index" not in v), None)
    if error is not None:
        yield _failed(target, error)
        return
    gpus = _read(answer)
    yield from _all(target, gpus)
    if answer.ended != "well":
        yield unknown("gpu", f"NVML {answer.because}", SEE, hung=answer.ended == "deadline")


def _library() -> bool:
    return ctypes.util.find_library("nvidia-ml") is not None or any(
        os.path.exists(os.path.join(folder, "libnvidia-ml.so.1"))
        for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":")
        if folder
    )


def _wants(target: Target) -> bool:
    return target.backend == "nccl"


def _none(target: Target, why: str) -> Finding:
    if _wants(target):
        return Finding("gpu", "missing", f"{why}, but the launch wants NCCL", {}, (SEE,))
    return Finding("gpu", "none", why, {}, (SEE,))


def _failed(target: Target, error: Mapping[str, Any]) -> Finding:
    code = error["error"]
    if code == "no-pynvml":
        return unknown("gpu", f"pynvml can't be imported: {clean(str(error['said']))}")
    if code in ABSENT:
        return _none(target, "NVML finds no NVIDIA driver library")
    if code in START:
        outcome, sentence = START[code]
        return Finding("gpu", outcome, sentence, {"nvml": code}, (SEE,))
    return unknown("gpu", f"NVML said: {clean(str(error['said']))}", SEE, nvml=code)


def _read(answer: Answer) -> Gpus:
    gpus = Gpus()
    for value in answer.values:
        if "driver" in value:
            gpus.driver, gpus.cuda = value["driver"], value["cuda"]
        elif "count" in value:
            gpus.count = value["count"]
        elif "closed_pairs" in value:
            gpus.closed_pairs = value["closed_pairs"]
        elif "error" in value:
            gpus.lost[value["index"]] = (value["error"], str(value["said"]))
        elif "facts" in value:
            gpus.devices[value["index"]] = value["facts"]
            if 15 in value["failed"].values():
                gpus.lost[value["index"]] = (15, "GPU is lost")
    return gpus


def _all(target: Target, gpus: Gpus) -> Iterator[Finding]:
    if gpus.count == 0:
        yield _none(target, f"driver {gpus.driver} is loaded, and there is no GPU")
        return
    found = [
        *_lost(gpus), *_sick(gpus), *_modes(gpus), *_held(gpus), *_count(target, gpus),
        *_driver(target, gpus), *_pairs(target, gpus),
    ]  # fmt: skip
    yield from found
    if not any(OUTCOMES[f.outcome] == "bad" for f in found):
        names = {clean(str(facts.get("name"))) for facts in gpus.devices.values()}
        yield Finding(
            "gpu", "fine", f"{gpus.count} GPUs ({', '.join(sorted(names))}), driver {gpus.driver}",
            {"count": gpus.count, "driver": gpus.driver, "cuda": gpus.cuda}, (SEE,),
        )  # fmt: skip


def _lost(gpus: Gpus) -> Iterator[Finding]:
    for index, (code, said) in gpus.lost.items():
        outcome = START.get(code, ("lost", ""))[0]
        yield Finding("gpu", outcome, f"GPU {index}: {clean(said)}", {"gpu": index}, (SEE,))


def _sick(gpus: Gpus) -> Iterator[Finding]:
    for index, facts in gpus.devices.items():
        rows = facts.get("remapped") or [0, 0, 0, 0]
        if facts.get("ecc") or rows[3]:
            sentence = f"GPU {index} has {facts.get('ecc') or 0} uncorrectable memory errors"
            more = " and a failed row remapping" if rows[3] else ""
            yield Finding("gpu", "ecc", sentence + more, {"gpu": index}, (SEE,))
        fabric = facts.get("fabric")
        if fabric and fabric[0] in (1, 2):
            sentence = f"GPU {index} has not joined the NVLink fabric (state {fabric[0]})"
            yield Finding("gpu", "fabric", sentence, {"gpu": index}, (SEE,))


def _modes(gpus: Gpus) -> Iterator[Finding]:
    for index, facts in gpus.devices.items():
        held = facts.get("processes") or []
        mode = facts.get("compute_mode")
        if mode == PROHIBITED or (mode == EXCLUSIVE and held):
            by = f", and pid {held[0][0]} holds it" if held else " (prohibited)"
            yield Finding(
                "gpu", "exclusive", f"GPU {index} gives itself to one process only{by}",
                {"gpu": index, "pid": held[0][0] if held else None}, (SEE,),
            )  # fmt: skip
        if facts.get("mig"):
            yield Finding("gpu", "mig", f"GPU {index} is cut into MIG slices", {"gpu": index})


def _held(gpus: Gpus) -> Iterator[Finding]:
    """Memory that somebody holds already. A pid that is not here lives outside this container."""
    for index, facts in gpus.devices.items():
        total, used = facts.get("memory") or (0, 0)
        pids = [pid for pid, _ in facts.get("processes") or []]
        if not pids or used < max(HELD, total // 10):
            continue
        here = [p for p in map(look_at, pids) if p is not None]
        who = ", ".join(f"pid {p.pid} ({clean(p.comm)})" for p in here[:3])
        outside = len(pids) - len(here)
        who += f"{', ' if who else ''}{outside} processes outside this container" if outside else ""
        yield Finding(
            "gpu", "busy", f"{used >> 20} MiB of GPU {index} are held by {who}",
            {"gpu": index, "pids": pids, "pid": here[0].pid if here else None}, (SEE,),
        )  # fmt: skip


def _count(target: Target, gpus: Gpus) -> Iterator[Finding]:
    plan = target.plan
    env = plan.environment(target.env) if plan else target.env
    visible = gpus.count
    if (asked := env.get("CUDA_VISIBLE_DEVICES")) is not None:
        named = [word.strip() for word in asked.split(",") if word.strip()]
        visible = len(named)
        for word in named:
            uuids = [str(f.get("uuid")) for f in gpus.devices.values()]
            if (
                word.isdecimal()
                and int(word) >= gpus.count
                or (word.startswith("GPU-") and not any(u.startswith(word) for u in uuids))
            ):
                sentence = f"CUDA_VISIBLE_DEVICES names {clean(word)}, which is not here"
                yield Finding(
                    "gpu", "wrong-visible", sentence,
                    {"variable": "CUDA_VISIBLE_DEVICES", "visible": visible}, (SEE,),
                )  # fmt: skip
    if plan and isinstance(plan.nproc, int) and _wants(target) and plan.nproc > visible:
        yield Finding(
            "gpu", "fewer-than-ranks", f"the launch starts {plan.nproc} ranks for {visible} GPUs",
            {"nproc": plan.nproc, "count": gpus.count, "visible": visible}, (SEE,),
        )  # fmt: skip


def _driver(target: Target, gpus: Gpus) -> Iterator[Finding]:
    for finding in target.found("torch.*"):
        wanted = str(finding.data.get("cuda") or "")
        major = wanted.split(".")[0]
        if gpus.cuda and major.isdecimal() and int(major) > gpus.cuda // 1000:
            yield Finding(
                "gpu", "driver-too-old",
                f"driver {gpus.driver} knows CUDA {gpus.cuda // 1000}.{gpus.cuda % 1000 // 10},"
                f" torch was built for {wanted}",
                {"driver": gpus.driver, "cuda": wanted}, (SEE,),
            )  # fmt: skip
            return


def _pairs(target: Target, gpus: Gpus) -> Iterator[Finding]:
    if gpus.closed_pairs:
        a, b = gpus.closed_pairs[0]
        sentence = f"{len(gpus.closed_pairs)} pairs of GPUs have no peer access, e.g. {a}-{b}"
        see = Evidence("NVML", (), ("nvidia-smi", "topo", "-p2p", "r"))
        yield Finding("gpu", "no-peers", sentence, {"pairs": gpus.closed_pairs[:64]}, (see,))


OUTCOMES: Mapping[str, Any] = {
    "fine": "ok",
    "none": "info",
    "missing": "bad",
    "lost": "bad",
    "ecc": "bad",
    "exclusive": "bad",
    "busy": "info",
    "fewer-than-ranks": "bad",
    "wrong-visible": "bad",
    "mig": "info",
    "driver-mismatch": "bad",
    "driver-not-loaded": "bad",
    "driver-too-old": "bad",
    "no-permission": "bad",
    "fabric": "bad",
    "no-peers": "info",
}
PROBES = (
    Probe(
        "gpu",
        "Are the GPUs there, well, and free?",
        OUTCOMES,
        look,
        deadline=DEADLINE + 2,
        needs=frozenset({"gpu"}),
        after=("torch",),
    ),
)
