"""Corrections of how many nodes and ranks there are, and of which is which."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ddp_assist.app.fixes.launch_words import (
    PLAIN,
    add_flag,
    as_fix,
    before,
    drop_option,
    edited,
    meeting,
    option_name,
    placed,
    set_option,
    set_variable,
)
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.host.words import counted
from ddp_assist.probes.launch.launchers import ELASTIC, whole
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan
from ddp_assist.probes.launch.write import Edit, fitting
from ddp_assist.probes.script.facts import INIT, read_facts, script_of
from ddp_assist.probes.script.read import ScriptError


def same_nnodes(situation: Situation) -> Fix | None:
    """The number of nodes that are started, where the nodes were told different ones."""
    plans = [p for p in situation.target.plans if p.nnodes and not p.conditional]
    told = Counter(p.nnodes[1] for p in plans if p.nnodes)
    if not told:
        return None
    count = len(plans) if len(plans) in told and len(plans) > 1 else told.most_common(1)[0][0]
    if len(told) < 2:
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.nnodes and plan.nnodes[1] != count:
            yield set_option(launch, plan, "nnodes", str(count))

    return as_fix(
        situation, f"the same number of nodes, {count}, everywhere", edited(situation, rule)
    )


def distinct_node_ranks(situation: Situation) -> Fix | None:
    """Ranks (of nodes, or of processes) from 0 to n-1, each once; those that are right stay."""
    plans = [p for p in situation.target.plans if not p.repeated and not p.conditional]
    if len(plans) < 2:
        return None
    by_process = all(p.launcher in PLAIN and p.assignment("RANK") for p in plans)
    what = "RANK" if by_process else "NODE_RANK"
    seen = (plan.environment(situation.target.env) for plan in plans)
    if all(p.launcher in PLAIN for p in plans) and not any(what in names for names in seen):
        return None
    old = {id(p): whole(p.env.get(what)) if by_process else p.node_rank for p in plans}
    count = max([len(plans), *(p.nnodes[1] for p in plans if p.nnodes)])
    from_one = sorted(rank or 0 for rank in old.values()) == list(range(1, count + 1))
    new = _kept(plans, old, count)
    if from_one:
        new = {key: (rank or 0) - 1 for key, rank in old.items()}

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        rank = new.get(id(plan))
        given = plan.option(option_name(plan, "node-rank"))
        written = launch.text[slice(*given.span)] if given and given.span[0] >= 0 else ""
        counter = re.fullmatch(r"(--[\w-]+[=\s]+)(\$\{?\w+\}?)", written)
        if from_one and counter is not None and given is not None:
            name = counter[2].strip("${}")
            yield Edit(given.span, f"{counter[1]}$(({name} - 1))")
        elif rank is None or rank == (old[id(plan)] or 0):
            return
        elif plan.launcher in PLAIN:
            yield set_variable(launch, plan, what, str(rank))
        else:
            yield set_option(launch, plan, "node-rank", str(rank))

    each = "process" if by_process else "node"
    return as_fix(situation, f"a rank of its own for each {each}", edited(situation, rule))


def _kept(plans: Sequence[LaunchPlan], old: Mapping[int, int | None], count: int) -> dict[int, int]:
    """Who has a rank of his own keeps it; 0 belongs to the host that the others are sent to."""
    new: dict[int, int] = {}
    for plan in sorted(plans, key=lambda p: p.host is None or p.host != p.master_addr):
        rank = old[id(plan)] or 0
        if 0 <= rank < count and rank not in new.values():
            new[id(plan)] = rank
    for plan in plans:
        if id(plan) not in new:
            new[id(plan)] = next(r for r in range(count + len(plans)) if r not in new.values())
    return new


def use_torchrun(situation: Situation) -> Fix | None:
    """Plain python turned into torchrun of the same interpreter."""
    plans = situation.target.plans
    if len(plans) != 1 or plans[0].scheduler or _starts_its_ranks(situation):
        return None
    ranks = _ranks(situation, plans[0])

    slurm = situation.cause == "slurm-plan-mismatch"
    left = [n for n in situation.target.env if slurm and n.startswith("SLURM_")]

    def rule(_: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher == "python" and plan.script is not None:
            if left:
                yield before(plan, "env " + " ".join(f"-u {name}" for name in sorted(left)))
            where = placed(plan, plan.launcher_span[1])
            text = f" -m torch.distributed.run --standalone --nproc-per-node={ranks}"
            yield Edit((where, where), text)

    title = f"start it with torchrun, {ranks} ranks on this host"
    return as_fix(
        situation, title, edited(situation, rule),
        trial={"backend": "gloo", "nproc": min(ranks, 8)},
        why="torchrun sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT for each rank",
    )  # fmt: skip


def every_process(situation: Situation) -> Fix | None:
    """Accelerate told to start all its processes, which without GPUs it otherwise does not."""
    if not situation.value("once"):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher == "accelerate" and not plan.option("multi-gpu"):
            yield from drop_option(launch, plan, "cpu")
            yield add_flag(plan, "multi_gpu")

    launch = edited(situation, rule)
    return as_fix(
        situation, "let accelerate start every process (--multi_gpu works without GPUs too)",
        launch, trial=launch and meeting(situation, launch),
    )  # fmt: skip


def _starts_its_ranks(situation: Situation) -> bool:
    """Whether the script starts the ranks: each of torchrun's would start all of them again."""
    script = script_of(situation.target)
    try:
        facts = read_facts(situation.target, script) if script is not None else None
    except (ScriptError, RecursionError):
        return False
    children = (gang for gang in facts.gangs if gang.process.number) if facts else ()
    return any(call.name == INIT for gang in children for call in gang.streams[0])


def _ranks(situation: Situation, plan: LaunchPlan) -> int:
    seen = plan.environment(situation.target.env)
    world = whole(seen.get("WORLD_SIZE"))
    if situation.cause == "slurm-plan-mismatch":
        world = whole(seen.get("SLURM_NTASKS") or seen.get("SLURM_NPROCS"))
    gpus = _gpus(situation)
    return gpus or (world if world and world > 1 else 2)


def _gpus(situation: Situation) -> int | None:
    """How many GPUs were counted here; None where none were, or nobody looked."""
    for finding in situation.findings:
        if finding.probe == "gpu" and isinstance(finding.data.get("count"), int):
            return int(finding.data["count"]) or None
    return None


def lower_nproc(situation: Situation) -> Fix | None:
    """One rank a GPU, no more."""
    count = situation.value("visible") or situation.value("count") or _gpus(situation)
    if not isinstance(count, int) or count < 1:
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher in PLAIN or not isinstance(plan.nproc, int) or plan.nproc <= count:
            return
        nodes = plan.nnodes[1] if plan.nnodes and plan.launcher == "accelerate" else 1
        yield set_option(launch, plan, "nproc-per-node", str(count * nodes))

    launch = edited(situation, rule)
    return as_fix(
        situation, f"{counted(count, 'rank')} on this host, one for each GPU", launch,
        trial=launch and meeting(situation, launch),
    )  # fmt: skip


def start_all_ranks(situation: Situation) -> Fix | None:
    """The line of the last rank, once more for each rank that is missing."""
    plans = [p for p in situation.target.plans if p.launcher in PLAIN and not p.conditional]
    ranks = {whole(p.env.get("RANK")): p for p in plans}
    world = {whole(p.environment(situation.target.env).get("WORLD_SIZE")) for p in plans}
    size = world.pop() if len(world) == 1 else None
    launch = situation.target.launch
    if launch is None or size is None or size > 64 or None in ranks or not ranks:
        return None
    missing = [r for r in range(size) if r not in ranks]
    last = ranks[max(r for r in ranks if r is not None)]
    if not missing or not all(p.background and not p.repeated for p in plans):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterable[Edit]:
        given = plan.assignment("RANK")
        if plan is not last or given is None:
            return []
        start, end = plan.span
        at, until = given.value_span[0] - placed(plan, start), given.value_span[1] - start
        line = launch.text[start:end]
        if not 0 <= at < until <= len(line):
            return []
        copies = [f"{line[:at]}{rank}{line[until:]} &\n" for rank in missing]
        close = launch.text.find("\n", end)
        close = len(launch.text) if close < 0 else close + 1
        return [Edit((close, close), "".join(copies) + "trap wait EXIT\n")]

    named = ", ".join(map(str, missing))
    return as_fix(situation, f"start rank {named} too", edited(situation, rule))


def side_by_side(situation: Situation) -> Fix | None:
    """Commands that wait for each other started at the same time, and all of them waited for."""
    plans = [p for p in situation.target.plans if not p.conditional]
    if not situation.value("in_turn"):
        return None

    in_a_loop = len({p.span for p in plans}) == 1

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        rest = _REST.match(launch.text, plan.span[1])
        last = plan.span == plans[-1].span
        if plan.background and not last:
            return
        if rest is None or not plan.editable:
            raise LaunchError("the commands share their lines with others")
        end = rest.end("to")
        if in_a_loop or not last:
            yield Edit((end, end + len(rest["turn"] or "")), " &")
        if last:
            end = len(launch.text) if in_a_loop else end
            yield Edit((end, end), "\ntrap wait EXIT")

    return as_fix(situation, "start them side by side, and wait for all", edited(situation, rule))


_REST = re.compile(r"(?P<to>(?:[^;&|#\n\\]|\d?>&\d|&>)*)(?:(?P<turn>;)(?=\s*done\b)|(?=\n|\Z))")
"""What may follow a command: where its output goes, and the end of a loop."""


def match_world_size(situation: Situation) -> Fix | None:
    """WORLD_SIZE lowered to the ranks that are started."""
    plans = [p for p in situation.target.plans if p.launcher in PLAIN]
    ranks = {whole(p.env.get("RANK")) for p in plans}
    whole_job = bool(plans) and ranks == set(range(len(plans)))
    if not whole_job or any(p.repeated for p in plans):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if whole(plan.environment(situation.target.env).get("WORLD_SIZE")) != len(plans):
            yield set_variable(launch, plan, "WORLD_SIZE", str(len(plans)))

    title = f"tell the ranks that there are {len(plans)} of them"
    return as_fix(situation, title, edited(situation, rule))


def _slurm_answers() -> bool:
    """Whether srun could start anything here: a left-over SLURM_ variable alone proves no Slurm."""
    if shutil.which("srun") is None or shutil.which("scontrol") is None:
        return False
    try:
        asked = subprocess.run(
            ["scontrol", "ping"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=3,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and b"UP" in asked.stdout


def with_srun(situation: Situation) -> Fix | None:
    """The command started once for each task of the allocation."""
    if not _slurm_answers():
        return None

    def rule(_: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher == "python" and plan.scheduler is None:
            yield before(plan, "srun")

    return as_fix(situation, "start it with srun, once for each task", edited(situation, rule))


def drop_flag(situation: Situation) -> Fix | None:
    """An option taken away that the launcher or its version does not know, or drops."""
    flag = situation.value("option")
    if not isinstance(flag, str):
        return None
    name = re.sub("_", "-", flag.lstrip("-"))

    def rule(launch: Launch, plan: LaunchPlan) -> Iterable[Edit]:
        return drop_option(launch, plan, name)

    return as_fix(situation, f"without --{name}", edited(situation, rule))


def rename_option(situation: Situation) -> Fix | None:
    """An option in the spelling that the launcher knows."""
    wrong, right = situation.value("option"), situation.value("nearest")
    if not isinstance(wrong, str) or not isinstance(right, str):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        for option in plan.options:
            if option.spelling == wrong and option.span[0] >= 0:
                end = option.span[0] + len(wrong)
                if launch.text[option.span[0] : end] == wrong:
                    yield Edit((placed(plan, option.span[0]), end), "--" + right)

    return as_fix(situation, f"--{right} instead of {wrong}", edited(situation, rule))


def option_that_counts(situation: Situation) -> Fix | None:
    """An option moved to where the launcher sees it, or its value to the option that counts."""

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        flag = situation.value("option")
        inside, at = plan.option(str(situation.value("inside"))), situation.value("inside_at")
        if inside is not None and isinstance(at, int):
            if (dashes := inside.part(at, at + 2)) is not None:
                yield Edit((dashes[0], dashes[0]), " ")
            return
        host, port = plan.master_addr, plan.master_port or "29400"
        if plan.launcher in ELASTIC and plan.rdzv_backend == "c10d" and host:
            if not plan.rdzv_endpoint:
                yield from drop_option(launch, plan, "master-addr")
                yield from drop_option(launch, plan, "master-port")
                yield set_option(launch, plan, "rdzv-endpoint", f"{host}:{port}")
            return
        if not isinstance(flag, str) or plan.script_span is None:
            return
        behind = launch.text[plan.script_span[1] : plan.span[1]]
        pattern = re.escape(flag.lstrip("-")).replace(r"\-", "[-_]")
        match = re.search(rf"[ \t]+(--{pattern}(?:=|[ \t]+)[\w:.,]+)(?=\s|$)", behind)
        if match is not None:
            start = placed(plan, plan.script_span[1]) + match.start()
            where = plan.launcher_span[1]
            yield Edit((start, start + len(match[0])), "")
            yield Edit((where, where), f" {match[1]}")

    return as_fix(situation, "the option where it counts", edited(situation, rule))


def as_module(situation: Situation) -> Fix | None:
    """The launcher of the interpreter that has the job's torch, not the first one on PATH."""
    active, first = situation.value("active"), situation.value("python_on_path")
    python = f"{active}/bin/python" if active else str(first or situation.target.python or "python")
    modules = {"torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.launch"}

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher in modules and plan.python is None:
            span = (placed(plan, plan.launcher_span[0]), plan.launcher_span[1])
            word = fitting(launch, (span[0], span[0]), python)
            yield Edit(span, f"{word} -m {modules[plan.launcher]}")

    return as_fix(situation, f"the launcher of {python}", edited(situation, rule))


def passes_local_rank(situation: Situation) -> Fix | None:
    """`torch.distributed.launch --use-env`, so that the script gets no argument."""

    def rule(_: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher == "torch.distributed.launch" and not plan.option("use-env"):
            where = placed(plan, plan.launcher_span[1])
            yield Edit((where, where), " --use-env")

    title = "let the launcher pass LOCAL_RANK by environment"
    return as_fix(situation, title, edited(situation, rule))
