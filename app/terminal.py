"""The terminal as it is read: a paste that it does not mark is taken for what it is."""

from __future__ import annotations

import os
import re
import selectors
import signal
from codecs import getincrementaldecoder
from collections.abc import Iterator

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Paste
from textual.message import Message

FLOOD = 48
"""So many characters in one read were not typed; no hand and no key repeat is that fast."""
TAIL = 0.25
"""So many seconds without a byte end a paste; a slow link makes pauses, a hand longer ones."""
MOST = 256
"""So many reads are held back at most, so that a flood without end does not fill the memory."""
SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O.|.)?")
UNFINISHED = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*)?\Z")
"""A sequence that the end of a read has cut: alone it would be the escape key, which leaves."""
START, END = "\x1b[200~", "\x1b[201~"


def _is_a_key(typed: str) -> bool:
    """Enter, or a control key, alone in one read: that may be a hand."""
    return not typed or (len(typed) == 1 and typed < " " and typed not in "\n\t")


class Pastes:
    """Pastes without marks, each held until it has ended. What is marked is the parser's."""

    def __init__(self) -> None:
        self.marked = False
        self.held: list[str] = []

    def takes(self, data: str) -> bool:
        """Whether what was read belongs to a paste; then it is kept."""
        if self.marked or START in data:
            self.marked = data.rfind(END) <= data.rfind(START) if START in data else END not in data
            return False
        typed = SEQUENCE.sub("", data)
        goes_on = not _is_a_key(typed) or UNFINISHED.search(data) is not None
        mine = len(typed) >= FLOOD or (bool(self.held) and goes_on)
        if mine:
            self.held.append(data)
        return mine

    def ended(self) -> Iterator[Paste]:
        """The whole of it: several events would find different screens."""
        if self.held:
            yield Paste("".join(self.held).replace("\r\n", "\n").replace("\r", "\n"))
            self.held = []


class Terminal(LinuxDriver):
    """Textual's own reading, with an unmarked paste as one event and not one a character."""

    def run_input_thread(self) -> None:
        self.parser = XTermParser()
        self.pastes = Pastes()
        decode = getincrementaldecoder("utf-8")(errors="replace").decode
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(TAIL if self.pastes.held else 0.1):
                    raw = self._read()
                    if not raw:
                        self._loop.call_soon_threadsafe(self._app.exit, 128 + signal.SIGHUP)
                        break
                    for message in self._messages(decode(raw)):
                        self.process_message(message)
                else:
                    for message in self.pastes.ended():
                        self.process_message(message)
                for message in self.parser.tick():
                    self.process_message(message)

    def _read(self) -> bytes:
        """Nothing when the terminal is gone: not everybody who loses it is told by SIGHUP."""
        try:
            return os.read(self.fileno, 1 << 16)
        except OSError:
            return b""

    def _messages(self, data: str) -> Iterator[Message]:
        if not self.pastes.takes(data):
            yield from self.pastes.ended()
            yield from self.parser.feed(data)
        elif len(self.pastes.held) == MOST:
            yield from self.pastes.ended()
