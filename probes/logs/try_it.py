"""What matches in a log, line by line: `python -m ddp_assist.probes.logs.try_it FILE|-`."""

from __future__ import annotations

import sys
from pathlib import Path

from ddp_assist.probes.logs.scan import scanner
from ddp_assist.probes.logs.signatures import problems


def main(words: list[str]) -> int:
    if words == ["--problems"]:
        wrong = problems()
        print("\n".join(wrong) or "every signature keeps its promises")
        return 1 if wrong else 0
    for name in words or ["-"]:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        for hit in scanner().scan_bytes(data):
            shown = hit.text.decode("utf-8", "backslashreplace")[:160]
            print(f"{name}:{hit.line}: [{hit.signature.weight}] {hit.signature.id}")
            print(f"    {ascii(shown)}")
            print(f"    {hit.signature.sentence(hit.groups)}  {hit.groups or ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
