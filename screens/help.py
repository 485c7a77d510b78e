"""The keys of a screen, from its bindings, and what can be changed from here: little."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen

from ddp_assist.screens.reader import Reader
from ddp_assist.screens.widgets.frame import keys

ABOUT = """
Everywhere
  :          every command that does something now
  arrows     move; page up, page down, home and end too
  ctrl+z     suspend; fg comes back
  ctrl+c     twice: quit

What this can change
  Nothing, until you say yes to it. A process is ended only after a question that names it,
  and files are written only where you say. A trial starts ranks of our own, on this machine,
  for at most 30 seconds. Your script is read, never run.

Marks
  BAD  this may be the cause      ok  seen, and fine       note  steers the walk
  ?    could not be looked at     run  still looking       -     there was nothing to ask
"""


class Help(Reader):
    def __init__(self, screen: Screen[Any]) -> None:
        here = "\n".join(f"  {key:<10} {word}" for key, word in keys(screen, hidden=True))
        super().__init__("Keys on this screen", f"{here}\n{ABOUT}")
