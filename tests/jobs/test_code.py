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
