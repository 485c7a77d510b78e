"""Which modules the launch's Python lacks. It is asked where it would look; nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddp_assist.probes.child import ask
from ddp_assist.probes.host.python import environment, of_launch, startable
from ddp_assist.probes.host.shadow import folders
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Target

FACTS = Path(__file__).with_name("modules_child.py")
DEADLINE = 5.0
OWN_FOLDER = frozenset({
    "python", "torchrun", "torch.distributed.run", "torch.distributed.launch", "accelerate", "srun",
    "mpirun",
})  # fmt: skip
"""Launchers that start the script as it stands; others may put their folder on its path."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an interpreter said of some modules."""

    python: str
    lacks: Sequence[str] = ()
    has: Mapping[str, str] = field(default_factory=dict)
    """The distribution and version that a module is of, where that was asked."""
    because: str = ""
    """Why nothing is known."""


def wanted_on(host: str, hosts: Sequence[Sequence[Any]]) -> bool:
    """Whether an import happens on a host of this name; each item is a name, and is it or not."""
    short = host.partition(".")[0]
    return all((str(name).partition(".")[0] == short) is wanted for name, wanted in hosts)


def lacking(
    target: Target, names: Sequence[str], more: Sequence[str] = (), providers: bool = False
) -> Told | None:
    """None where nobody knows which Python will run the script, or where it is none for training.

    `more` are folders that the script itself puts on its path.
    """
    plan = target.plan
    python = of_launch(target)
    if plan is None or python is None:
        return None
    answer = ask(
        FACTS,
        {"names": list(names), "folders": [*_looked_into(target, plan), *more],
         "providers": providers},
        deadline=DEADLINE,
        python=python,
        isolated=False,
        env=startable(environment(target)),
        cwd=plan.cwd if plan.cwd.is_dir() else Path("/"),
    )  # fmt: skip
    said: Any = answer.value
    if not isinstance(said, dict) or answer.ended != "well":
        return Told(python, because=answer.because or "it gave no answer")
    if not said["torch"]:
        return None
    return Told(python, tuple(said["lacks"]), said.get("has") or {})


def _looked_into(target: Target, plan: LaunchPlan) -> list[str]:
    odd = () if plan.launcher in OWN_FOLDER else (plan.cwd,)
    return [str(folder) for folder in (*folders(target), *odd)]


def told_by_node(target: Target, asked: Mapping[str, Any] | None, host: str) -> dict[str, Any]:
    """What a node of a fleet lacks of what a script was seen to import, with where it does; empty
    where nothing is known."""
    plan = target.plan
    script = plan.script_path if plan else None
    if not asked or plan is None or not (plan.module or (script is not None and script.exists())):
        return {}
    wanted = {n: w for n, w in asked["names"].items() if wanted_on(host, w["hosts"])}
    told = lacking(target, list(wanted), asked["more"], providers=True) if wanted else None
    if told is None or told.because:
        return {}
    lacks = {name: wanted[name]["where"] for name in told.lacks}
    return {"python": told.python, "lacks": lacks, "has": dict(told.has)}
