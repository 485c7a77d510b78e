"""Child: asks NVML everything, one JSON line a fact, so that what came before a hang is kept.

A sick GPU may let a call hang for ever while the others answer, so each GPU is asked in a thread
of its own. The library is not shut down at the end: that may hang too, and the exit does it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref
from typing import Any

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # our own folder: nothing in it may shadow a module

SPEAKING = threading.Lock()
MISSING = 13
LINKS = 18


def say(**what: Any) -> None:
    with SPEAKING:
        print(json.dumps(what), flush=True)


def plain(value: Any) -> Any:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


class Asked:
    """One GPU: what it has told so far, and the question it is at."""

    def __init__(self, nv: Any, index: int) -> None:
        self.nv, self.index = nv, index
        self.at = "nvmlDeviceGetHandleByIndex"
        self.device: Any = None
        self.error: Any = None
        self.found: dict[str, Any] = {}
        self.failed: dict[str, int] = {}
        self.thread = threading.Thread(target=self.ask, daemon=True)
        self.thread.start()

    def ask(self) -> None:
        nv = self.nv
        try:
            self.device = device = nv.nvmlDeviceGetHandleByIndex(self.index)
        except nv.NVMLError as why:
            self.error = why
            say(index=self.index, error=why.value, said=str(why))
            return
        for name, question in questions(nv, device).items():
            self.at = name
            try:
                self.found[name] = plain(question())
            except nv.NVMLError as why:
                self.failed[name] = why.value
            except (AttributeError, UnicodeDecodeError):
                self.failed[name] = MISSING
        say(index=self.index, facts=self.found, failed=self.failed)

    def give_up(self) -> None:
        found, failed = dict(self.found), dict(self.failed)
        say(index=self.index, stuck=self.at, facts=found, failed=failed)


def questions(nv: Any, device: Any) -> dict[str, Callable[[], Any]]:
    """Each may fail or be missing in an old driver; the others are still asked."""
    return {
        "name": lambda: nv.nvmlDeviceGetName(device),
        "uuid": lambda: nv.nvmlDeviceGetUUID(device),
        "pci": lambda: plain(nv.nvmlDeviceGetPciInfo(device).busId),
        "memory": lambda: memory(nv, device),
        "compute_mode": lambda: nv.nvmlDeviceGetComputeMode(device),
        "mig": lambda: nv.nvmlDeviceGetMigMode(device)[0],
        "slices": lambda: slices(nv, device),
        "capability": lambda: list(nv.nvmlDeviceGetCudaComputeCapability(device)),
        "ecc": lambda: nv.nvmlDeviceGetTotalEccErrors(
            device, nv.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nv.NVML_VOLATILE_ECC
        ),
        "remapped": lambda: list(nv.nvmlDeviceGetRemappedRows(device)),
        "retired_pending": lambda: nv.nvmlDeviceGetRetiredPagesPendingStatus(device),
        "processes": lambda: [
            [p.pid, p.usedGpuMemory] for p in nv.nvmlDeviceGetComputeRunningProcesses(device)
        ],
        "throttle": lambda: nv.nvmlDeviceGetCurrentClocksThrottleReasons(device),
        "persistence": lambda: nv.nvmlDeviceGetPersistenceMode(device),
        "nvlinks": lambda: links(nv, device),
        "fabric": lambda: fabric(nv, device),
    }


def memory(nv: Any, device: Any) -> list[int]:
    """Total and used; the first form of the answer counts what the driver keeps as used, too."""
    try:
        info = nv.nvmlDeviceGetMemoryInfo(device, nv.nvmlMemory_v2)
    except (nv.NVMLError, AttributeError):
        info = nv.nvmlDeviceGetMemoryInfo(device)
    return [info.total, info.used]


def slices(nv: Any, device: Any) -> list[str]:
    """The MIG devices of a GPU; where there are none the driver says so by an error."""
    found = []
    for index in range(nv.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            found.append(nv.nvmlDeviceGetMigDeviceHandleByIndex(device, index))
        except nv.NVMLError:
            continue
    return [plain(nv.nvmlDeviceGetUUID(one)) for one in found]


def links(nv: Any, device: Any) -> int:
    """How many NVLinks are up; the first number that does not exist ends the row."""
    up = 0
    for link in range(LINKS):
        try:
            up += bool(nv.nvmlDeviceGetNvLinkState(device, link))
        except nv.NVMLError:
            break
    return up


def fabric(nv: Any, device: Any) -> list[int]:
    # The binding passes what it is given: a struct that is no reference crashes the process.
    try:
        info = nv.c_nvmlGpuFabricInfo_v2_t()
        nv.nvmlDeviceGetGpuFabricInfoV(device, byref(info))
    except (nv.NVMLError, AttributeError):
        info = nv.c_nvmlGpuFabricInfo_t()
        nv.nvmlDeviceGetGpuFabricInfo(device, byref(info))
    return [info.state, info.status]


def pairs(nv: Any, devices: dict[int, Any]) -> None:
    """Which pairs of GPUs can't read each other's memory, and how far apart each pair is."""
    closed: list[list[int]] = []
    apart: list[list[int]] = []
    for a, first in devices.items():
        for b, second in devices.items():
            if a >= b:
                continue
            # An old driver does not know; the distance is only shown.
            with suppress(nv.NVMLError, AttributeError):
                apart.append([a, b, nv.nvmlDeviceGetTopologyCommonAncestor(first, second)])
            try:
                # The named constant of this index is a tuple by mistake in some versions.
                if (status := nv.nvmlDeviceGetP2PStatus(first, second, 0)) != 0:
                    closed.append([a, b, status])
            except (nv.NVMLError, AttributeError):
                say(closed_pairs=None, apart=apart)
                return
    say(closed_pairs=closed, apart=apart)


def main() -> None:
    signal.alarm(int(sys.argv[1]))
    until = time.monotonic() + json.loads(sys.stdin.readline() or "{}")["patience"]
    try:
        import pynvml as nv
    except ImportError as why:
        say(error="no-pynvml", said=str(why))
        return
    try:
        nv.nvmlInit()
        count = nv.nvmlDeviceGetCount()
    except nv.NVMLError as why:
        say(error=why.value, said=str(why))
        return
    say(
        driver=told(nv, "nvmlSystemGetDriverVersion"),
        cuda=told(nv, "nvmlSystemGetCudaDriverVersion_v2"),
        count=count,
    )
    asked = [Asked(nv, index) for index in range(count)]
    for gpu in asked:
        gpu.thread.join(max(0.0, until - time.monotonic()))
    stuck = [gpu for gpu in asked if gpu.thread.is_alive()]
    for gpu in stuck:
        gpu.give_up()
    if not stuck and count > 1:
        last = threading.Thread(
            target=pairs, args=(nv, {g.index: g.device for g in asked if g.device}), daemon=True
        )
        last.start()
        last.join(max(0.1, until - time.monotonic()))
    sys.stdout.flush()
    os._exit(0)  # a thread that hangs in the driver is not waited for


def told(nv: Any, name: str) -> Any:
    try:
        return plain(getattr(nv, name)())
    except (nv.NVMLError, AttributeError):
        return None


if __name__ == "__main__":
    main()
