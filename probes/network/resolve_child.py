"""Child script: asks the resolver for names and for reverse names. Python 3.8, standard library."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.isolated:
    del sys.path[0]
import json
import signal
import socket
import time
from typing import Any, Callable, Dict  # noqa: UP035 - runs on 3.8 too

Facts = Dict[str, Any]  # noqa: UP006


def timed(kind: str, word: str, look: Callable[[str], Facts]) -> None:
    began = time.monotonic()
    answer: Facts = {"kind": kind, "word": word}
    try:
        answer.update(look(word))
    except socket.gaierror as error:
        answer.update(code=error.errno, error=error.strerror)
    except (OSError, UnicodeError, ValueError) as error:
        answer.update(code=0, error=str(error))
    answer["seconds"] = time.monotonic() - began
    print(json.dumps(answer), flush=True)


def forward(name: str) -> Facts:
    found = socket.getaddrinfo(name, None, 0, socket.SOCK_STREAM)
    return {"addresses": list(dict.fromkeys(str(entry[4][0]) for entry in found))}


def reverse(address: str) -> Facts:
    return {"name": socket.getnameinfo((address, 0), 0)[0]}


def main() -> None:
    signal.alarm(int(sys.argv[1]))
    asked = json.load(sys.stdin)
    for name in asked.get("names", []):
        timed("name", name, forward)
    for address in asked.get("reverse", []):
        timed("reverse", address, reverse)


if __name__ == "__main__":
    main()
