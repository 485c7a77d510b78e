"""Asks one probe about a target, here or in a child with other rights or namespaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Endpoint, Finding, Probe, Target
from ddp_assist.probes.runner import run

TYPING = Path(__file__).resolve().parent.parent / "typing"
CHILD = """
import json, sys
from importlib import import_module
from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.runner import run
asked = json.load(sys.stdin)
modules = [import_module("ddp_assist.probes." + name) for name in asked["modules"]]
found = run(
    [probe for module in modules for probe in module.PROBES],
    Target(endpoints=tuple(Endpoint(h, p, "a test") for h, p in asked["endpoints"])),
)
json.dump([[f.key, f.sentence, dict(f.data)] for f in found], sys.stdout)
"""

Ask = Callable[..., dict[str, Finding]]


@pytest.fixture
def ask() -> Ask:
    """Findings of some probes by key."""

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

    return asked


@pytest.fixture
def ask_elsewhere() -> Callable[..., dict[str, tuple[str, dict[str, Any]]]]:
    """The same through a command in front (unshare, setpriv, ip netns exec), as key to sentence."""

    def asked(
        before: list[str],
        *modules: str,
        at: tuple[tuple[str, int], ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> dict[str, tuple[str, dict[str, Any]]]:
        done = subprocess.run(
            [*before, sys.executable, "-c", CHILD],
            input=json.dumps({"modules": modules, "endpoints": at}),
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
        return {key: (sentence, data) for key, sentence, data in reversed(json.loads(done.stdout))}

    return asked
