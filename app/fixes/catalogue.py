"""All builders of fixes by the name that pages use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ddp_assist.app.fixes.model import Builder

MODULES = (
    "launch_edits",
    "script_edits",
    "script_loaders",
    "script_modules",
    "script_numbered",
    "script_port",
    "script_shadow",
    "processes",
)


def builders() -> Mapping[str, Builder]:
    found: dict[str, Builder] = {}
    for name in MODULES:
        found.update(import_module(f"ddp_assist.app.fixes.{name}").BUILDERS)
    return found
