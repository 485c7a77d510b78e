"""What the fuzzer calls, once a target: `python targets.py NAME SECONDS CORPUS`.

The same properties that the other tests ask of chosen and random input are asked here of input
that is made to reach new code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ddp_assist"]):
    from ddp_assist.app.report import Redactor
    from ddp_assist.probes.launch.plan import LaunchError
    from ddp_assist.probes.launch.read import read_launch
    from ddp_assist.probes.logs import plain_json, plain_pickle
    from ddp_assist.probes.text import clean, printable

OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
CANARY = "Canary7Qx-value_9"
REDACTOR = Redactor({"A_TOKEN": CANARY}, "canaryhost", "canaryuser", "/home/canaryuser")


def gate(data: bytes) -> None:
    shown = clean(data)
    assert not OBEYED.search(shown), shown
    assert clean(shown) == shown


def redaction(data: bytes) -> None:
    middle = len(data) // 2
    text = f"{data[:middle].decode('latin-1')} {CANARY} {data[middle:].decode('latin-1')}"
    shown = REDACTOR.text(text)
    assert CANARY not in shown
    assert not OBEYED.search(shown)
    assert CANARY not in REDACTOR.text(shown)


def dumps(data: bytes) -> None:
    for read, refused in (
        (plain_pickle.plain, plain_pickle.Refused), (plain_json.load, plain_json.NotPlain)
    ):  # fmt: skip
        try:
            read(data)
        except refused:
            continue


def emission(data: bytes) -> None:
    given = [word.decode("utf-8", "replace") for word in data.split(b"\0") if word]
    words = ["torchrun", *(word for word in given if printable(word))]
    try:
        line = read_launch(words, {}, Path("/")).text
    except LaunchError:
        return
    said = subprocess.run(["dash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert said.stdout.decode().split("\0")[:-1] == words, line


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gate": gate, "redaction": redaction, "dumps": dumps, "emission": emission
}  # fmt: skip

if __name__ == "__main__":
    name, seconds, corpus = sys.argv[1:]
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=600", corpus],
        TARGETS[name],
    )
    atheris.Fuzz()
