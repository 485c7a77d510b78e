"""Asks probes about a target: here, as another user, or in other namespaces."""

from __future__ import annotations

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

TYPING = Path(__file__).resolve().parent.parent / "typing"
NOBODY = 65534
AS_NOBODY = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
CHILD = """
import json, os, sys
from importlib import import_module
from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.runner import run
asked = json.load(sys.stdin)
modules = [import_module("ddp_assist.probes." + name) for name in asked["modules"]]
found = run(
    [probe for module in modules for probe in module.PROBES],
    Target(endpoints=tuple(Endpoint(h, p, "a test") for h, p in asked["endpoints"]), **asked["target"]),
)
told = [[f.key, f.sentence, dict(f.data)] for f in found]
json.dump({"uid": os.geteuid(), "found": told}, sys.stdout)
"""  # noqa: E501

Ask = Callable[..., dict[str, Finding]]
Told = dict[str, tuple[str, dict[str, Any]]]


@pytest.fixture
def ask() -> Ask:
    """Findings of some probes by key."""
    return asked


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


@pytest.fixture
def ask_as_nobody() -> Ask:
    """The same by a child that has become uid 65534 and has no capability left."""

    def ask(*probes: Probe, **target: Any) -> dict[str, Finding]:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
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

    return ask


@pytest.fixture
def ask_elsewhere() -> Callable[..., Told]:
    """The same through a command in front (unshare, setpriv, ip netns exec), as key to sentence."""

    def ask(
        before: list[str],
        *modules: str,
        at: tuple[tuple[str, int], ...] = (),
        env: Mapping[str, str] | None = None,
        **target: Any,
    ) -> Told:
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
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        answers.note([key for key, _, _ in said["found"]], said["uid"])
        return {key: (sentence, data) for key, sentence, data in reversed(said["found"])}

    return ask
