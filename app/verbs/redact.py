"""`ddp-assist redact`: a log without its secrets and identities."""

from __future__ import annotations

import os
import sys

from ddp_assist.app.cli import OK, UNREADABLE, Wrong
from ddp_assist.app.options import parser


def run(verb: str, words: list[str]) -> int:
    from ddp_assist.app.report.redact import Redactor, redact_stream

    p = parser(verb, "A log without its secrets and identities, on stdout; counts on stderr.")
    p.add_argument("--hostname", metavar="H", help="a host name to hide (default: this host's)")
    p.add_argument("--user", metavar="U", help="a user name to hide (default: yours)")
    p.add_argument("--home", metavar="D", help="a home folder to hide (default: yours)")
    p.add_argument("file", metavar="FILE|-")
    given = p.parse_args(words)
    import getpass
    import socket

    redactor = Redactor(
        env=os.environ,
        hostname=given.hostname or socket.gethostname(),
        user=given.user or getpass.getuser(),
        home=given.home or os.path.expanduser("~"),
    )
    try:
        if given.file == "-":
            redact_stream(sys.stdin.buffer, sys.stdout.buffer, redactor)
        else:
            with open(given.file, "rb") as log:
                redact_stream(log, sys.stdout.buffer, redactor)
    except OSError as why:
        raise Wrong(f"{given.file} can't be read: {why.strerror}", UNREADABLE) from why
    sys.stdout.flush()
    hidden = ", ".join(f"{kind} {n}" for kind, n in sorted(redactor.counts.items())) or "nothing"
    print(f"hidden: {hidden}. This is no guarantee: read it before posting.", file=sys.stderr)
    return OK
