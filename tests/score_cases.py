"""How often the first cause is right: `score_cases.py CASES.jsonl [--all] [--verbose]`.

A case is a line of JSON with `id`, `text`, `cause`, `accept` (causes that are right as well) and
`weak` (thin evidence, counted apart).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.append(str(Path(__file__).with_name("shared")))
from scoring import FIRST_FEW, right, told  # noqa: E402


def main(words: list[str]) -> int:
    verbose, weak_too = "--verbose" in words, "--all" in words
    table: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    with tempfile.TemporaryDirectory() as folder:
        for name in (word for word in words if not word.startswith("--")):
            for line in Path(name).read_text("utf-8").splitlines():
                case = json.loads(line)
                if case.get("weak") and not weak_too:
                    continue
                outcome = told(case["text"], Path(folder))
                causes = [cause.cause for cause in outcome.causes]
                hit, near = right(case, causes)
                row = table[case["cause"]]
                row[0] += 1
                row[1] += hit
                row[2] += near
                if verbose and not hit:
                    shown = [f"{c.cause} ({c.certainty})" for c in outcome.causes[:FIRST_FEW]]
                    keys = sorted({f.key for f in outcome.findings if f.outcome != "unknown"})
                    print(f"{case['id']}: {case['cause']}\n    said {shown}\n    saw {keys}")
    for cause, (n, first, few) in sorted(table.items()):
        print(f"{cause:<28} {n:>3} cases  first right {first:>3}  among {FIRST_FEW} {few:>3}")
    total, firsts, fews = (sum(row[i] for row in table.values()) for i in range(3))
    print(f"{'all':<28} {total:>3} cases  first right {firsts:>3}  among {FIRST_FEW} {fews:>3}")
    return 0 if total and firsts >= 0.95 * total else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
