"""Plain data out of a pickle without unpickling: a short list of opcodes, each with a budget."""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

MOST_BYTES = 64 << 20
_MOST_OPCODES = 20_000_000
_MOST_NODES = 8_000_000
_LARGEST_INTEGER = 64
_DEEPEST = 32

_PUSHED = frozenset({
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1",
    "BINFLOAT", "FLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "SHORT_BINSTRING", "BINSTRING",
})  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_STORED = frozenset({"BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"})
_FETCHED = frozenset({"BINGET", "LONG_BINGET", "GET"})
_IGNORED = frozenset({"PROTO", "FRAME"})


class Refused(Exception):
    """The file is not plain data, or more of it than a dump can be; the message says where."""


class _Mark:
    """Where a list, a dictionary or a tuple began."""


def plain(data: bytes) -> Any:
    """The value, made of dict, list, tuple, str, numbers and None only; raises Refused."""
    if len(data) > MOST_BYTES:
        raise Refused(f"it has {len(data)} bytes, more than a dump has")
    reader = _Reader()
    place = 0
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            place = position or 0
            if opcode.name == "STOP":
                return reader.result()
            if count > _MOST_OPCODES:
                raise Refused(f"it has too many opcodes (byte {place})")
            reader.step(opcode.name, argument, place)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        if len(data) and not data.endswith(b"."):
            raise Refused(f"it is cut at byte {len(data)}") from None
        raise Refused(f"it is broken after byte {place} ({type(error).__name__})") from None
    raise Refused(f"it is cut at byte {len(data)}")


class _Reader:
    """A stack machine that can build values and nothing else."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._nodes = 0
        self._builders: dict[str, Callable[[], None]] = {
            "EMPTY_DICT": lambda: self._stack.append({}),
            "EMPTY_LIST": lambda: self._stack.append([]),
            "EMPTY_TUPLE": lambda: self._stack.append(()),
            "MARK": lambda: self._stack.append(_Mark()),
            "TUPLE": lambda: self._stack.append(tuple(self._since_mark())),
            "TUPLE1": lambda: self._tuple(1),
            "TUPLE2": lambda: self._tuple(2),
            "TUPLE3": lambda: self._tuple(3),
            "LIST": lambda: self._stack.append(self._since_mark()),
            "DICT": lambda: self._dictionary({}, self._since_mark()),
            "APPEND": lambda: self._extend([self._stack.pop()]),
            "APPENDS": lambda: self._extend(self._since_mark()),
            "SETITEM": lambda: self._update(self._take(2)),
            "SETITEMS": lambda: self._update(self._since_mark()),
        }

    def step(self, name: str, argument: Any, place: int) -> None:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise Refused(f"it holds too many values (byte {place})")
        if name in _IGNORED:
            return
        if name in _PUSHED:
            if type(argument) is int and argument.bit_length() > _LARGEST_INTEGER:
                raise Refused(f"a number is too large (byte {place})")
            self._stack.append(_CONSTANTS.get(name, argument))
        elif name in _STORED:
            # A dictionary, so that a huge index costs one entry and no memory up to it.
            self._memo[len(self._memo) if argument is None else int(argument)] = self._stack[-1]
        elif name in _FETCHED:
            self._stack.append(self._memo[int(argument)])
        elif name in self._builders:
            self._builders[name]()
        else:
            raise Refused(f"opcode {name} at byte {place} is no part of plain data")

    def result(self) -> Any:
        value = self._stack.pop()
        if self._stack or isinstance(value, _Mark):
            raise Refused("it holds more than one value")
        _check(value)
        return value

    def _since_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self._stack.pop(), _Mark):
            items.append(item)
        items.reverse()
        return items

    def _take(self, number: int) -> list[Any]:
        if len(self._stack) < number:
            raise IndexError(number)
        items = self._stack[-number:]
        del self._stack[-number:]
        return items

    def _tuple(self, number: int) -> None:
        self._stack.append(tuple(self._take(number)))

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list) or any(item is target for item in items):
            raise Refused("a list holds itself, so it is not a flight recorder dump")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise TypeError("no dictionary")
        self._dictionary(self._stack.pop(), items)

    def _dictionary(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2 or not all(isinstance(key, str | int) for key in items[::2]):
            raise Refused("a key is neither text nor a number")
        target.update(zip(items[::2], items[1::2], strict=True))
        self._stack.append(target)


def _check(value: Any) -> None:
    """Neither endless nor deep nor, through shared parts, larger than its file."""
    left = _MOST_NODES
    waiting: list[tuple[Any, int]] = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        left -= 1
        if depth > _DEEPEST:
            raise Refused("it is nested too deeply, so it is not a flight recorder dump")
        if left < 0:
            raise Refused("it grows beyond any dump when it is spread out")
        if isinstance(one, dict):
            waiting.extend((each, depth + 1) for each in one.values())
        elif isinstance(one, list | tuple):
            waiting.extend((each, depth + 1) for each in one)
