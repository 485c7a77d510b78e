"""Child: asks NVML everything, one JSON line a fact, so that what came before a hang is kept."""

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # our own folder: nothing in it may shadow a module

signal.alarm(int(sys.argv[1]))


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def facts(nv: Any, device: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """Each question may fail or be missing in an old driver; the others are still asked."""
    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: nv.nvmlDeviceGetName(device),
        "uuid": lambda: nv.nvmlDeviceGetUUID(device),
        "memory": lambda: [
            getattr(nv.nvmlDeviceGetMemoryInfo(device), name) for name in ("total", "used")
        ],
        "compute_mode": lambda: nv.nvmlDeviceGetComputeMode(device),
        "mig": lambda: nv.nvmlDeviceGetMigMode(device)[0],
        "capability": lambda: list(nv.nvmlDeviceGetCudaComputeCapability(device)),
        "ecc": lambda: nv.nvmlDeviceGetTotalEccErrors(
            device, nv.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nv.NVML_VOLATILE_ECC
        ),
        "remapped": lambda: list(nv.nvmlDeviceGetRemappedRows(device)),
        "processes": lambda: [
            [p.pid, p.usedGpuMemory] for p in nv.nvmlDeviceGetComputeRunningProcesses(device)
        ],
        "throttle": lambda: nv.nvmlDeviceGetCurrentClocksThrottleReasons(device),
        "fabric": lambda: fabric(nv, device),
    }
    found: dict[str, Any] = {}
    failed: dict[str, int] = {}
    for name, ask in asked.items():
        try:
            value = ask()
            found[name] = value.decode() if isinstance(value, bytes) else value
        except nv.NVMLError as why:
            failed[name] = why.value
        except AttributeError:
            failed[name] = 13
    return found, failed


def fabric(nv: Any, device: Any) -> list[int]:
    info = nv.c_nvmlGpuFabricInfo_t()
    nv.nvmlDeviceGetGpuFabricInfo(device, info)
    return [info.state, info.status]


def pairs(nv: Any, devices: list[Any]) -> list[list[int]] | None:
    """Which pairs of GPUs cannot read each other's memory."""
    closed: list[list[int]] = []
    for a in range(len(devices)):
        for b in range(a + 1, len(devices)):
            try:
                if nv.nvmlDeviceGetP2PStatus(devices[a], devices[b], 0) != 0:
                    closed.append([a, b])
            except (nv.NVMLError, AttributeError):
                return None
    return closed


def main() -> None:
    json.loads(sys.stdin.readline() or "null")
    try:
        import pynvml as nv
    except ImportError as why:
        say(error="no-pynvml", said=str(why))
        return
    try:
        nv.nvmlInit()
    except nv.NVMLError as why:
        say(error=why.value, said=str(why))
        return
    say(
        driver=told(nv, nv.nvmlSystemGetDriverVersion),
        cuda=told(nv, nv.nvmlSystemGetCudaDriverVersion_v2),
    )
    count = told(nv, nv.nvmlDeviceGetCount) or 0
    say(count=count)
    devices = []
    for index in range(count):
        try:
            device = nv.nvmlDeviceGetHandleByIndex(index)
        except nv.NVMLError as why:
            say(index=index, error=why.value, said=str(why))
            continue
        devices.append(device)
        found, failed = facts(nv, device)
        say(index=index, facts=found, failed=failed)
    say(closed_pairs=pairs(nv, devices))


def told(nv: Any, ask: Callable[[], Any]) -> Any:
    try:
        value = ask()
    except nv.NVMLError:
        return None
    return value.decode() if isinstance(value, bytes) else value


main()
