"""The variables that steer a distributed start: what is set, by whom, and what contradicts what."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ddp_assist.probes.host import variables
from ddp_assist.probes.host.ancestry import launcher_above, origin
from ddp_assist.probes.host.processes import Processes, read, snapshot
from ddp_assist.probes.host.words import brief, several
from ddp_assist.probes.launch.judging import is_handed_on
from ddp_assist.probes.model import Evidence, Finding, Probe, Target
from ddp_assist.probes.network.scope import number

TORCHRUN = frozenset({"torchrun", "torch.distributed.run", "torch.distributed.launch"})
# Launchers that give each rank its variables, whatever the shell exports.
GIVES = TORCHRUN | {"accelerate", "deepspeed", "mpirun", "mpiexec", "srun", "horovodrun"}
SET_BY_LAUNCHERS = frozenset(
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK",
     "MASTER_ADDR", "MASTER_PORT"}
)  # fmt: skip
# What a torchrun option means when it is not given; another value steers the launch elsewhere.
HARMLESS = {
    "PET_NNODES": {"1", "1:1"},
    "PET_NODE_RANK": {"0"},
    "PET_STANDALONE": {"0", "false", "1", "true"},
    "PET_MAX_RESTARTS": {"0"},
}
BATCH_STEP = 0xFFFFFFF0
"""From here on Slurm numbers its own steps (batch, interactive, extern), which are no srun."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known about the environment of this launch."""

    shell: Mapping[str, str]
    """What the user's shell exports."""
    launch: Mapping[str, str]
    """What the command sees: the shell's, and what its own line sets."""
    kind: str | None
    """The launcher that will start the ranks; `python` where none does; None where unknown."""
    above: str | None
    """A launcher that we ourselves run under: then the variables are its work."""


def setting(target: Target, processes: Processes) -> Setting:
    plan, shell = target.plan, target.env
    above = None
    if any(
        shell.get(name) == os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "SLURM_JOB_ID")
    ):
        found = launcher_above(processes, os.getpid())
        above = found[0] if found else _pod(shell)
    launch = plan.environment(shell) if plan else shell
    return Setting(shell, launch, plan.launcher if plan else None, above)


def _pod(shell: Mapping[str, str]) -> str | None:
    """An operator of Kubernetes sets the variables of the pod, so its first process has them."""
    if not shell.get("KUBERNETES_SERVICE_HOST"):
        return None
    block = read("/proc/1/environ") or b""
    same = f"RANK={shell.get('RANK', '')}\0".encode("utf-8", "surrogateescape")
    return "kubernetes" if same in block else None


def _look(target: Target) -> Iterator[Finding]:
    processes = snapshot()
    now = setting(target, processes)
    found = [
        *islice(_unprintable(now), MANY),
        *_not_exported(target, now),
        *_left_over(target, now),
        *_slurm(now),
        *_contradictions(now),
        *_typos(now),
    ]
    names = sorted(name for name in now.shell if variables.matters(name))
    if names:
        yield _set_by(names, now, processes)
    old = sorted(name for name in now.launch if name in variables.DEPRECATED)
    if old:
        sentence = f"{several(old)}: the names are from before torch 2.2, and now begin with TORCH_"
        yield Finding("env", "deprecated", sentence, {"variables": old})
    yield from found
    if not found:
        yield Finding("env", "fine", "no variable steers this launch astray", {"count": len(names)})


def _set_by(names: Sequence[str], now: Setting, processes: Processes) -> Finding:
    """What is set, and by whom where the ancestors' environ can tell."""
    by: dict[str, str] = {}
    for name in names[:64]:
        if os.environ.get(name) == now.shell[name]:
            where = origin(processes, os.getpid(), name, now.shell[name])
            if where:
                by[brief(name)] = f"{brief(where.program, 20)} ({where.pid})"
    shown = {brief(name): brief(now.shell[name]) for name in names[:64]}
    who = f"under {now.above}" if now.above else "no launcher is above this process"
    lines = tuple(f"{name}={value}" for name, value in shown.items())
    see = (Evidence("environment", lines, ("printenv", *list(shown)[:12])),)
    data = {"variables": shown, "set_in": by, "launcher_above": now.above}
    return Finding("env", "set", f"set: {several(shown)}; {who}", data, see)


def _left_over(target: Target, now: Setting) -> Iterator[Finding]:
    if now.above:
        return
    plan, kind = target.plan, now.kind
    given = {option.name.replace("-", "_").upper() for option in plan.options} if plan else set()
    if kind in TORCHRUN or kind is None:
        own = plan.env if plan else {}
        steering = {
            name: value
            for name, value in now.shell.items()
            if name.startswith("PET_")
            and name[4:] in variables.OPTIONS
            and name[4:] not in given
            and name not in own
            and name in now.launch
            and value.lower() not in HARMLESS.get(name, ())
        }
        if steering:
            yield _of_shell("left-over-pet", steering, "torchrun takes them as options")
    if kind not in ("python", None):
        return
    own = plan.env if plan else {}
    rank = {
        name: now.shell[name]
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if now.shell.get(name) and name in now.launch and name not in own
    }
    world = number(rank.get("WORLD_SIZE"))
    if "RANK" in rank and not (world == 1 and rank["RANK"] == "0"):
        yield (
            _of_shell("left-over-rank", rank, "the script takes them for its own")
            if kind
            else _of_shell(
                "rank-in-shell",
                rank,
                "a script that is started without a launcher takes them for its own",
            )
        )
    if kind is None:
        return
    agent = now.shell.get("TORCHELASTIC_USE_AGENT_STORE", "")
    if agent.lower() == "true" and "TORCHELASTIC_USE_AGENT_STORE" in now.launch:
        mine = {k: v for k, v in now.shell.items() if k.startswith("TORCHELASTIC_")}
        yield _of_shell("left-over-store", mine, "no rank will host the store, as torchrun would")


def _of_shell(outcome: str, found: Mapping[str, str], so: str) -> Finding:
    shown = {brief(name): brief(value) for name, value in sorted(found.items())}
    words = several((f"{name}={value}" for name, value in shown.items()), 5)
    lines = tuple(f"{name}={value}" for name, value in shown.items())
    see = (Evidence("environment", lines, ("printenv", *shown)),)
    sentence = f"{words}: set in the shell, not by a launcher, and {so}"
    return Finding("env", outcome, sentence, {"variables": shown}, see)


def _slurm(now: Setting) -> Iterator[Finding]:
    env = now.launch
    tasks = number(env.get("SLURM_NTASKS") or env.get("SLURM_NPROCS"))
    step = number(env.get("SLURM_STEP_ID"))
    in_step = step is not None and step < BATCH_STEP
    if not env.get("SLURM_JOB_ID") or tasks is None or tasks < 2 or in_step or now.kind != "python":
        return
    data = {
        "ntasks": tasks,
        "job": brief(env["SLURM_JOB_ID"]),
        "procid": brief(env.get("SLURM_PROCID", "")),
    }
    if env.get("RANK") and env.get("WORLD_SIZE"):
        return
    sentence = (
        f"SLURM_NTASKS={tasks} and SLURM_PROCID={data['procid'] or 'unset'} come from the "
        "allocation, but srun starts nothing here: one process runs"
    )
    see = (
        Evidence("environment", see=("printenv", "SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_STEP_ID")),
    )
    yield Finding("env", "slurm-without-srun", sentence, data, see)


def _contradictions(now: Setting) -> Iterator[Finding]:
    env = now.launch
    if now.kind not in GIVES and (now.kind is not None or now.above):
        yield from _numbers(env)
    for old, new in variables.DEPRECATED.items():
        if old in env and new in env and env[old] != env[new]:
            sentence = f"{old} and {new} are one setting under two names, and differ"
            yield _contradiction("two-names", sentence, env, old, new)
    debug = env.get("TORCH_DISTRIBUTED_DEBUG")
    if debug is not None and debug.upper() not in ("OFF", "INFO", "DETAIL"):
        sentence = f"TORCH_DISTRIBUTED_DEBUG={brief(debug)}: torch takes only OFF, INFO or DETAIL"
        yield _contradiction("no-such-value", sentence, env, "TORCH_DISTRIBUTED_DEBUG")
    devices = [d.strip() for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    if twice := sorted({d for d in devices if devices.count(d) > 1}):
        sentence = f"CUDA_VISIBLE_DEVICES names {several(twice)} twice, so CUDA shows no GPU at all"
        yield _contradiction("twice", sentence, env, "CUDA_VISIBLE_DEVICES")


def _numbers(env: Mapping[str, str]) -> Iterator[Finding]:
    values: dict[str, int] = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        if not (text := env.get(name)):
            continue
        value = number(text)
        if value is None or value < 0:
            sentence = f"{name}={brief(text)} is no number that could be meant"
            yield _contradiction("not-a-number", sentence, env, name)
        else:
            values[name] = value
    for small, large in (
        ("RANK", "WORLD_SIZE"),
        ("LOCAL_RANK", "LOCAL_WORLD_SIZE"),
        ("LOCAL_RANK", "WORLD_SIZE"),
        ("LOCAL_WORLD_SIZE", "WORLD_SIZE"),
    ):
        low, high = values.get(small), values.get(large)
        if low is not None and high is not None and low >= high + (small == "LOCAL_WORLD_SIZE"):
            sentence = f"{small}={low} does not fit {large}={high}"
            yield _contradiction("out-of-range", sentence, env, small, large)


def _contradiction(kind: str, sentence: str, env: Mapping[str, str], *names: str) -> Finding:
    data = {"kind": kind, "variable": names[0], "value": brief(env[names[0]])}
    values = {name: brief(env[name]) for name in names}
    return Finding("env", "contradiction", sentence, data | {"variables": values}, _see(*names))


def _not_exported(target: Target, now: Setting) -> Iterator[Finding]:
    """Written down, and yet not there: a line of its own without export, or a blank after `=`."""
    hidden = target.plan.unexported if target.plan else {}
    text = target.launch.text if target.launch else ""
    given = SET_BY_LAUNCHERS if now.kind in TORCHRUN | {"accelerate", "deepspeed"} else frozenset()
    lost = {
        n: brief(v) for n, v in hidden.items()
        if variables.matters(n) and n not in {*now.launch, *given} and not is_handed_on(text, n)
    }  # fmt: skip
    if lost:
        sentence = f"{several(lost)} is set, but not exported, so the command does not see it"
        yield Finding("env", "not-exported", sentence, {"variables": lost})
    if now.kind in GIVES:
        return
    empty = [
        n for n in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if now.launch.get(n) == ""
    ]
    if empty:
        sentence = f"{several(empty)} is set to nothing, which counts as not set"
        yield Finding("env", "empty", sentence, {"variables": empty}, _see(*empty))


def _unprintable(now: Setting) -> Iterator[Finding]:
    """Bytes that nobody sees: a carriage return from Windows, a no-break space from a web page."""
    for name, value in sorted(now.launch.items()):
        if not variables.matters(name) or (value.isprintable() and value == value.strip()):
            continue
        data = {"variable": brief(name), "value": brief(value), "ascii": ascii(value[:MOST])}
        sentence = f"{brief(name)} holds characters that are not seen: {ascii(value[:MOST])}"
        yield Finding("env", "unprintable", sentence, data, _see(brief(name)))


def _typos(now: Setting) -> Iterator[Finding]:
    for name, real in sorted(variables.typos(now.launch).items()):
        data = {"variable": brief(name), "meant": real, "value": brief(now.launch[name])}
        if real in now.launch:
            continue
        sentence = f"{brief(name)} is set, but nothing reads it; {real} was probably meant"
        yield Finding("env", "typo", sentence, data, _see(brief(name)))


def _see(*names: str) -> tuple[Evidence, ...]:
    return (Evidence("environment", see=("printenv", *names)),)


MOST = 100
MANY = 16

ENV = Probe(
    "env",
    "Do variables of the shell steer this launch?",
    {
        "fine": "ok",
        "set": "info",
        "deprecated": "info",
        "rank-in-shell": "info",
        "left-over-rank": "bad",
        "left-over-pet": "bad",
        "left-over-store": "bad",
        "slurm-without-srun": "bad",
        "contradiction": "bad",
        "not-exported": "bad",
        "empty": "bad",
        "unprintable": "bad",
        "typo": "bad",
    },
    _look,
)
PROBES: tuple[Probe, ...] = (ENV,)
