"""The logs that were given, looked at further while they grow."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ddp_assist.probes.logs.following import Followed
from ddp_assist.probes.logs.source import NotALog
from ddp_assist.probes.text import clean

_PAUSE = 3.0


class Watched:
    """Made before the logs are read, so that nothing is missed that is written meanwhile."""

    def __init__(self, logs: Sequence[str], tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._each = {
            path: Followed(log, path.stat().st_size)
            for log in logs
            if (path := Path(log)).is_file()
        }

    def begin(self, known: Collection[str], stop: threading.Event) -> None:
        """From now on, beside everything else, until it is stopped."""
        if self._each:
            threading.Thread(target=self._watch, args=(set(known), stop), daemon=True).start()

    def _watch(self, known: set[str], stop: threading.Event) -> None:
        while self._each and not stop.wait(_PAUSE):
            for line in self.news(known):
                self._tell(line)

    def news(self, known: set[str]) -> list[str]:
        """Each kind of bad line that is not known yet, once."""
        found: list[str] = []
        for path, followed in list(self._each.items()):
            try:
                hits = followed.look()
            except NotALog:
                del self._each[path]
                continue
            for hit in hits:
                if hit.signature.weight == "bad" and hit.signature.id not in known:
                    known.add(hit.signature.id)
                    said = clean(hit.signature.sentence(hit.groups))
                    found.append(f"new in {clean(path.name)}: {said} (r reads all of it again)")
        return found
