"""On a node this is `ddp_assist/__init__.py`: what Python 3.9 lacks of 3.10 and our code uses."""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):
    import builtins
    import dataclasses

    _dataclass, _zip = dataclasses.dataclass, builtins.zip

    def dataclass(cls=None, *, slots=False, kw_only=False, **more):  # type: ignore
        return _dataclass(cls, **more) if cls else lambda known: _dataclass(known, **more)

    def zip(*rows, strict=False):  # type: ignore  # noqa: A001
        return _zip(*rows)

    dataclasses.dataclass = dataclass
    builtins.zip = zip  # type: ignore
    sys.stdlib_module_names = frozenset(sys.builtin_module_names)  # type: ignore
