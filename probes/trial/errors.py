"""What a stage's error means, in a sentence that says what to do."""

from __future__ import annotations

import errno
import re
from typing import Any

# (stage or "", pattern over the error's text, kind, sentence): the first that matches speaks.
_TEXTS = (
    ("torch-import", r"No module named '(torch(?:\.[\w.]*)?)'", "no-torch",
     "this interpreter has no {0}: install torch there, or name another one with --python"),
    ("torch-import", r"([\w.+-]+\.so[\w.]*): cannot open shared object", "library-missing",
     "torch needs the library {0}, which is not found: reinstall torch, or repair LD_LIBRARY_PATH"),
    ("torch-import", r"undefined symbol: (\w+)", "library-mismatch",
     "torch was loaded with a library of another version (undefined symbol {0})"),
    ("torch-import", r"partially initialized module|has no attribute", "shadowed",
     "a file with the name of a module hides the real one"),
    ("group", r"Unable to find (?:address|interface) for: (\S+)", "interface-missing",
     "there is no interface {0} with an address here: see `ip -br addr`"),
    ("group", r"Cannot assign requested address|bind: ", "interface-down",
     "the interface has no usable IPv4 address, or is down"),
    ("", r"no socket interface found", "interface-missing",
     "NCCL finds no interface that NCCL_SOCKET_IFNAME allows"),
    ("", r"Duplicate GPU|Multiple Ranks are using the same GPU", "gpu-twice",
     "two ranks use the same GPU, which NCCL refuses: start no more ranks than there are GPUs, and "
     "let each take its own (torch.cuda.set_device(LOCAL_RANK))"),
    ("", r"busy or unavailable|CUDA_ERROR_DEVICE_UNAVAILABLE", "gpu-busy",
     "another process has the GPU for itself (see its compute mode in `nvidia-smi -q`)"),
    ("", r"no kernel image is available", "gpu-architecture",
     "this torch was not built for this GPU: install a build that has its architecture"),
    ("", r"driver version is insufficient|driver on your system is too old", "driver-too-old",
     "the driver is too old for the CUDA of this torch: update it, or install a torch built for an "
     "older CUDA"),
    ("", r"CUDA (?:error: )?out of memory|Cuda failure[^\n]*out of memory", "gpu-full",
     "the memory of the GPU is full: see `nvidia-smi` for who has it"),
    ("", r"(?:/dev/shm/nccl-|shared memory)[^\n]*(?:No space left|failed to extend)|"
     r"[Ff]ailed to extend /dev/shm", "shm-too-small",
     "/dev/shm has no room for NCCL (in a container: --shm-size or --ipc=host)"),
    ("", r"Mismatched NCCL version", "nccl-versions", "ranks have different versions of NCCL"),
    ("", r"[Cc]onnection closed by (?:remote )?peer|reset by peer|Broken pipe|got 0 bytes|"
     r"[Cc]onnection was likely closed|remote process exit", "peer-left",
     "another rank ended while this one waited for it"),
    ("", r"[Tt]imed? ?out|[Tt]imeout", "timed-out", "no answer from another rank in time"),
)  # fmt: skip
_ERRNOS = {
    errno.EADDRINUSE: ("taken", "port {port} on {addr} is taken: choose another, or 0 for any"),
    errno.EADDRNOTAVAIL: (
        "not-ours",
        "{addr} is no address of this host, so no rank here can listen on it: "
        "use one of `ip -br addr`, or run the trial on the host that has it",
    ),
    errno.EACCES: ("not-permitted", "port {port} is privileged: choose one above 1023"),
    errno.EAFNOSUPPORT: ("no-family", "this host does not speak the address family of {addr}"),
    errno.EAGAIN: (
        "too-many-processes",
        "no further process may be started: raise `ulimit -u`, or end what is not needed",
    ),
    errno.ENOMEM: ("no-memory", "there is not enough memory to start a rank"),
    errno.ENOSPC: ("disk-full", "the disk of the temporary directory is full"),
    errno.EMFILE: ("too-many-files", "too many open files: raise `ulimit -n`"),
}
_KINDS = {
    "no-nccl": "this torch has no NCCL: install a CUDA build of torch, or use gloo",
    "no-gpu": "NCCL needs a GPU, and there is none that torch can use",
    "few-gpus": "NCCL needs one GPU for each rank",
    "gpu-full": "the GPU is nearly full",
    "absent": "not all ranks came to the rendezvous",
    "refused": "nothing listens at {addr} port {port}",
    "no-answer": "{addr} port {port} does not answer: a firewall drops it, or the host is down",
    "unreachable": "{addr} cannot be reached",
    "http": "a web server answers at {addr} port {port}, and no store",
    "other-store": "the store at {addr} port {port} is that of another torch version",
    "not-a-store": "something answers at {addr} port {port}, but it is no store",
    "stranger": "somebody else writes into the store",
    "wrong-sum": "the all_reduce came to a wrong sum",
    "old-torch": "this torch is too old to try another address than 127.0.0.1",
}  # fmt: skip


def explain(stage: str, event: dict[str, Any], addr: str, port: int) -> tuple[str, str]:
    """The kind of an error, and a sentence followed by the words in which it was raised."""
    raw = str(event.get("error") or "").strip()
    kind, number = str(event.get("kind") or ""), event.get("errno")
    first = _telling_line(raw)
    words = f"{event.get('type') or 'error'}: {first}"[:400]
    if kind in _KINDS:
        return kind, f"{_KINDS[kind].format(addr=addr, port=port)} ({first[:400]})"
    if kind:
        return kind, first
    if stage == "name":
        return "name-unknown", f"{addr} is not known here: no address for it ({words})"
    if isinstance(number, int) and number in _ERRNOS:
        kind, sentence = _ERRNOS[number]
        return kind, f"{sentence.format(addr=addr, port=port)} ({words})"
    for where, pattern, kind, sentence in _TEXTS:
        if where in ("", stage) and (match := re.search(pattern, raw)):
            return kind, f"{sentence.format(*match.groups(''))} ({words})"
    return "other", words


def _telling_line(raw: str) -> str:
    """The first line; of an error of NCCL what it says last, for the rest is the same for all."""
    _, mark, last = raw.partition("Last error:\n")
    lines = (last.strip() if mark and last.strip() else raw).splitlines()
    return lines[0] if lines else ""


CONSEQUENCES = frozenset({"peer-left", "timed-out", "absent", "left"})
"""What a rank says because of another: it is not the one to look at."""
