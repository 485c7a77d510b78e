"""Which Python the launch will really use: the launcher's own, the environment's, or another."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ddp_assist.probes.host.processes import look, read
from ddp_assist.probes.host.words import brief
from ddp_assist.probes.model import Evidence, Finding, Probe, Target

PYTHON = re.compile(r"^(python|pypy)[\d.]*(-dbg)?$")
# pip writes this where the path is too long for the kernel: the shell runs the second line.
LONG_SHEBANG = re.compile(rb"^#!/bin/sh\r?\n'''exec' \"?([^\"\n]+?)\"? \"\$0\"")


def environment(target: Target) -> Mapping[str, str]:
    return target.plan.environment(target.env) if target.plan else target.env


def which(word: str, env: Mapping[str, str], cwd: Path) -> str | None:
    """The file that a shell would run for `word`; PATH entries may be relative to `cwd`."""
    if "\0" in word:
        return None
    if "/" in word:
        return shutil.which(str(cwd / word))
    folders = [str(cwd / folder) for folder in env.get("PATH", os.defpath).split(os.pathsep)]
    return shutil.which(word, path=os.pathsep.join(folders))


def shebang(program: str, env: Mapping[str, str], cwd: Path) -> str | None:
    """The Python that runs this script, None where it is no Python script (a wrapper, a binary)."""
    start = read(program, 1024) or b""
    if long := LONG_SHEBANG.match(start):
        return os.fsdecode(long[1])
    if not start.startswith(b"#!"):
        return None
    words = os.fsdecode(start[2:].partition(b"\n")[0]).split()
    if words and os.path.basename(words[0]) == "env":
        words = [w for w in words[1:] if not w.startswith("-") and "=" not in w][:1]
        words = [which(words[0], env, cwd) or ""] if words else []
    return words[0] if words and PYTHON.match(os.path.basename(words[0])) else None


ENVIRONMENTS = re.compile(
    r"(conda|mamba|micromamba|poetry|uv|pdm|pipenv|rye|pixi|hatch|docker|podman|nerdctl|singularity"
    r"|apptainer|enroot|shifter|ch-run|sudo|su|runuser|doas|chroot|nix|nix-shell|guix|direnv|spack)$"
)
"""Words in front of a launcher behind which another Python may stand under the same name."""


def of_launch(target: Target) -> str | None:
    """The Python that will run the script, where the launch leaves no doubt."""
    if target.python:
        return target.python
    plan = target.plan
    if plan is None or not plan.words or "PATH" in plan.unclear:
        return None
    boxed = any(o.name.endswith(("container", "container-image")) for o in plan.options)
    if boxed or any(ENVIRONMENTS.match(os.path.basename(word)) for word in plan.prefix):
        return None
    env = environment(target)
    word = env.get("PYTHON_EXEC") or plan.python
    if "/" not in (word or plan.words[0]) and "PATH" not in env:
        return None
    if word:
        return which(word, env, plan.cwd)
    program = which(plan.words[0], env, plan.cwd)
    return shebang(program, env, plan.cwd) if program else None


def of_shell(target: Target) -> str | None:
    """What `python` means beside a launcher whose own Python is another."""
    plan, env = target.plan, environment(target)
    if plan is None or plan.python is not None:
        return None
    active = _in(env.get("VIRTUAL_ENV")) or _in(env.get("CONDA_PREFIX"))
    python = active or which("python", env, plan.cwd) or which("python3", env, plan.cwd)
    own = of_launch(target)
    return python if python and own and _home(python) != _home(own) else None


def startable(env: Mapping[str, str]) -> dict[str, str]:
    """What a process can be started with at all."""
    return {
        k: v
        for k, v in env.items()
        if k and "=" not in k and "\0" not in k + v and len(v) < 100_000
    }


def interpreter(target: Target) -> str | None:
    """The Python to ask about torch: the one that the launch, the job or the shell would use."""
    if target.python:
        return target.python
    plan, env = target.plan, environment(target)
    if plan:
        if plan.python:
            return which(plan.python, env, plan.cwd)
        program = which(plan.words[0], env, plan.cwd) if plan.words else None
        if program and (found := shebang(program, env, plan.cwd)):
            return found
    if target.job and (job := look(target.job)) and job.exe:
        virtual = (job.environ or {}).get("VIRTUAL_ENV")
        word = (job.argv or ("",))[0]
        if word.startswith("/") and PYTHON.match(os.path.basename(word)):
            return word
        if PYTHON.match(os.path.basename(job.exe)):
            return _in(virtual) or job.exe
    active = _in(env.get("VIRTUAL_ENV")) or _in(env.get("CONDA_PREFIX"))
    if active or plan is None:
        return active or sys.executable
    return which("python3", env, plan.cwd) or which("python", env, plan.cwd) or sys.executable


def _in(prefix: str | None) -> str | None:
    python = f"{prefix}/bin/python"
    return python if prefix and os.access(python, os.X_OK) else None


def _home(python: str) -> str:
    """The environment an interpreter belongs to; its link is not followed, or a venv is lost."""
    return os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(python))))


def _look(target: Target) -> Iterator[Finding]:
    plan, env = target.plan, environment(target)
    if not plan or not plan.words:
        python = interpreter(target)
        sentence = f"the Python asked here is {brief(python or 'none')}"
        yield Finding("python", "fine", sentence, {"interpreter": python and brief(python, 400)})
        return
    word = plan.words[0]
    program = which(word, env, plan.cwd)
    shown = brief(word)
    if program is None:
        sentence = (
            f"{shown} is not found on PATH" if "/" not in word else f"there is no program {shown}"
        )
        see = (Evidence("PATH", see=("which", "-a", shown)),)
        yield Finding("python", "not-found", sentence, {"program": shown}, see)
        return
    runs = program if PYTHON.match(os.path.basename(program)) else shebang(program, env, plan.cwd)
    runs = env.get("PYTHON_EXEC") or runs
    active = env.get("VIRTUAL_ENV") or env.get("CONDA_PREFIX")
    path_python = which("python", env, plan.cwd) or which("python3", env, plan.cwd)
    data = {
        "program": brief(program, 400),
        "interpreter": runs and brief(runs, 400),
        "active": active and brief(active, 400),
        "python_on_path": path_python and brief(path_python, 400),
    }
    see = (Evidence("PATH", see=("head", "-1", brief(program, 400))),)
    if runs is None:
        sentence = f"{brief(program)} is a wrapper, so its Python can't be told"
        yield Finding("python", "wrapper", sentence, data, see)
    elif not os.access(runs, os.X_OK):
        sentence = f"{brief(program)} wants {brief(runs)}, which is not there"
        yield Finding("python", "not-found", sentence, data, see)
    elif active and os.path.isdir(active) and _home(runs) != os.path.realpath(active):
        sentence = (
            f"{shown} runs {brief(runs)}, which is not of the active environment {brief(active)}"
        )
        yield Finding("python", "other-launcher", sentence, data, see)
    elif not active and program != path_python and path_python and _differ(runs, path_python):
        sentence = f"{shown} runs {brief(runs)}, while `python` is {brief(path_python)}"
        outcome = "other-launcher" if "/" not in word else "two-pythons"
        yield Finding("python", outcome, sentence, data, see)
    else:
        yield Finding("python", "fine", f"{shown} runs {brief(runs)}", data, see)


def _differ(one: str, other: str) -> bool:
    """Whether two interpreters have their packages in different places."""
    if os.path.basename(os.path.dirname(other)) == "shims":
        return False
    return _home(one) != _home(other) and os.path.realpath(one) != os.path.realpath(other)


PYTHON_PROBE = Probe(
    "python",
    "Which Python will the launch use?",
    {
        "fine": "ok",
        "other-launcher": "bad",
        "not-found": "bad",
        "wrapper": "info",
        "two-pythons": "info",
    },
    _look,
)
PROBES: tuple[Probe, ...] = (PYTHON_PROBE,)
