"""What constants make together, where Python would not raise."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ddp_assist.probes.script.value import UNKNOWN, Value

_BIGGEST: Final = 10**12
CASTS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": int,
    "str": str,
    "float": float,
    "bool": bool,
}


def quiet(do: Callable[..., Any], *values: Any) -> Any:
    """A constant of constants, or UNKNOWN where Python would raise or it grows too large."""
    try:
        if do in (operator.mul, operator.lshift, operator.mod) and any(
            not isinstance(v, int | float) or abs(v) > _BIGGEST for v in values
        ):
            return UNKNOWN
        return do(*values)
    except (TypeError, ValueError, ArithmeticError, KeyError, IndexError, AttributeError):
        return UNKNOWN


def cast(name: str, value: Value) -> Value:
    """int(x), str(x), ...: the same thing in another type."""
    const = quiet(CASTS[name], value.const) if value.known else UNKNOWN
    kind = "" if name == "bool" else name
    return replace(value, const=const, kind=kind, target=None, items=None, table=None)
