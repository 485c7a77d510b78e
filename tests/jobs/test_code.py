"""Where two ranks parted, from the lines of the script they stand at."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddp_assist.probes.jobs.code import parting
from ddp_assist.probes.jobs.stacks import Spot

LOOP = """
for step in range(3):
    {test}
        reduce()
barrier()
"""


@pytest.mark.parametrize(
    ("test", "how"), [("if rank == 0:", "branch"), ("if step % 2 == 0:", "left-loop")]
)
def test_a_branch_in_the_loop_that_asks_for_the_rank(
    tmp_path: Path, test: str, how: str
) -> None:
    script = tmp_path / "t.py"
    script.write_text(LOOP.format(test=test))
    there = [Spot(str(script), line, "<module>") for line in (5, 4)]
    assert parting(there[:1], there[1:]).how == how


WAYS = """
def share(x):
    if rank != 2:
        broadcast(x)
def prepare():
    run(["make-cache"])
if rank == 0:
    prepare()
barrier()
share(1)
if cached():
    load()
else:
    build()
barrier()
"""
AT = {
    "prepare": ((8, "<module>"), (6, "prepare")), "first barrier": ((9, "<module>"),),
    "in share": ((10, "<module>"), (4, "share")), "load": ((12, "<module>"),),
    "build": ((14, "<module>"),), "second barrier": ((15, "<module>"),),
}  # fmt: skip


@pytest.mark.parametrize(("odd", "others", "how", "text"), [
    ("prepare", "first barrier", "own-branch", "if rank == 0:"),
    ("first barrier", "prepare", "branch", "if rank == 0:"),
    ("second barrier", "in share", "branch", "if rank != 2:"),
    ("load", "build", "branches", "if cached():"),
    ("first barrier", "second barrier", "", ""),
])  # fmt: skip
def test_whose_branch_it_is(
    tmp_path: Path, odd: str, others: str, how: str, text: str
) -> None:
    script = tmp_path / "t.py"
    script.write_text(WAYS)

    def spots(name: str) -> list[Spot]:
        return [Spot(str(script), line, function) for line, function in reversed(AT[name])]

    found = parting(spots(odd), spots(others))
    assert (found.how, found.text) == (how, text)
