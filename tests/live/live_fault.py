"""A fault as data: stage, launch, truth, cure; and its variations."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
Moment = Literal["before", "during", "after", "log", "run"]
MOMENTS: tuple[Moment, ...] = ("before", "run", "during", "after", "log")
TORCHRUN = (
    "torchrun",
    "python -m torch.distributed.run",
    "python3 -m torch.distributed.launch --use-env",
)
HELPERS = """
wait_port() {
  for i in $(seq 400); do (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null && return; sleep 0.05; done
  echo "nothing came up on port $1" >&2; return 1
}
wait_line() {
  for i in $(seq 400); do grep -q "$1" "$2" 2>/dev/null && return; sleep 0.1; done
  echo "$2 never said $1" >&2; return 1
}
"""


@dataclass(frozen=True, slots=True)
class Variation:
    """What a variation may change without changing the fault."""

    port: int = 29500
    ranks: int = 2
    torchrun: str = TORCHRUN[0]
    as_words: bool = False
    """A single command given as words instead of as a script."""
    nobody: bool = False
    """As an ordinary user."""

    @property
    def name(self) -> str:
        launcher = self.torchrun.split()[-1] if " " not in self.torchrun else (
            "run" if "run" in self.torchrun else "launch"
        )  # fmt: skip
        who = "nobody" if self.nobody else "root"
        return f"{launcher}-{self.ranks}-{self.port}-{who}{'-words' if self.as_words else ''}"


@dataclass(frozen=True, slots=True)
class Fault:
    id: str
    family: str
    about: str
    launch: str
    cause: str | None = None
    """None: nothing is wrong."""
    accept: tuple[str, ...] = ()
    moments: tuple[Moment, ...] = ()
    """Those that can know the cause."""
    never: tuple[str, ...] = ()
    """Causes that must not be named first."""
    user: int | None = None
    """Only as this user is it a fault."""
    two_hosts: bool = False
    stage: str = ""
    exported: Mapping[str, str] = field(default_factory=dict)
    """What the user's shell has exported."""
    files: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    cure: Literal["launch", "steps"] = "launch"
    heal: str = ""
    """What the steps of a system's cure say, as commands."""
    marker: str = "TRAINED"
    wait: int = 12
    """The job's own time limit where a failure is wanted."""
    ask: tuple[str, ...] = ()
    """Hosts on which the tool can know the cause before the start; none: on the host alone."""
    at: tuple[str, ...] = ()
    """The same during the hang."""
    part: tuple[Moment, ...] = ()
    """What of it belongs to the part that every test run does."""

    @property
    def right(self) -> frozenset[str]:
        return frozenset((self.cause, *self.accept)) if self.cause else frozenset()

    def varied(self, how: Variation) -> Fault:
        """Ports, ranks and launcher put in."""
        high = 33000 + how.port % 20000

        def put(text: str) -> str:
            for name, value in (
                ("@PORT@", how.port),
                ("@HIGH@", high),
                ("@N@", how.ranks),
                ("@TORCHRUN@", how.torchrun),
            ):
                text = text.replace(name, str(value))
            return text

        written = {name: put(text) for name, text in self.files.items()}
        for name, source in self.scripts.items():
            written[name] = put((HERE / "scripts" / source).read_text())
        return replace(
            self,
            launch=put(self.launch),
            stage=put(self.stage),
            heal=put(self.heal),
            exported={name: put(value) for name, value in self.exported.items()},
            files=written,
            scripts={},
        )


def variations(fault: Fault, moment: Moment, count: int) -> list[Variation]:
    """The plain one first, then some that differ in everything; each time the same ones.

    Who is on one of two hosts is root there: only root can enter a network namespace.
    """
    dice = random.Random(f"{fault.id} {moment}")
    found = [Variation()]
    while len(found) <= count:
        found.append(
            Variation(
                dice.randrange(12000, 31000),
                dice.choice((2, 3, 4)),
                dice.choice(TORCHRUN),
                dice.random() < 0.5,
                dice.random() < 0.5 and not fault.two_hosts,
            )
        )
    return found


def read(entry: Mapping[str, Any], family: str) -> Fault:
    lists = {name: tuple(value) for name, value in entry.items() if isinstance(value, list)}
    return Fault(**{**entry, **lists, "family": family})


@cache
def faults() -> Mapping[str, Fault]:
    found: dict[str, Fault] = {}
    for path in sorted((HERE / "faults").glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["fault"]:
            fault = read(entry, path.stem)
            assert fault.id not in found, f"two faults are called {fault.id}"
            found[fault.id] = fault
    return found
