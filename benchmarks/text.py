"""How fast the gate and the redactor are: MB/s for each kind of text, and time(2n) / time(n)."""

from __future__ import annotations

import time
from collections.abc import Callable

from measuring import keep

from ddp_assist.app.report import Redactor
from ddp_assist.probes.text import clean

KINDS = {
    "plain log": "[rank0]: step 12 loss 0.12345 lr 1e-4 and more words to read here\n",
    "colours": "\x1b[31m[rank0]\x1b[0m: step 12 loss 0.12345 lr 1e-4 and more words\n",
    "addresses": "[W1120 socket.cpp:663] connect to [10.4.2.7]:29500 from node07 failed\n",
    "secrets": "export API_TOKEN=abc123def456 url=https://u:p4ss9word@h.example/x?a=1\n",
    "words of names": "token token token key=value password: and so on, secret keys tokens/s\n",
    "open sequences": "\x1b]0;",
    "controls": "\x00\x01\x7f",
    "one long line": "abcdefgh12345678",
    "colons": "a:b:",
    "letters": "größe [rank0]: step 12 loss 0.12345 lr 1e-4 and more words to read\n",
}


def seconds(work: Callable[[str], str], text: str) -> float:
    start = time.process_time()  # one thread, and others may use the machine
    work(text)
    return time.process_time() - start


def main() -> None:
    redactor = Redactor(
        {"HF_TOKEN": "canary-value-1"}, "node07.cluster.example", "jdoe", "/home/jdoe"
    )
    rows = []
    for kind, unit in KINDS.items():
        for name, work, size in (
            ("clean", clean, 4_000_000), ("redact", redactor.text, 1_000_000)
        ):  # fmt: skip
            text = unit * (size // len(unit))
            once = min(seconds(work, text) for _ in range(3))
            twice = min(seconds(work, text * 2) for _ in range(2))
            rows.append({"what": f"{name}: {kind}", "mb_per_s": round(len(text) / once / 1e6, 1),
                         "time_of_twice": round(twice / once, 2)})  # fmt: skip
    keep("text", rows)


if __name__ == "__main__":
    main()
