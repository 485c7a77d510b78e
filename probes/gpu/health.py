"""What ails a GPU by itself, whatever the launch wants of it."""

from __future__ import annotations

from collections.abc import Iterator

from ddp_assist.probes.gpu.readings import SEE, Gpus
from ddp_assist.probes.model import Evidence, Finding, Target

EXCLUSIVE_THREAD, PROHIBITED, EXCLUSIVE = 1, 2, 3
NOT_STARTED, IN_PROGRESS, COMPLETED = 1, 2, 3
SLOWED = {0x08: "the hardware slows it", 0x40: "it is too hot", 0x20: "it is too hot",
          0x80: "the power supply slows it"}  # fmt: skip
CLOSED = {1: "the chipset can't", 2: "these GPUs can't", 3: "the root complexes are apart",
          4: "it is switched off", 5: "it is not supported"}  # fmt: skip
HELD_BACK = {4: "may not be opened by you", 17: "is kept from this process by the system"}


def lost(gpus: Gpus) -> Iterator[Finding]:
    for index, (code, said) in sorted(gpus.lost.items()):
        data = gpus.data(gpu=index, nvml=code)
        if code in HELD_BACK:
            sentence = f"GPU {index} {HELD_BACK[code]}"
            yield Finding("gpu", "no-permission", sentence, data, (SEE,))
        else:
            yield Finding("gpu", "lost", f"GPU {index}: {said}", data, (SEE,))


def stuck(gpus: Gpus) -> Iterator[Finding]:
    """A call that hangs for one GPU while others answer; where none does the driver may be slow."""
    if len(gpus.stuck) == gpus.count:
        return
    for index, question in sorted(gpus.stuck.items()):
        sentence = f"GPU {index} does not answer ({question}), while others do"
        yield Finding("gpu", "hung", sentence, gpus.data(gpu=index, question=question), (SEE,))


def sick(gpus: Gpus) -> Iterator[Finding]:
    for index, facts in sorted(gpus.devices.items()):
        data = gpus.data(gpu=index)
        _, _, pending, failed = facts.get("remapped") or (0, 0, 0, 0)
        errors = facts.get("ecc") or 0
        said = [
            *([f"{errors} uncorrectable memory errors"] if errors else []),
            *(["a failed row remapping"] if failed else []),
            *(["memory to be retired at the next reset"]
              if pending or facts.get("retired_pending") else []),
        ]  # fmt: skip
        if said:
            see = Evidence("NVML", (), ("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER"))
            sentence = f"GPU {index} has {' and '.join(said)}"
            yield Finding("gpu", "ecc", sentence, data | {"errors": errors}, (see,))
        state, status = facts.get("fabric") or (COMPLETED, 0)
        if state in (NOT_STARTED, IN_PROGRESS) or (state == COMPLETED and status):
            how = {NOT_STARTED: "not joined", IN_PROGRESS: "not yet joined"}.get(state)
            how = f"has {how} the NVLink fabric" if how else "could not join the NVLink fabric"
            yield Finding("gpu", "fabric", f"GPU {index} {how}", data | {"state": state}, (SEE,))
        reasons = facts.get("throttle") or 0
        if why := sorted({text for bit, text in SLOWED.items() if reasons & bit}):
            sentence = f"GPU {index} is slowed down: {', '.join(why)}"
            yield Finding("gpu", "throttled", sentence, data | {"reasons": reasons}, (SEE,))


def modes(target: Target, gpus: Gpus) -> Iterator[Finding]:
    for index, facts in sorted(gpus.devices.items()):
        pids = [pid for pid, _ in facts.get("processes") or []]
        pid = pids[0] if pids else None
        mode = facts.get("compute_mode")
        data = gpus.data(gpu=index, pid=pid)
        # A job that runs holds its own GPUs, and that is as it should be.
        taken = mode in (EXCLUSIVE, EXCLUSIVE_THREAD) and pid is not None and target.job is None
        if mode == PROHIBITED:
            sentence = f"GPU {index} takes no process at all (compute mode prohibited)"
            yield Finding("gpu", "exclusive", sentence, data, (SEE,))
        elif taken:
            sentence = f"GPU {index} gives itself to one process only, and pid {pid} holds it"
            yield Finding("gpu", "exclusive", sentence, data, (SEE,))


def pairs(gpus: Gpus) -> Iterator[Finding]:
    if gpus.closed_pairs:
        a, b, status = gpus.closed_pairs[0]
        count = len(gpus.closed_pairs)
        some = "1 pair of GPUs has" if count == 1 else f"{count} pairs of GPUs have"
        why = CLOSED.get(status, "for an unknown reason")
        sentence = f"{some} no peer access, e.g. {a}-{b}: {why}"
        see = Evidence("NVML", (), ("nvidia-smi", "topo", "-p2p", "r"))
        data = gpus.data(pairs=[pair[:2] for pair in gpus.closed_pairs[:64]])
        yield Finding("gpu", "no-peers", sentence, data, (see,))
