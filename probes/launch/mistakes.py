"""Lines of a shell script that look like an assignment and are none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ddp_assist.probes.launch.plan import Assignment, Note, Span
from ddp_assist.probes.launch.shell import ASSIGNED, Token

RENDEZVOUS = re.compile(
    r"(MASTER_(ADDR|PORT)|(LOCAL_)?RANK|WORLD_SIZE|NODE_RANK|(GLOO|NCCL)_\w+)\Z"
)
VALUE = re.compile(r"[\w.:$\"'{}-]+")
DECLARING = frozenset({"export", "declare", "typeset", "readonly", "local"})


def mistakes(line: Sequence[Assignment], words: Sequence[Token], span: Span) -> list[Note]:
    """What went wrong because of a blank, a dollar or another shell's word too many."""
    first = words[0].raw
    bare = re.fullmatch(r"\$?([A-Za-z_]\w*)", first)
    dollar = re.match(r"\$([A-Za-z_]\w*)=", first)
    found: list[tuple[str, str]] = []
    if len(words) == 1 and line and line[-1].value == "" and VALUE.fullmatch(first):
        found.append(("blank-after-equals", line[-1].name))
    elif bare and _equals(words, 1):
        found.append(("blank-before-equals", bare[1]))
    elif first in DECLARING:
        found += _declared(words)
    elif first in ("set", "setenv") and len(words) > 1:
        found.append(("other-shell", words[1].raw.partition("=")[0]))
    elif dollar:
        found.append(("dollar-before-name", dollar[1]))
    return [Note(kind, name, span) for kind, name in found if RENDEZVOUS.match(name)]


def _declared(words: Sequence[Token]) -> list[tuple[str, str]]:
    found = []
    for number, token in enumerate(words[1:-1], 1):
        broken = token.raw.endswith("=") or _equals(words, number + 1)
        if broken and not ASSIGNED.match(words[number + 1].raw):
            found.append(("blank-after-equals", token.raw.rstrip("=")))
    return found


def _equals(words: Sequence[Token], at: int) -> bool:
    return at < len(words) and words[at].raw.startswith("=")
