"""Whether a second run tells the same: each ratio against the spread that the first one printed.

    cp -r benchmarks/results /tmp/first; make bench; python benchmarks/agree.py /tmp/first
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measuring import RESULTS


def main() -> None:
    first = Path(sys.argv[1])
    inside, outside = 0, []
    for path in sorted(RESULTS.glob("*.json")):
        if not (first / path.name).exists():
            continue
        known = {(r["what"], r.get("peer")): r
                 for r in json.loads((first / path.name).read_text())["rows"]}  # fmt: skip
        for row in json.loads(path.read_text())["rows"]:
            old = known.get((row["what"], row.get("peer")))
            if old is None or "times" not in row:
                continue
            if old["times_from"] <= row["times"] <= old["times_to"]:
                inside += 1
            else:
                spread = f"{old['times_from']} to {old['times_to']}"
                outside.append(f"{row['what']} | {row['peer']}: {row['times']}, was {spread}")
    print(f"{inside} ratios lie within the first run's spread, {len(outside)} do not", *outside,
          sep="\n  ")  # fmt: skip


if __name__ == "__main__":
    main()
