"""What `ddp-assist run` costs a job that goes well: start and end of an empty script, with it and
without, in wall time and in time of the processor, which a busy machine does not change.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import OURS, command, in_turn, keep, row

ROUNDS = 9


def cpu(what: Callable[[], object]) -> float:
    """Of the processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    what()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "train.py")
        script.write_text("")
        job = [sys.executable, str(script)]
        sides = {"run": command(*OURS, "run", "--", *job), "alone": command(*job)}
        took = in_turn(sides, ROUNDS)
        used = {name: [cpu(what) for _ in range(ROUNDS)] for name, what in sides.items()}
    added = statistics.median(a - b for a, b in zip(took["run"], took["alone"], strict=True))
    worked = statistics.median(used["run"]) - statistics.median(used["alone"])
    keep("run", [row(
        "an empty script under `ddp-assist run`", "the script alone", took["run"], took["alone"],
        added_s=round(added, 3), added_cpu_s=round(worked, 3),
    )])  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
