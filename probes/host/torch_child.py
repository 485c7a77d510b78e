"""Child script: what torch this interpreter has. Python 3.8, standard library and torch.

First what its files say, then, if asked, what happens when it is imported: one JSON line each.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]
import json
import os
import re
import signal
import traceback
from typing import Any, Dict, Optional  # noqa: UP035 - runs on 3.8 too

Facts = Dict[str, Any]  # noqa: UP006


def say(facts: Facts) -> None:
    print("\n" + json.dumps(facts), flush=True)


def from_files() -> Facts:
    import importlib.util

    facts: Facts = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "executable": sys.executable,
        "prefix": sys.prefix,
    }
    spec = importlib.util.find_spec("torch")
    if spec is None:
        return dict(facts, found=False)
    from importlib import metadata

    facts.update(found=True, origin=spec.origin, nccl_packages={})
    for dist in metadata.distributions(path=_beside(spec.origin)):
        file_name = os.path.basename(str(getattr(dist, "_path", ""))).lower()
        if not file_name.startswith(("torch-", "nvidia_nccl", "nvidia-nccl")):
            continue
        name = (dist.metadata["Name"] or "").lower()
        if name == "torch":
            wants = re.compile(r"(nvidia-nccl-cu\d+)\s*\(?==\s*([\w.]+)")
            facts["version"] = dist.version
            facts["wants_nccl"] = dict(wants.findall("\n".join(dist.requires or [])))
        else:
            facts["nccl_packages"][name] = dist.version
    if spec.origin:
        facts["folder"] = os.path.dirname(spec.origin)
        facts.update(_built(facts["folder"]))
    return facts


def _beside(origin: Optional[str]) -> list[str]:  # noqa: UP045
    return [os.path.dirname(os.path.dirname(origin))] if origin else sys.path


def _built(folder: str) -> Facts:
    """torch/version.py, read and not run."""
    try:
        with open(os.path.join(folder, "version.py"), encoding="utf-8") as text:
            said = text.read(65536)
    except (OSError, UnicodeError):
        return {}
    facts: Facts = {}
    for name in ("__version__", "cuda", "hip", "xpu"):
        found = re.search(r"^%s\b[^=\n]*=\s*(?:'([^']*)'|\"([^\"]*)\"|None)" % name, said, re.M)  # noqa: UP031
        if found:
            facts[name.strip("_")] = found.group(1) or found.group(2)
    return facts


def imported() -> Facts:
    try:
        import torch
        import torch.distributed as dist
    except BaseException as error:  # noqa: BLE001 - whatever ends the import is the answer
        first: BaseException = error
        while first.__cause__ or (first.__context__ and not first.__suppress_context__):
            first = first.__cause__ or first.__context__  # type: ignore[assignment]
        frames = traceback.extract_tb(first.__traceback__)
        return {
            "imported": False,
            "error": f"{type(error).__name__}: {error}",
            "first": f"{type(first).__name__}: {first}",
            "file": frames[-1].filename if frames else None,
        }
    facts: Facts = {
        "imported": True,
        "version": str(torch.__version__),
        "distributed": dist.is_available(),
    }
    if facts["distributed"]:
        for name in ("nccl", "gloo", "mpi", "ucc"):
            ask = getattr(dist, f"is_{name}_available", None)
            facts[name] = bool(ask()) if ask else None
    if facts.get("nccl"):
        try:
            nccl: Any = torch.cuda.nccl
            version = nccl.version()
            facts["nccl_version"] = (
                ".".join(map(str, version)) if isinstance(version, tuple) else str(version)
            )
        except (RuntimeError, AttributeError, OSError) as error:
            facts["nccl_version_error"] = str(error)
    flags = getattr(getattr(torch, "_C", None), "_cuda_getArchFlags", None)
    if flags is not None:
        facts["arch"] = (flags() or "").split()
    facts["nccl_loaded"] = loaded("libnccl")
    facts["names"] = names()
    return facts


MODULES = (
    "torch", "torch.distributed", "torch.multiprocessing", "torch.nn.parallel", "torch.cuda",
    "torch.utils.data", "torch.utils.data.distributed",
)  # fmt: skip


def names() -> Facts:
    """What each of these modules has, submodules that nobody imported yet too."""
    import pkgutil

    found: Facts = {}
    for name in MODULES:
        module = sys.modules.get(name)
        if module is None or name == "torch.distributed" and not module.is_available():
            continue
        there = {n for n in dir(module) if not n.startswith("_")}
        there.update(m.name for m in pkgutil.iter_modules(getattr(module, "__path__", [])))
        found[name] = sorted(there)
    return found


def loaded(library: str) -> list[str]:
    """The files this process has mapped that bear the name."""
    try:
        with open("/proc/self/maps") as maps:
            fields = [line.split(None, 5) for line in maps if library in line]
    except OSError:
        return []
    return sorted({field[5].strip() for field in fields if len(field) == 6})


def main() -> None:
    signal.alarm(int(sys.argv[1]))
    asked = json.load(sys.stdin)
    say(from_files())
    if asked.get("import"):
        say(imported())


if __name__ == "__main__":
    main()
