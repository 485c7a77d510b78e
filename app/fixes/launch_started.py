"""Node ranks where one command starts all nodes: its own words are the same on each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ddp_assist.app.fixes.config_files import is_same_network
from ddp_assist.app.fixes.launch_tasks import NODE, own_rank
from ddp_assist.app.fixes.launch_words import (
    as_fix,
    before,
    drop_option,
    edited,
    option_name,
    placed,
    set_option,
    spelled,
)
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.hosts import is_everywhere
from ddp_assist.probes.launch.launchers import ELASTIC
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan, Option
from ddp_assist.probes.launch.shell import tokens
from ddp_assist.probes.launch.write import Edit
from ddp_assist.probes.model import Finding


def has_one_rank_for_all(findings: Iterable[Finding]) -> bool:
    """Whether Slurm's tasks do not fit because all of them get the same node rank."""
    return any({"option", "node_rank"} & set(finding.data) for finding in findings)


def ranks_by_task(situation: Situation) -> Fix | None:
    if not has_one_rank_for_all(situation.speaks_for):
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.scheduler == "srun" and (plan.nnodes or (1, 1))[1] > 1:
            yield from one_for_each_node(launch, plan, None, None)

    launch = edited(situation, rule)
    title = "node ranks filled in on each node, by Slurm's number of it"
    if launch is not None and "c10d" in launch.text:
        title = "node ranks given out when the nodes meet (c10d), the same words for each"
    return as_fix(situation, title, launch)


def on_each_node(situation: Situation) -> Fix | None:
    """srun before a launcher that a batch script starts on its first node only."""
    count = situation.value("nodes")
    if not situation.value("without_srun") or not isinstance(count, int):
        return None

    def rule(_: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        yield before(plan, f"srun --nodes={count} --ntasks={count} --ntasks-per-node=1")

    return as_fix(situation, f"start it on each of the {count} nodes", edited(situation, rule))


def one_for_each_node(
    launch: Launch, plan: LaunchPlan, address: str | None, port: int | None
) -> Iterator[Edit]:
    """Slurm's number of the node where a shell on the node reads it; else torchrun's agents, and
    accelerate's, agree on the ranks between them; for others such a shell is put around."""
    once_a_node = plan.scheduler is not None or is_everywhere(plan)
    if not once_a_node or plan.repeated or not plan.editable:
        raise LaunchError("no command of this launch is known to start each node once")
    if read_on_the_node(launch, plan):
        yield from _numbered(launch, plan)
    elif plan.launcher in ELASTIC:
        yield from _agreed(launch, plan, address, port)
    elif plan.launcher == "accelerate" and not is_same_network(launch, plan):
        yield from _agreed_machines(launch, plan)
    elif plan.scheduler == "srun":
        if not (address or plan.option(option_name(plan, "master-addr")) or plan.master_addr):
            raise LaunchError("where the nodes are to meet is not said in this launch")
        yield from own_rank(launch, plan)
    else:
        words = f"{plan.scheduler or plan.prefix[0]} starts {plan.launcher} with the same words"
        raise LaunchError(f"{words} on each node: no rank in them is right for all")


def read_on_the_node(launch: Launch, plan: LaunchPlan) -> bool:
    """Within the quotes of `srun bash -c '...'`, which keep a variable for the shell in there."""
    at = plan.launcher_span[0]
    around = [t for t in tokens(launch.text) if t.start <= at < t.end]
    return plan.scheduler == "srun" and any(
        token.raw.startswith("'") and "srun" not in token.raw for token in around
    )


def _numbered(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
    name = option_name(plan, "node-rank")
    given = plan.option(name)
    if given is None:
        where = placed(plan, plan.launcher_span[1])
        yield Edit((where, where), f" {spelled(plan, name)}={NODE}")
    elif given.value_span is not None and given.value_span[0] >= 0:
        yield Edit(given.value_span, NODE)
    else:
        raise LaunchError("the node rank is put together in several places")


def _agreed(
    launch: Launch, plan: LaunchPlan, address: str | None, port: int | None
) -> Iterator[Edit]:
    """`--rdzv-backend c10d` in the place of node rank, master address and port."""
    edits = drop_option(launch, plan, "node-rank")
    edits.append(set_option(launch, plan, "rdzv-backend", "c10d"))
    if plan.rdzv_endpoint is None:
        edits += drop_option(launch, plan, "master-port")
        host = address or _as_written(launch, plan.option("master-addr"))
        if not host:
            raise LaunchError("where the nodes are to meet is not said in this launch")
        door = str(port) if port else _as_written(launch, plan.option("master-port")) or "29500"
        given = plan.option("master-addr")
        word = f"{spelled(plan, 'rdzv-endpoint')}={f'[{host}]' if _is_v6(host) else host}:{door}"
        if given is not None:
            edits.append(Edit(given.span, word))
        else:
            where = placed(plan, plan.launcher_span[1])
            edits.append(Edit((where, where), f" {word}"))
    elif address is not None or port is not None:
        host, _, door = plan.rdzv_endpoint.rpartition(":")
        host = address or host
        word = f"{f'[{host}]' if _is_v6(host) else host}:{port or door}"
        edits.append(set_option(launch, plan, "rdzv-endpoint", word))
    yield from edits


def _agreed_machines(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
    """accelerate wants a machine rank all the same, and it counts for nothing then."""
    yield set_option(launch, plan, "rdzv-backend", "c10d")
    given = plan.option("machine-rank")
    if given.value is None if given is not None else plan.node_rank is None:
        yield set_option(launch, plan, "node-rank", "0")


def _as_written(launch: Launch, given: Option | None) -> str:
    """The words of the user, variables and quotes with them: they are still filled in."""
    written = launch.text[slice(*given.span)] if given and given.span[0] >= 0 else ""
    return re.sub(r"^-[\w-]*[=\s]*", "", written)


def _is_v6(host: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]*:[0-9a-fA-F:.]*", host) is not None
