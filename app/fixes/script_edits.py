"""Corrections of training scripts: one builder a cure, each a span edit that is read again."""

from __future__ import annotations

from collections.abc import Mapping

from ddp_assist.app.fixes import (
    script_code,
    script_collectives,
    script_devices,
    script_functions,
    script_groups,
    script_held,
    script_hosts,
    script_meeting,
    script_modules,
    script_processes,
    script_stores,
)
from ddp_assist.app.fixes.model import Builder
from ddp_assist.app.fixes.script_draft import Cure

CURES: Mapping[str, Cure] = {
    **script_meeting.CURES,
    **script_groups.CURES,
    **script_held.CURES,
    **script_hosts.CURES,
    **script_stores.CURES,
    **script_processes.CURES,
    **script_functions.CURES,
    **script_collectives.CURES,
    **script_devices.CURES,
    **script_code.CURES,
    **script_modules.CURES,
}
BUILDERS: Mapping[str, Builder] = {name: cure.build for name, cure in CURES.items()}
