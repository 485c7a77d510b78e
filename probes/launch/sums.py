"""The sums of a shell, `$(( ))` and the places of an array, with variables that are known."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

SUMS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: lambda a, b: int(a / b), ast.Mod: lambda a, b: a - b * int(a / b),
}  # fmt: skip


def reckoned(text: str, value_of: Callable[[str], str | None]) -> int | None:
    """`$(( ))` with the four operations and known variables; None for all else."""

    def number(match: re.Match[str]) -> str:
        digits = (value_of(match[1]) or "unknown").strip()
        return f" {int(digits)} " if re.fullmatch(r"-?\d{1,12}", digits) else " unknown "

    def reckon(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp) and type(node.op) in SUMS:
            return SUMS[type(node.op)](reckon(node.left), reckon(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -reckon(node.operand)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        raise ValueError("not a plain sum")

    if len(text) > 200:
        return None
    plain = re.sub(r"\$?\{?\b([A-Za-z_]\w*)\}?", number, text)
    try:
        return reckon(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
        return None
