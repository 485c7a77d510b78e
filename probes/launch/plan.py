"""What a launch says: a plan for each command that starts ranks, and the text it was read from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddp_assist.probes.model import here

Span = tuple[int, int]


def in_one_piece(places: Sequence[Span]) -> Span | None:
    """The span that characters fill without a gap, when each is known to stand in the text."""
    if not places or places[0][0] < 0:
        return None
    for before, after in zip(places, places[1:], strict=False):
        if after != before and after[0] != before[1]:
            return None
    return places[0][0], places[-1][1]


class LaunchError(ValueError):
    """A launch that can't be read or written; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the launcher. `span` covers name and value, `value_span` only the value."""

    name: str
    """Canonical spelling without leading dashes: `nproc-per-node`."""
    value: str | None
    """None for a flag and for a value that can't be known before it runs."""
    spelling: str
    span: Span
    value_span: Span | None = None
    known: bool = True
    places: tuple[Span, ...] = ()
    """Where each character of the value was written, so that a part of it can be replaced."""

    def part(self, start: int, end: int) -> Span | None:
        """Where a slice of the value stands, if it stands in one piece."""
        return in_one_piece(self.places[start:end])


@dataclass(frozen=True, slots=True)
class Assignment:
    """A variable set on the line itself or by an earlier line of the same script."""

    name: str
    value: str | None
    span: Span
    value_span: Span
    exported: bool = True


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """One command that starts ranks on one node. Spans are places in the text of the launch."""

    launcher: str
    words: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    """What the line or the script around it sets, on top of the user's environment."""
    unset: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()
    """Variables that are set to something that can't be known before it runs."""
    assignments: tuple[Assignment, ...] = ()
    nnodes: tuple[int, int] | None = None
    nproc: int | str | None = None
    node_rank: int | None = None
    rdzv_backend: str | None = None
    rdzv_endpoint: str | None = None
    rdzv_id: str | None = None
    master_addr: str | None = None
    master_port: str | None = None
    standalone: bool = False
    python: str | None = None
    module: bool = False
    script: str | None = None
    script_args: tuple[str, ...] = ()
    cwd: Path = field(default_factory=here)
    options: tuple[Option, ...] = ()
    not_understood: tuple[str, ...] = ()
    host: str | None = None
    starts_all: bool = False
    """Whether the launcher itself logs in to the nodes, so that it is started once for all."""
    hostfile: str | None = None
    hosts: tuple[str, ...] = ()
    """Those of the hostfile or the list that take part, in the order of their node ranks."""
    background: bool = False
    unexported: Mapping[str, str] = field(default_factory=dict)
    """Set in the script, but never exported: this command does not see it."""
    scheduler: str | None = None
    """`srun` or `mpirun` around the launcher, which starts the command `tasks` times."""
    tasks: int | None = None
    tasks_at: int = -1
    """Where its own words end; what is put behind them is started on each node."""
    repeated: bool = False
    """Inside a loop: this one line starts several commands, so nothing may be counted by it."""
    conditional: bool = False
    """In a branch that may not be taken."""
    editable: bool = True
    """False where the command stands in another file than the text of the launch."""
    span: Span = (0, 0)
    launcher_span: Span = (0, 0)
    """The words that name the launcher; an option may be put right behind them."""
    script_span: Span | None = None

    def option(self, name: str) -> Option | None:
        """The option in force: the last one of that name, as argparse has it."""
        return next((o for o in reversed(self.options) if o.name == name), None)

    def assignment(self, name: str) -> Assignment | None:
        return next((a for a in reversed(self.assignments) if a.name == name), None)

    def environment(self, user: Mapping[str, str]) -> dict[str, str]:
        """The variables this command sees, when the user's shell has `user`."""
        kept = {k: v for k, v in user.items() if k not in self.unset and k not in self.unclear}
        return kept | dict(self.env)

    @property
    def script_path(self) -> Path | None:
        """The training script as a file, where it is one."""
        return None if self.script is None or self.module else self.cwd / self.script


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the script that does not do what it was written for."""

    kind: str
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Launch:
    """A whole launch: one command, or a shell script that may start several."""

    text: str
    cwd: Path
    plans: tuple[LaunchPlan, ...] = ()
    path: Path | None = None
    """The shell script this is the text of, when it came from one."""
    arguments: tuple[str, ...] = ()
    outer: tuple[str, ...] = ()
    """Words in front of `bash FILE` that the corrected launch keeps, e.g. `X=1`."""
    interpreter: str = "bash"
    submitted: tuple[str, ...] = ()
    """What `sbatch` was told in front of the file, over the file's own directives."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The environment of the user's shell that it was read with."""
    notes: tuple[Note, ...] = ()

    @property
    def main(self) -> LaunchPlan | None:
        return self.plans[0] if self.plans else None

    @property
    def is_submitted(self) -> bool:
        """Whether Slurm runs it, on hosts that it chooses."""
        return self.interpreter == "sbatch"

    def shell(self, out_dir: Path | None = None, copies: Mapping[Path, Path] | None = None) -> str:
        """The text of a `launch.sh` that means the same from any directory.

        `copies` maps a file of the user to its corrected copy, which then runs in its place.
        """
        from ddp_assist.probes.launch.write import as_script  # it needs this module

        return as_script(self, out_dir, copies or {})


def joined(words: tuple[str, ...] | list[str]) -> str:
    """Words as one line that bash and dash read back as the same words."""
    for word in words:
        if re.search(r"[\x00-\x1f\x7f-\x9f]", word):
            raise LaunchError(f"the word {word!r} holds a control character: it is not written")
    return shlex.join(words)
