"""The command line: reads the words, calls one verb. Nothing heavy is imported early."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from ddp_assist import __version__

CI = "CI is set"
OK, FOUND, USAGE, UNREADABLE, INTERNAL, INCONCLUSIVE, DEADLINE = 0, 1, 2, 3, 4, 5, 124

VERBS: dict[str, tuple[str, str]] = {
    "diagnose": ("diagnose", "find the cause without a screen"),
    "run": ("run", "run a launch, and diagnose it when it fails or hangs"),
    "check": ("check", "ask this host everything, no symptom needed"),
    "trial": ("trial", "let ranks meet here and do one all_reduce"),
    "fleet": ("fleet", "ask every node, compare, and let them meet"),
    "jobs": ("jobs", "the distributed jobs alive on this host"),
    "explain": ("explain", "the page of a cause"),
    "redact": ("redact", "a log without its secrets and identities"),
    "cases": ("cases", "the saved cases"),
    "resume": ("cases", "go on with a saved case"),
    "report": ("cases", "a saved case as a report"),
    "replay": ("cases", "a saved case concluded again, without the machine"),
}


def usage() -> str:
    lines = [
        "usage: ddp-assist [--log F] [--script F] [-- LAUNCH...]     the guided session",
        "       ddp-assist VERB ...                                  without a screen",
        "",
        "Finds out why a PyTorch distributed job does not start, or hangs.",
        "",
    ]
    lines += [f"  {verb:<9} {what}" for verb, (_, what) in VERBS.items()]
    lines += ["", "ddp-assist VERB --help says more. --version prints the version.", ""]
    return "\n".join(lines)


class Wrong(Exception):
    """The words of the user are off; one sentence and the exit code."""

    def __init__(self, sentence: str, code: int = USAGE) -> None:
        super().__init__(sentence)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(words)
    except Wrong as wrong:
        print(f"ddp-assist: {wrong}", file=sys.stderr)
        return wrong.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as fault:  # noqa: BLE001 - the last net: a crash file instead of a traceback
        if os.environ.get("DDP_ASSIST_DEBUG"):
            raise
        from ddp_assist.app.report.crash import write_crash

        path = write_crash(fault, words)
        print(f"ddp-assist: internal error: {type(fault).__name__}", file=sys.stderr)
        print(f"  what happened is in {path} (redacted)", file=sys.stderr)
        return INTERNAL


def _main(words: list[str]) -> int:
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        print(usage(), end="")
        return OK
    if first == "--version":
        print(f"ddp-assist {__version__}")
        return OK
    if first in VERBS:
        module, _ = VERBS[first]
        verb: Callable[[str, list[str]], int] = import_module(f"ddp_assist.app.verbs.{module}").run
        return verb(first, words[1:])
    if first and not first.startswith("-"):
        from difflib import get_close_matches

        near = get_close_matches(first, VERBS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Wrong(f"there is no verb {first!r}{hint} (see ddp-assist --help)")
    return _guided(words)


def _guided(words: list[str]) -> int:
    from ddp_assist.app.options import guided

    options = guided(words)
    why = no_screen()
    if why and not (options.demo and why == CI):
        raise Wrong(f"{why}, so there is no guided session here: use `ddp-assist diagnose`")
    guard = import_module("ddp_assist.app.tui_guard")
    code: int = guard.start(options)
    return code


def no_screen() -> str:
    """Why no screen can be shown, or nothing."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "this is no terminal"
    if os.environ.get("TERM", "dumb") in ("dumb", ""):
        return "TERM=dumb"
    return CI if os.environ.get("CI") else ""
