"""What probes answered in this run: which outcomes came from real parts, and for whom.

An answer counts as real where no function of ours was replaced meanwhile; a deadline or a path that
a test sets is no replacement.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddp_assist.probes.catalogue import probes
from ddp_assist.probes.model import Finding, Target

Look = Callable[[Target], Iterable[Finding]]
real: dict[str, set[str]] = {}
"""Finding keys, and the users (`root`, `nobody`) that they were told to."""
pretended: set[str] = set()
HAND_OVER = "DDP_ASSIST_ANSWERS"
_replaced = False


def note(keys: Iterable[str], uid: int) -> None:
    for key in keys:
        if _replaced:
            pretended.add(key)
        else:
            real.setdefault(key, set()).add("root" if uid == 0 else "nobody")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What looks at the answers of all others runs after them, or not at all."""
    last = [item for item in items if item.get_closest_marker("last")]
    others = [item for item in items if item not in last]
    whole = not config.args or config.args == config.getini("testpaths")
    narrowed = config.option.keyword or config.option.markexpr or config.option.deselect
    if whole and not narrowed:
        items[:] = [*others, *last]
    elif last:
        items[:] = others
        config.hook.pytest_deselected(items=last)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: looks at what all other tests heard")
    setattr_ = pytest.MonkeyPatch.setattr
    for probe in probes():
        object.__setattr__(probe, "look", _heard(probe.look))

    def replacing(self: pytest.MonkeyPatch, *given: Any, **more: Any) -> None:
        global _replaced
        owner = given[0]
        ours = getattr(owner, "__name__", "").startswith("ddp_assist") or isinstance(owner, str)
        ours = ours or owner is os or getattr(owner, "__module__", "").startswith("ddp_assist")
        _replaced = _replaced or (ours and not inspect.isclass(given[-1]) and callable(given[-1]))
        setattr_(self, *given, **more)

    pytest.MonkeyPatch.setattr = replacing  # type: ignore[method-assign]


def _heard(look: Look) -> Look:
    @functools.wraps(look)
    def looking(target: Target) -> Iterator[Finding]:
        for finding in look(target):
            note([finding.key], os.geteuid())
            yield finding

    return looking


def pytest_sessionfinish() -> None:
    """A run inside a run hands over what it saw."""
    if place := os.environ.get(HAND_OVER):
        Path(place).write_text(json.dumps({key: sorted(users) for key, users in real.items()}))


def pytest_runtest_setup() -> None:
    global _replaced
    _replaced = False
