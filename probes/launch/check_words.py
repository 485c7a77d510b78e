"""Checks of single words: options that are dropped or unknown, variables that do not arrive."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ddp_assist.probes.launch.check_meeting import PLACEHOLDER
from ddp_assist.probes.launch.hosts import HOSTFILES, hosts_option
from ddp_assist.probes.launch.judging import PLAIN, is_handed_on, nodes, raw, say
from ddp_assist.probes.launch.launchers import ELASTIC, TABLES
from ddp_assist.probes.launch.plan import LaunchPlan
from ddp_assist.probes.model import Finding, Target

NEEDED = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
KINDS = {
    "blank-after-equals": "there is a blank behind =, so the variable is empty",
    "blank-before-equals": "there is a blank before =, so the shell takes the name for a command",
    "dollar-before-name": "there is a $ before the name, so the shell takes it for a command",
    "other-shell": "another shell sets variables so; bash does it with export NAME=value",
}
ONLY_LAUNCHERS = frozenset({
    "nproc-per-node", "rdzv-endpoint", "rdzv-backend", "rdzv-id", "standalone", "num-processes",
    "num-machines", "main-process-port", "main-process-ip", "machine-rank", "nnodes",
})  # fmt: skip
HARMLESS = {"PET_NNODES": ("1", "1:1"), "PET_NODE_RANK": ("0",), "PET_STANDALONE": ("0", "1")}
LARGEST = 1 << 20


def left_over(target: Target) -> Iterator[Finding]:
    """PET_* variables of the shell, which torchrun takes as if they were options."""
    for plan in target.plans:
        if plan.launcher not in ELASTIC:
            continue
        given = {o.name for o in plan.options}
        steering = {
            name: value
            for name, value in target.env.items()
            if name.startswith("PET_")
            and name[4:].lower().replace("_", "-") in TABLES["torchrun"].values
            and name[4:].lower().replace("_", "-") not in given
            and name not in plan.env
            and name not in plan.unset
            and value not in HARMLESS.get(name, ())
        }
        if steering:
            shown = ", ".join(f"{k}={v[:40]}" for k, v in sorted(steering.items())[:5])
            sentence = f"{shown}: exported in the shell, and torchrun takes them as options"
            yield say(
                target, plan, "env-left-exported", sentence,
                variables={k: v[:200] for k, v in sorted(steering.items())},
            )  # fmt: skip


def exports(target: Target) -> Iterator[Finding]:
    if target.launch is None:
        return
    for note in target.launch.notes:
        line = target.launch.text[slice(*note.span)][:80]
        sentence = f"{line!r} does not set {note.name}: {KINDS[note.kind]}"
        yield say(target, None, "env-export-syntax", sentence, variable=note.name, kind=note.kind)
    for plan in target.plans:
        if plan.launcher not in PLAIN:
            continue
        hidden = [n for n in NEEDED if n in plan.unexported and not _sees(plan, target, n)]
        hidden = [n for n in hidden if not is_handed_on(target.launch.text, n)]
        if hidden:
            through = next((w for w in ("ssh", "sudo", "docker", "podman") if w in plan.prefix), "")
            why = f"does not get through {through}" if through else "is set, but never exported"
            sentence = f"{', '.join(hidden)} {why}: the command does not see it"
            yield say(target, plan, "env-export-syntax", sentence, variables=hidden)


def _sees(plan: LaunchPlan, target: Target, name: str) -> bool:
    return name in plan.env or name in plan.unclear or name in plan.environment(target.env)


def ignored(target: Target) -> Iterator[Finding]:
    """Options that the launcher drops without a word that anybody reads."""
    for plan in target.plans:
        several = (nodes(plan) or 1) > 1
        given = {o.name for o in plan.options}
        if plan.launcher in ELASTIC:
            dynamic = plan.rdzv_backend not in (None, "static")
            address = sorted(given & {"master-addr", "master-port"})
            if dynamic and several and address and not plan.rdzv_endpoint:
                named = " and ".join(f"--{n}" for n in address)
                sentence = (
                    f"{named} only count for the static rendezvous: {plan.rdzv_backend} looks at "
                    "--rdzv-endpoint, which is not given"
                )
                yield say(target, plan, "launcher-flag-ignored", sentence, option=f"--{address[0]}")
            elif plan.standalone and several:
                sentence = (
                    f"--standalone meets on this host only, but {nodes(plan)} nodes are asked for"
                )
                yield say(target, plan, "launcher-flag-ignored", sentence, option="--standalone")
        if plan.launcher in TABLES:
            late = [w for w in plan.script_args if w.startswith("--")]
            known = TABLES[plan.launcher]
            for word in late:
                name = word.lstrip("-").partition("=")[0].replace("_", "-")
                if name in ONLY_LAUNCHERS and known.known(name) == name and name not in given:
                    sentence = (
                        f"{word[:60]} stands behind {plan.script}, so {plan.launcher} does not see "
                        "it: the script gets it"
                    )
                    yield say(target, plan, "launcher-flag-ignored", sentence, option=f"--{name}")


SWALLOWED = re.compile(r"(?<=[^\s-])--(?P<name>[A-Za-z][\w-]+)(?==|$)")


def swallowed(target: Target) -> Iterator[Finding]:
    """An option that was written without a blank before it is part of the value of the last one."""
    for plan in target.plans:
        known = TABLES.get(plan.launcher)
        for one in plan.options if known else ():
            inside = SWALLOWED.search(one.value or "")
            name = inside["name"].replace("_", "-") if inside else ""
            if inside and known and known.known(name) == name:
                sentence = (
                    f"there is no blank before {inside[0][:60]}, so it is part of the value of "
                    f"{one.spelling[:40]}"
                )
                yield say(
                    target, plan, "launcher-flag-ignored", sentence,
                    option=f"--{name}", inside=one.name, inside_at=inside.start(),
                )  # fmt: skip


def unknown_options(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        if plan.launcher == "torch.distributed.launch":
            sentence = "torch.distributed.launch is deprecated: torchrun takes its place"
            yield say(target, plan, "launcher-deprecated", sentence)
        known = TABLES.get(plan.launcher)
        for one in plan.options if known else ():
            if one.known or known is None or one.name.startswith(("srun-", "mpirun-", "docker-")):
                continue
            every = known.values | known.flags
            near = difflib.get_close_matches(one.name, every, 1, 0.8)
            meant = f"; --{near[0]} is the nearest" if near else ""
            sentence = f"{plan.launcher} knows no option {one.spelling[:40]}{meant}"
            yield say(
                target, plan, "option-unknown", sentence,
                option=one.spelling[:80], nearest=near[0] if near else None,
            )  # fmt: skip


def hostfile(target: Target, texts: Mapping[Path, str] | None = None) -> Iterator[Finding]:
    """`texts` are files as they are to be, in the place of those that lie there."""
    for plan in target.plans:
        given = plan.hostfile or hosts_option(plan)
        written = " ".join(raw(target, plan.option(name)) for name in HOSTFILES)
        if plan.host is not None or "docker" in plan.prefix or "$" in written + (given or ""):
            continue
        if not given:
            if plan.launcher == "deepspeed" and plan.starts_all and (nodes(plan) or 1) > 1:
                sentence = f"deepspeed is to start {nodes(plan)} nodes, and no hostfile names them"
                yield say(target, plan, "hostfile-invalid", sentence)
            continue
        path = plan.cwd / given
        text = (texts or {}).get(path)
        why = _hosts(path, text, slots=plan.launcher in ("deepspeed", "accelerate"))
        if why is not None:
            sentence = f"the hostfile {given[:120]} {why}"
            yield say(target, plan, "hostfile-invalid", sentence, path=str(path)[:400])


def _hosts(path: Path, text: str | None, slots: bool) -> str | None:
    """What is wrong with a hostfile, if something is."""
    try:
        if text is None and path.stat().st_size > LARGEST:
            return None
        text = path.read_text(encoding="utf-8", errors="replace") if text is None else text
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError):
        return None
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    hosts = [words for words in lines if words]
    if not hosts:
        return "names no host"
    for words in hosts:
        if PLACEHOLDER.search(words[0]):
            return f"names {words[0][:60]}, which is a placeholder"
        if slots and not any(re.fullmatch(r"slots=\d+", w) for w in words[1:]):
            return f"has a line without slots=N: {' '.join(words)[:60]}"
    names = [words[0] for words in hosts]
    twice = next((n for n in names if names.count(n) > 1), None) if slots else None
    return f"names {twice[:60]} twice" if twice else None


def container(target: Target) -> Iterator[Finding]:
    for plan in target.plans:
        options: Mapping[str, str | None] = {o.name: o.value for o in plan.options}
        inside = (
            any(w in ("docker", "podman", "nerdctl") for w in plan.prefix) and "run" in plan.prefix
        )
        roomy = {"docker-shm-size", "docker-ipc"} & set(options)
        if inside and not roomy:
            sentence = "the container gets 64 MB of /dev/shm: --shm-size or --ipc=host is not given"
            yield say(target, plan, "container-shm-default", sentence)
