"""Each fault is staged live, named, and cured; where nothing is wrong, nothing is named.

Every test run does a part of every family; `make proof` does all moments, and variations of each.
"""

from __future__ import annotations

import pytest
from live_fault import MOMENTS, Fault, Moment, Variation, faults, variations
from live_proof import Row, hosts, look

Cell = tuple[Fault, Moment, Variation, str]


def cells() -> list[Cell]:
    return [
        (fault, moment, how, host)
        for fault in faults().values()
        for moment in fault.part
        for how in variations(fault, moment, 0)
        for host in hosts(fault, moment)[:1]
    ]


def name(cell: Cell) -> str:
    fault, moment, _, host = cell
    return "-".join(filter(None, (fault.id, moment, host)))


@pytest.mark.needs("namespaces", "ip", "nft", "setpriv")
@pytest.mark.parametrize("cell", cells(), ids=name)
def test_named_and_cured(cell: Cell, rows: list[Row]) -> None:
    fault, moment, how, host = cell
    row = look(fault, moment, how, host)
    rows.append(row)
    assert not row.problems, row.line()


def test_every_family_has_a_part() -> None:
    families = {fault.family for fault in faults().values()}
    assert {fault.family for fault in faults().values() if fault.part} == families


@pytest.mark.parametrize("fault", faults().values(), ids=lambda fault: fault.id)
def test_a_fault_says_what_it_must(fault: Fault) -> None:
    assert set(fault.part) <= set(fault.moments) <= set(MOMENTS) and fault.moments
    assert not set(fault.never) & fault.right
    varied = fault.varied(Variation(port=23333, ranks=3))
    assert "@" not in varied.launch.replace("@main", "")
