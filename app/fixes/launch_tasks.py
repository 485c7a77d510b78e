"""A command that one `srun` or `mpirun` starts on each node, told there what is that node's own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ddp_assist.app.fixes.launch_words import drop_option, option_name, placed, spelled
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan
from ddp_assist.probes.launch.shell import tokens
from ddp_assist.probes.launch.write import SIMPLE, Edit

NODE = "$SLURM_NODEID"
VALUE = re.compile(r"[\w.,:@%+=/-]+", re.ASCII)
HOST = re.compile(r"[\w.-]+", re.ASCII)


def own_rank(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
    """The node rank filled in by a shell on the node: for words outside of any quotes, which the
    batch script would fill in once for all."""
    start, end = plan.launcher_span
    words = launch.text[placed(plan, start) : end]
    if not SIMPLE.fullmatch(words) or not _begins(launch, start):
        raise LaunchError(f"no shell on the node can be put around {plan.launcher}")
    name = option_name(plan, "node-rank")
    yield from drop_option(launch, plan, name)
    told = f"{words} {spelled(plan, name)}={NODE}"
    yield Edit((start, end), f"bash -c 'exec {told} \"$@\"' _")


def own_variables(
    launch: Launch, plan: LaunchPlan, env: Mapping[str, Mapping[str, str]],
    called: Mapping[str, str],
) -> Iterator[Edit]:  # fmt: skip
    """Variables that are another on each node; `called` is what a node calls itself."""
    if plan.scheduler is None or plan.repeated:
        raise LaunchError("no command of this launch is known to start each node once")
    where = plan.launcher_span[0]
    if not plan.editable or not _begins(launch, where):
        where = _behind_its_own_words(launch, plan, {name for own in env.values() for name in own})
    shell = f"bash -c '{_each(env, called)}; exec \"$@\"' _"
    yield Edit((where, where), f"{shell} " if _begins(launch, where) else f" {shell}")


def _behind_its_own_words(launch: Launch, plan: LaunchPlan, names: set[str]) -> int:
    """Around all that is started, so that it must not set the variables again for itself."""
    where = plan.tasks_at
    again = [name for name in names if (one := plan.assignment(name)) and one.span[0] >= where]
    if again or not any(token.end == where for token in tokens(launch.text)):
        raise LaunchError("what each node is to be told can't be put in front of the command")
    return where


def _begins(launch: Launch, where: int) -> bool:
    """Whether a word of the shell begins there, so that others can be put in front of it."""
    return any(token.start == where for token in tokens(launch.text))


def _each(env: Mapping[str, Mapping[str, str]], called: Mapping[str, str]) -> str:
    """What most nodes need is for all that are not named, also for those of a later allocation."""
    groups: dict[str, list[str]] = {}
    for node, own in env.items():
        text = " ".join(f"{name}={value}" for name, value in own.items())
        if not all(map(VALUE.fullmatch, (*own, *own.values()))):
            raise LaunchError(f"{text!r} can't be put between quotes")
        groups.setdefault(text, []).append(called.get(node, node))
    every = [host for hosts in groups.values() for host in hosts]
    if len(set(every)) < len(every) or not all(map(HOST.fullmatch, every)):
        raise LaunchError("the nodes can't be told apart by what they call themselves")
    usual = max(groups, key=lambda text: len(groups[text]))
    odd = [(hosts, text) for text, hosts in groups.items() if text != usual]
    branches = [*(("|".join(hosts), text) for hosts, text in odd), ("*", usual)]
    said = " ".join(f"{hosts}) {f'export {text}' if text else ':'} ;;" for hosts, text in branches)
    return f"case $(uname -n) in {said} esac"
