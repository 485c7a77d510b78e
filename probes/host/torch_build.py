"""The torch of the launch's Python: is it there, what was it built with, does it import?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ddp_assist.probes.child import Answer, ask
from ddp_assist.probes.host.python import environment, interpreter, startable
from ddp_assist.probes.host.shadow import folders, shadows
from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.model import Evidence, Finding, Probe, Target, unknown

FACTS = Path(__file__).with_name("torch_child.py")
OLDEST = (1, 13)
DEADLINE = 45.0
STEERS_IMPORT = ("PYTHON", "LD_", "DYLD_", "CUDA", "NCCL", "TORCH", "HOME", "VIRTUAL_ENV", "CONDA")
_KNOWN: dict[tuple[str, bool, frozenset[tuple[str, str]]], tuple[Answer, tuple[int, int]]] = {}


def _look(target: Target) -> Iterator[Finding]:
    shadowed = list(_shadowed(target))
    yield from shadowed
    python = interpreter(target)
    if python is None:
        yield unknown("torch", "the launch's Python is not found")
        return
    env = environment(target)
    answer = _asked(python, startable(env), _is_wanted(target))
    shown = brief(python)
    see = (
        Evidence(
            shown, see=(python, "-c", "import torch; print(torch.__version__, torch.__file__)")
        ),
    )
    facts = [v for v in answer.values if isinstance(v, dict)]
    files = next((v for v in facts if "found" in v), None)
    after = next((v for v in facts if "imported" in v), None)
    if files is None:
        yield unknown(
            "torch", f"{shown} did not tell: {answer.because or brief(answer.said)}", *see
        )
        return
    if not files["found"]:
        sentence = f"{shown} (Python {brief(files['python'])}) has no torch"
        asked = target.plan or target.script or target.python or target.job
        yield Finding(
            "torch", "missing" if asked else "absent", sentence, {"interpreter": shown}, see
        )
        return
    data = _data(files, after, shown)
    found = [*_versions(files, after, target.backend, data, see)]
    if files.get("cuda") and (two := _nccl(files, after, env, data, see)):
        found.append(two)
    if after is None and _is_wanted(target):
        found.append(
            _not_imported(answer.ended, answer.because, answer.said, answer.code, data, see)
        )
    elif after and not after["imported"]:
        sentence = f"import torch fails: {brief(after['first'], 240)}"
        evidence = Evidence(
            brief(after.get("file") or "import"), (brief(after["error"], 300),), see[0].see
        )
        extra = {"error": brief(after["first"], 400), "file": brief(after.get("file") or "", 400)}
        found.append(Finding("torch", "broken-import", sentence, data | extra, (evidence,)))
    elif after and not after["distributed"]:
        sentence = f"torch {data['version']} was built without torch.distributed"
        found.append(Finding("torch", "no-distributed", sentence, data, see))
    elif after:
        # The readers of scripts do not travel to the nodes of a fleet, where nothing is imported.
        from ddp_assist.probes.host.torch_names import lacking

        found += lacking(target, after.get("names") or {}, data)
    yield from found
    built = (
        f"CUDA {data['cuda']}" if data["cuda"] else f"ROCm {data['hip']}" if data["hip"] else "CPU"
    )
    if all(f.outcome == "without-nccl" for f in found) and not [
        f for f in shadowed if f.outcome == "shadowed-module"
    ]:
        yield Finding("torch", "fine", f"torch {data['version']} for {built} in {shown}", data, see)


def _asked(python: str, env: Mapping[str, str], wanted: bool) -> Answer:
    """What its torch says; a look with a fix in place need not import the same torch again."""
    steering = frozenset((k, v) for k, v in env.items() if k.startswith(STEERS_IMPORT))
    key = (python, wanted, steering)
    known = _KNOWN.get(key)
    if known is not None and known[1] == _stamp(known[0]):
        return known[0]
    answer = ask(
        FACTS,
        {"import": wanted},
        deadline=DEADLINE - 2,
        python=python,
        isolated=False,
        env=env,
        cwd=Path("/"),
    )
    stamp = _stamp(answer)
    if answer.ended == "well" and stamp is not None:
        _KNOWN[key] = (answer, stamp)
    return answer


def _stamp(answer: Answer) -> tuple[int, int] | None:
    """Tells an installed torch from the one that is installed over it."""
    folder = next((v.get("folder") for v in answer.values if isinstance(v, dict)), None)
    try:
        status = os.stat(folder) if folder else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns) if status else None


def _is_wanted(target: Target) -> bool:
    """Importing takes seconds: only where there is something to run, never for a mere look."""
    return target.plan is not None or target.script is not None


def _data(files: Mapping[str, Any], after: Mapping[str, Any] | None, shown: str) -> dict[str, Any]:
    found = dict(files) | dict(after or {})
    keys = ("version", "cuda", "hip", "python", "distributed", "nccl", "gloo", "nccl_version")
    data = {key: brief(v) if isinstance(v := found.get(key), str) else v for key in keys}
    data["arch"] = [brief(str(name), 40) for name in found.get("arch") or ()][:64]
    data |= {"interpreter": shown, "folder": brief(files.get("folder") or "", 400)}
    data["version"] = data["version"] or brief(files.get("version") or "?")
    return data


def _versions(
    files: Mapping[str, Any],
    after: Mapping[str, Any] | None,
    backend: str | None,
    data: dict[str, Any],
    see: tuple[Evidence, ...],
) -> Iterator[Finding]:
    number = re.match(r"(\d+)\.(\d+)", data["version"])
    if number and (int(number[1]), int(number[2])) < OLDEST:
        sentence = f"torch {data['version']} is older than {OLDEST[0]}.{OLDEST[1]}"
        yield Finding("torch", "too-old", sentence, data, see)
    has_nccl = after.get("nccl") if after and after.get("imported") else None
    if has_nccl is None and files.get("version"):
        has_nccl = bool(files.get("cuda") or files.get("hip") or not files.get("folder"))
    if has_nccl is False:
        outcome = "no-nccl" if backend and "nccl" in backend else "without-nccl"
        yield Finding("torch", outcome, f"torch {data['version']} has no NCCL in it", data, see)


def _nccl(
    files: Mapping[str, Any],
    after: Mapping[str, Any] | None,
    env: Mapping[str, str],
    data: dict[str, Any],
    see: tuple[Evidence, ...],
) -> Finding | None:
    """Which libnccl would be loaded, against the one this torch was built with."""
    has, wants = files.get("nccl_packages") or {}, files.get("wants_nccl") or {}
    loaded = [brief(path, 400) for path in (after or {}).get("nccl_loaded", ())]
    for name, version in wants.items():
        if has.get(name) not in (None, version):
            sentence = (
                f"torch wants {brief(name)} {brief(version)}, but {brief(has[name])} is installed"
            )
            return Finding("torch", "two-nccl", sentence, data | {"nccl_packages": has}, see)
    foreign = [lib for entry in env.get("LD_PRELOAD", "").split() if "libnccl" in (lib := entry)]
    foreign += [
        path
        for folder in env.get("LD_LIBRARY_PATH", "").split(os.pathsep)
        if folder
        and "\0" not in folder
        and os.path.exists(path := os.path.join(folder, "libnccl.so.2"))
    ]
    own = f"{os.sep}nvidia{os.sep}nccl{os.sep}"
    strange = [path for path in loaded if own not in path and data["folder"] not in path]
    if len(loaded) > 1 or (wants and strange):
        sentence = f"torch loads {several(loaded)}"
        return Finding("torch", "two-nccl", sentence, data | {"loaded": loaded}, see)
    if foreign and wants and not loaded:
        sentence = (
            f"another NCCL, {brief(foreign[0])}, stands in front of the one torch was built with"
        )
        extra = {"loaded": [brief(path, 400) for path in foreign]}
        return Finding("torch", "two-nccl", sentence, data | extra, see)
    if len(has) > 1:
        sentence = f"{several(has)} are installed side by side"
        return Finding("torch", "nccl-packages", sentence, data | {"nccl_packages": has}, see)
    return None


def _not_imported(
    ended: str,
    because: str,
    said: str,
    code: int | None,
    data: dict[str, Any],
    see: tuple[Evidence, ...],
) -> Finding:
    if ended == "died" and code is not None and code < 0:
        sentence = f"import torch ends with a crash: {because}"
        lines = tuple(brief(line, 300) for line in said.splitlines()[-6:])
        evidence = Evidence("import torch", lines, see[0].see)
        return Finding("torch", "broken-import", sentence, data | {"error": because}, (evidence,))
    return unknown("torch", f"import torch gave no answer: {because or brief(said)}", *see)


def _shadowed(target: Target) -> Iterator[Finding]:
    seen: set[Path] = set()
    for folder in folders(target):
        for name, path, meets in shadows(folder):
            if path in seen:
                continue
            seen.add(path)
            shown = brief(str(path), 200)
            data = {"module": name, "file": shown, "folder": brief(str(folder), 200)}
            see = (Evidence(shown, see=("ls", "-l", shown)),)
            so = (
                "so import torch finds the wrong one"
                if meets
                else "but torch does not need that one"
            )
            sentence = f"{shown} has the name of the module {name}, {so}"
            yield Finding(
                "torch", "shadowed-module" if meets else "shadowed-other", sentence, data, see
            )


TORCH = Probe(
    "torch",
    "Is torch there, does it import, and what was it built with?",
    {
        "fine": "ok",
        "missing": "bad",
        "absent": "info",
        "broken-import": "bad",
        "no-distributed": "bad",
        "no-nccl": "bad",
        "without-nccl": "info",
        "too-old": "bad",
        "lacks": "bad",
        "misnamed": "bad",
        "shadowed-module": "bad",
        "two-nccl": "bad",
        "shadowed-other": "info",
        "nccl-packages": "info",
    },
    _look,
    deadline=DEADLINE,
)
PROBES: tuple[Probe, ...] = (TORCH,)
