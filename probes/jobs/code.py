"""Where two lines of a script part: one left a loop, or only one went into a branch."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ddp_assist.probes.jobs.stacks import Spot, source

LOOPS = (ast.For, ast.AsyncFor, ast.While)


@dataclass(frozen=True, slots=True)
class Parting:
    """How the way of one rank differs from that of another."""

    how: Literal["left-loop", "branch", "own-branch", "branches", ""]
    text: str = ""
    """The line of the script that parts them."""


def parting(odd: Sequence[Spot], other: Sequence[Spot]) -> Parting:
    """From the outside in, the first function in which both stand on different lines."""
    outer = list(reversed(other))
    for depth, (one, two) in enumerate(zip(reversed(odd), outer, strict=False)):
        if (one.file, one.function) != (two.file, two.function):
            break
        if one.line != two.line:
            way = _parted(one, two)
            # Past the call that the other is still in: it has left the loop in there as well.
            past = one.line > two.line and not way.how
            inner = outer[depth + 1 :] if past else []
            return _first_loop(inner) or _first_branch(inner) or way
    return Parting("")


def _first_loop(inner: Sequence[Spot]) -> Parting | None:
    for spot in inner:
        for node in _around(spot.file, spot.line):
            if isinstance(node, LOOPS):
                return Parting("left-loop", source(spot.file)[node.lineno - 1].strip())
    return None


def _first_branch(inner: Sequence[Spot]) -> Parting | None:
    """Past a call in which the others are in a branch: there it did not go."""
    for spot in inner:
        for node in _around(spot.file, spot.line):
            if isinstance(node, ast.If):
                return Parting("branch", source(spot.file)[node.lineno - 1].strip())
    return None


def _parted(odd: Spot, other: Spot) -> Parting:
    mine, theirs = _around(odd.file, odd.line), _around(other.file, other.line)
    lines = source(odd.file)
    for node in theirs:
        if isinstance(node, LOOPS) and node not in mine and odd.line > (node.end_lineno or 0):
            inner = next((n for n in theirs if _asks_for_rank(n) and n.lineno > node.lineno), None)
            if inner is not None:  # the others went through the loop and never into this branch
                return Parting("branch", lines[inner.lineno - 1].strip())
            return Parting("left-loop", lines[node.lineno - 1].strip())
    for node in (*theirs, *mine):
        if not isinstance(node, ast.If) or (node in mine) and (node in theirs) and (
            _side(node, odd.line) == _side(node, other.line)
        ):
            continue
        text = lines[node.lineno - 1].strip()
        if node in mine and node in theirs:
            return Parting("branches", text)
        return Parting("own-branch" if node in mine else "branch", text)
    return Parting("")


def _asks_for_rank(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "rank" in ast.unparse(node.test).lower()


def _side(node: ast.If, line: int) -> str:
    first = node.orelse[0].lineno if node.orelse else None
    return "else" if first is not None and line >= first else "then"


def _around(file: str, line: int) -> list[ast.For | ast.AsyncFor | ast.While | ast.If]:
    """The loops and branches that a line stands in, the outermost first."""
    return [
        node for node in _blocks(file)
        if node.lineno <= line <= (node.end_lineno or 0)
    ]  # fmt: skip


@cache
def _blocks(file: str) -> tuple[ast.For | ast.AsyncFor | ast.While | ast.If, ...]:
    try:
        tree = ast.parse("\n".join(source(file)))
    except (SyntaxError, ValueError, RecursionError):
        return ()
    found = [node for node in ast.walk(tree) if isinstance(node, (*LOOPS, ast.If))]
    return tuple(sorted(found, key=lambda node: node.lineno))
