"""Every answer that a probe of this host may give was given in a test, by real parts, to everybody.

It runs last, and only where the whole suite does: it looks at what the other tests heard.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import answers
import pytest

from ddp_assist.probes.catalogue import probes

AREAS = ("ddp_assist.probes.host.", "ddp_assist.probes.network.", "ddp_assist.probes.gpu.")
OF_THE_DAY = frozenset({"memory", "kernel-log"})
"""Probes of the machine's memory and log: what they say depends on who else works here."""
NOT_HERE: Mapping[str, str] = {
    "limits.memlock-low": "needs an RDMA card",
    "ports.conntrack-full": "the table is one for the whole machine",
    "endpoint.failed": "no error of connect() is left for it that this kernel gives on demand",
    "left-overs.d-state": "nobody can hang in the kernel on demand",
    "place.bare": "the machine of the tests may be a container itself",
}
"""Heard only where a part of ours was replaced."""
ROOT_ONLY: Mapping[str, str] = {
    "firewall.perhaps": "only root may read the rules",
    "torch.lacks": "an import is the same for every user",
    "torch.misnamed": "an import is the same for every user",
}
NOBODY_ONLY: Mapping[str, str] = {
    "limits.nproc-low": "root has no such limit",
    "left-overs.hidden": "nothing is hidden from root",
    "port.privileged": "root may bind every port",
}


def declared() -> set[str]:
    ours = [probe for probe in probes() if probe.look.__module__.startswith(AREAS)]
    keys = {f"{probe.id}.{outcome}" for probe in ours for outcome in probe.outcomes}
    return {key for key in keys if key.partition(".")[0] not in OF_THE_DAY}


@pytest.mark.last
@pytest.mark.needs("namespaces", "setpriv")
def test_every_outcome_was_heard() -> None:
    known = declared()
    for exempt in (NOT_HERE, ROOT_ONLY, NOBODY_ONLY):
        assert not exempt.keys() - known, "an excuse for what no probe says"
    assert known - answers.real.keys() - NOT_HERE.keys() == set()


@pytest.mark.last
@pytest.mark.needs("namespaces", "setpriv")
@pytest.mark.parametrize(("user", "excused"), [("root", NOBODY_ONLY), ("nobody", ROOT_ONLY)])
def test_every_outcome_was_heard_by_everybody(user: str, excused: Mapping[str, str]) -> None:
    assert os.geteuid() == 0
    heard = {key for key, users in answers.real.items() if user in users}
    assert declared() - heard - NOT_HERE.keys() - excused.keys() == set()
