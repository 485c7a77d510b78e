"""Child script: which modules this interpreter would find. Python 3.8, standard library.

Nothing is imported: only what finds modules is asked for the first part of each name.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]
import importlib.util
import json
import os
import signal
from typing import Any, Dict, Optional  # noqa: UP035 - runs on 3.8 too

THERE = object()


def found(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return THERE  # somebody put it there who does not say how


def provider(name: str, spec: Any) -> Optional[str]:  # noqa: UP045
    """The distribution that a module is of, with its version."""
    from importlib import metadata

    places = [*(getattr(spec, "submodule_search_locations", None) or ())]
    where = str((places or [getattr(spec, "origin", None) or ""])[0])
    for dist in metadata.distributions(path=[os.path.dirname(where)]) if where else ():
        said = dist.metadata["Name"] or ""
        tops = (dist.read_text("top_level.txt") or "").split()
        records = "\n" + (dist.read_text("RECORD") or "")
        if name in [*tops, said] or f"\n{name}/" in records or f"\n{name}." in records:
            return f"{said} {dist.version}"
    return None


def main() -> None:
    signal.alarm(int(sys.argv[1]))
    asked = json.load(sys.stdin)
    kept = list(sys.path)
    sys.path[:0] = asked["folders"]
    specs = {name: found(name) for name in ["torch", *asked["names"]]}
    sys.path[:] = kept  # from here on something is imported, and nothing of the user's
    lacks = [name for name in asked["names"] if specs[name] is None]
    answer: Dict[str, Any] = {"torch": specs["torch"] is not None, "lacks": lacks}  # noqa: UP006
    if asked["providers"]:
        has = {name: provider(name, specs[name]) for name in specs if specs[name] is not None}
        answer["has"] = {name: told for name, told in has.items() if told}
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
