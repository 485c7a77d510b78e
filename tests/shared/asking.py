"""Asks probes about a target: here, as another user, or in other namespaces."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import answers
import pytest

from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Endpoint, Finding, Probe, Target
from ddp_assist.probes.runner import run

ROOT = Path(__file__).resolve().parents[2]
TYPING = ROOT / "tests" / "typing"
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
NOBODY = 65534
AS_NOBODY = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
CHILD = """
import json, os, sys
from importlib import import_module
from pathlib import Path
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.runner import run
asked = json.load(sys.stdin)
modules = [import_module("ddp_assist.probes." + name) for name in asked["modules"]]
if words := asked["target"].pop("launch", None):
    read = read_launch(words, dict(os.environ), Path.cwd())
    asked["target"] |= {"launch": read, "plan": read.main}
found = run(
    [probe for module in modules for probe in module.PROBES],
    Target(endpoints=tuple(Endpoint(h, p, "a test") for h, p in asked["endpoints"]), **asked["target"]),
)
told = [[f.key, f.sentence, dict(f.data)] for f in found]
json.dump({"uid": os.geteuid(), "found": told}, sys.stdout)
"""  # noqa: E501

Ask = Callable[..., dict[str, Finding]]
Told = dict[str, tuple[str, dict[str, Any]]]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "as_root: the same for every user, so asked as root only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every question is asked by root and by a user without any right."""
    asks = {"ask", "ask_elsewhere"} & set(metafunc.fixturenames)
    if asks and os.geteuid() == 0 and metafunc.definition.get_closest_marker("as_root") is None:
        metafunc.parametrize("user", ["root", "nobody"], indirect=True)


@pytest.fixture
def user(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "root" if os.geteuid() == 0 else "nobody"))


@pytest.fixture
def ask(user: str, tmp_path: Path) -> Ask:
    """Findings of some probes by key."""
    tmp_path.chmod(0o755)
    return (
        asked
        if os.geteuid() != 0 or user == "root"
        else lambda *p, **t: as_nobody(tmp_path, *p, **t)
    )


def asked(
    *probes: Probe, env: Mapping[str, str] | None = None, **target: Any
) -> dict[str, Finding]:
    launch = target.pop("launch", None)
    env = {"PATH": os.environ["PATH"]} if env is None else env
    if launch is not None:
        cwd = target.setdefault("cwd", Path.cwd())
        target["launch"] = read_launch(launch, env, cwd)
        target["plan"] = target["launch"].main
    points = tuple(Endpoint(host, port, "a test") for host, port in target.pop("at", ()))
    found = run(probes, Target(env=env, endpoints=points, **target))
    return {finding.key: finding for finding in reversed(found)}


def as_nobody(folder: Path, *probes: Probe, **target: Any) -> dict[str, Finding]:
    """The same by a child that has become uid 65534 and has no capability left."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            reachable(folder)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            found: object = asked(*probes, **target)
        except BaseException:  # noqa: BLE001 - whatever happens is told to the parent
            found = traceback.format_exc()
        with os.fdopen(theirs, "wb") as out:
            pickle.dump(found, out)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as told:
        found = pickle.load(told)  # noqa: S301 - our own child wrote it
    os.waitpid(child, 0)
    assert isinstance(found, dict), found
    answers.note(found, NOBODY)
    return found


def reachable(*more: Path) -> None:
    """Gives this process a view of the files in which everybody may reach what a test needs.

    An interpreter under /root and the folder of a test are closed to others; nothing of the real
    machine changes.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
        words = (word.encode() for word in (source, str(place), kind))
        if libc.mount(*words, flags, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), f"mount {place}")

    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    for wanted in dict.fromkeys((ROOT, Path(sys.prefix), Path(sys.base_prefix), *more)):
        path = wanted.resolve()
        closed = next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)
        if closed is not None:
            kept = os.open(path, os.O_PATH)
            mount("tmpfs", closed, "tmpfs", 0, "mode=755")
            path.mkdir(parents=True)
            mount(f"/proc/self/fd/{kept}", path, "", MS_BIND | MS_REC)
            os.close(kept)


@pytest.fixture
def ask_elsewhere(user: str, tmp_path: Path) -> Callable[..., Told]:
    """The same through a command in front (unshare, setpriv, ip netns exec), as key to sentence."""

    tmp_path.chmod(0o755)

    def ask(
        before: list[str],
        *modules: str,
        at: tuple[tuple[str, int], ...] = (),
        env: Mapping[str, str] | None = None,
        **target: Any,
    ) -> Told:
        drops = os.geteuid() == 0 and user == "nobody"
        if drops and "setpriv" not in " ".join(before):
            before = [*before, *AS_NOBODY]
        done = subprocess.run(
            [*before, sys.executable, "-c", CHILD],
            input=json.dumps({"modules": modules, "endpoints": at, "target": target}),
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
                "PYTHONPATH": str(TYPING),
                **(env or {}),
            },
            check=False,
            preexec_fn=(lambda: reachable(tmp_path)) if os.geteuid() == 0 else None,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        answers.note([key for key, _, _ in said["found"]], said["uid"])
        return {key: (sentence, data) for key, sentence, data in reversed(said["found"])}

    return ask
