"""Corrections of what surrounds the launch: variables, interface, limits, the terminal."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterable, Iterator, Mapping

from ddp_assist.app.fixes.launch_words import (
    as_fix,
    before,
    edited,
    meeting,
    placed,
    set_option,
    set_variable,
    take_variables,
)
from ddp_assist.app.fixes.model import Fix, Situation
from ddp_assist.probes.launch.launchers import ELASTIC
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan, Note
from ddp_assist.probes.launch.write import Edit, rewritten
from ddp_assist.probes.network.links import interfaces, plain, way_to
from ddp_assist.probes.network.ports import free_port

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
NAME = re.compile(r"[A-Za-z_]\w*\Z")
ENOUGH_FILES = 65536


def unset_env(situation: Situation) -> Fix | None:
    """What an earlier run left exported is kept away from this command."""
    names = _named(situation)
    if not names:
        return None

    def rule(launch: Launch, plan: LaunchPlan) -> Iterable[Edit]:
        seen = plan.environment(situation.target.env)
        left = [n for n in names if n in seen]
        return take_variables(launch, plan, left) if left else []

    launch = edited(situation, rule)
    return as_fix(
        situation, f"without {', '.join(names)} of the shell", launch,
        trial=launch and meeting(situation, launch),
        does_not="the shell still exports them: unset them there too",
    )  # fmt: skip


def _named(situation: Situation) -> list[str]:
    """The variables that the findings speak of, and all their family that is exported."""
    shell, names = situation.target.env, []
    for finding in situation.speaks_for:
        said = finding.data.get("variables", finding.data.get("variable", ()))
        found = [said] if isinstance(said, str) else [str(n) for n in said]
        names += [n for n in found if NAME.match(n) and n not in names]
    if any(n.startswith("PET_") for n in names):
        names += [n for n in shell if n.startswith("PET_") and n not in names]
    elif any(n in ("RANK", "WORLD_SIZE") for n in names):
        names += [n for n in RANKS if n in shell and n not in names]
    elif any(n.startswith("SLURM_") for n in names) or situation.cause == "slurm-plan-mismatch":
        wanted = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_LOCALID", "SLURM_NODEID")
        names += [n for n in wanted if n in shell and n not in names]
    elif not names and situation.cause == "env-left-exported":
        names = [n for n in shell if n.startswith("PET_") or n in RANKS]
    return [n for n in names if NAME.match(n)]


def set_env(situation: Situation) -> Fix | None:
    """What a launcher would set, where the script numbers its ranks itself."""
    missing = _missing(situation)
    if not missing or not missing <= {"MASTER_ADDR", "MASTER_PORT"}:
        return None
    port = free_port()

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        seen = plan.environment(situation.target.env)
        values = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name in missing and not seen.get(name):
                yield set_variable(launch, plan, name, values[name])

    if port is None or len(situation.target.plans) != 1:
        return None
    launch = edited(situation, rule)
    return as_fix(
        situation, f"set {' and '.join(sorted(missing))} for this host", launch,
        trial=launch and meeting(situation, launch, port),
    )  # fmt: skip


def _missing(situation: Situation) -> set[str]:
    said = situation.value("missing") or situation.value("variables") or situation.value("variable")
    if situation.cause == "missing-env":
        own = (f.data.get("missing") or f.data.get("names") for f in situation.speaks_for)
        said = next((names for names in own if names), None)
    if isinstance(said, str):
        return {said}
    return {str(name) for name in said} if isinstance(said, (list, tuple, Mapping)) else set()


def set_interface(situation: Situation) -> Fix | None:
    """The interface through which this host reaches the others, by its exact name."""
    backend = situation.target.backend
    both = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    said = next((f.data["variable"] for f in situation.speaks_for if "variable" in f.data), None)
    names = (str(said),) if said in both else both[1:] if backend == "nccl" else both[:1]

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        link = _interface(situation, plan)
        for name in names if link else ():
            yield set_variable(launch, plan, name, str(link))

    return as_fix(
        situation, f"name the interface in {' and '.join(names)}", edited(situation, rule)
    )


def _interface(situation: Situation, plan: LaunchPlan) -> str | None:
    for finding in situation.findings:
        if finding.key == "interface.route" and finding.data.get("interface"):
            return str(finding.data["interface"])
    host = plan.master_addr or (plan.rdzv_endpoint or "").rpartition(":")[0]
    far = plain(host) if host else None
    try:
        links = interfaces()
    except OSError:
        return None
    able = [i for i in links if i.up and i.running and not i.loopback and i.usable]
    source = way_to(far) if far is not None else None
    carrying = next((i.name for i in able if source in i.addresses), None)
    if carrying is not None or far is not None:
        on_link = [i.name for i in links if far is not None and far in i.addresses]
        return carrying or next(iter(on_link), None)
    physical = [i.name for i in able if not i.virtual] or [i.name for i in able]
    return physical[0] if len(physical) == 1 else None


def raise_nofile(situation: Situation) -> Fix | None:
    """The soft limit raised to what the user may have; a lower one in the script replaced."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    launch = situation.target.launch
    own = re.compile(r"(?m)^(\s*ulimit\s+(?:-[SH]+\s+)?-[SH]*n\s+)(\d+)")
    found = list(own.finditer(launch.text)) if launch else []
    if launch is not None and found and any(int(m[2]) < wanted for m in found):
        changed: Launch | None = rewritten(launch, {Edit(m.span(2), str(wanted)) for m in found})
    else:
        changed = edited(situation, lambda launch, plan: [_line_before(launch, plan, wanted)])
    return as_fix(situation, f"allow {wanted} open files", changed)


def _line_before(launch: Launch, plan: LaunchPlan, wanted: int) -> Edit:
    where = placed(plan, plan.span[0])
    line = launch.text[launch.text.rfind("\n", 0, where) + 1 : where]
    return Edit((where, where), f"ulimit -n {wanted}" + ("\n" if not line.strip() else "; ") + (
        line if not line.strip() else ""
    ))  # fmt: skip


def _version(said: object) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", str(said))
    return (int(match[1]), int(match[2])) if match else (0, 0)


def setsid(situation: Situation) -> Fix | None:
    """Out of the terminal's session, and deaf to its hang-up: nohup alone is not enough."""
    handles = any(_version(f.data.get("version")) >= (2, 10) for f in situation.findings
                  if f.probe == "torch")  # fmt: skip

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if "setsid" in plan.prefix:
            return
        ignores = plan.launcher in ELASTIC and handles and plan.option("signals-to-handle") is None
        if ignores:
            yield set_option(launch, plan, "signals-to-handle", "SIGTERM,SIGINT,SIGQUIT")
        bare = "setsid" if "nohup" in plan.prefix or not ignores else "setsid nohup"
        yield before(plan, bare)

    return as_fix(
        situation, "start it outside the terminal's session (setsid)", edited(situation, rule),
        does_not="the output still goes to the terminal: send it to a file, or work in tmux",
    )  # fmt: skip


def own_store_on_restart(situation: Situation) -> Fix | None:
    """Each attempt gets a store of its own instead of the agent's."""

    def rule(launch: Launch, plan: LaunchPlan) -> Iterator[Edit]:
        if plan.launcher in ELASTIC:
            yield set_variable(launch, plan, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")

    return as_fix(situation, "a fresh store for each restart", edited(situation, rule))


def export_variable(situation: Situation) -> Fix | None:
    """The assignment written as the shell wants it, and exported."""
    launch = situation.target.launch
    if launch is None:
        return None
    try:
        edits = {e for note in launch.notes for e in _rewritten_note(launch, note)}
        edits |= set(_exports(situation, launch))
        changed = rewritten(launch, edits) if edits else None
    except LaunchError:
        return None
    return as_fix(situation, "set and export the variable as the shell wants it", changed)


def _rewritten_note(launch: Launch, note: Note) -> Iterator[Edit]:
    text = launch.text[slice(*note.span)]
    name = re.escape(note.name)
    if note.kind in ("blank-after-equals", "blank-before-equals"):
        right = re.sub(rf"\$?({name})\s*=\s+|\$?({name})\s+=\s*", rf"{note.name}=", text)
    elif note.kind == "other-shell":
        right = re.sub(rf"^(?:set|setenv)\s+({name})[=\s]\s*", rf"export {note.name}=", text)
    else:
        right = text.replace(f"${note.name}=", f"{note.name}=", 1)
    if right != text:
        word = (
            right
            if re.match(r"(export|declare|typeset|readonly|local)\s", right)
            else f"export {right}"
        )
        yield Edit(note.span, word)


def _exports(situation: Situation, launch: Launch) -> Iterator[Edit]:
    wanted = set(_missing(situation)) or set(RANKS)
    hidden = {n for p in launch.plans for n in p.unexported if n in wanted}
    for name in hidden:
        found = list(re.finditer(rf"(?m)^[ \t]*({re.escape(name)}=)", launch.text))
        for match in found:
            yield Edit((match.start(1), match.start(1)), "export ")
