"""What a script says about itself: what each rank does, who is started, where they meet."""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final
from urllib.parse import urlsplit

from ddp_assist.probes.model import Endpoint, Target
from ddp_assist.probes.script import known
from ddp_assist.probes.script.read import Project, Source, read_project
from ddp_assist.probes.script.trace import Settings, Trace, follow
from ddp_assist.probes.script.value import Call, Instance, Process, Value

SETTERS: Final = {
    "torchrun",
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate",
    "deepspeed",
}
AGENT_STORE: Final = {"torchrun", "torch.distributed.run", "torch.distributed.launch", "accelerate"}
GIVEN: Final = {
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
}
SPAWNS: Final = ("torch.multiprocessing.spawn", "torch.multiprocessing.start_processes")
_OF_MPI: Final = ("OMPI_", "PMI_", "PMIX_", "MV2_", "MPI_")
INIT: Final = "torch.distributed.init_process_group"


@dataclass(frozen=True, slots=True)
class Gang:
    """Processes that run the same code, each as another rank; a stream is what one of them does."""

    process: Process
    streams: tuple[tuple[Call, ...], ...]
    many: bool | None
    """Whether there is more than one of them; None where the launch decides."""
    size: int | None = None

    @property
    def calls(self) -> Iterator[Call]:
        for stream in self.streams:
            yield from stream


@dataclass(slots=True)
class Option:
    """One option of the script's own command line."""

    names: tuple[str, ...]
    required: bool
    default: Value | None
    type: Value | None
    call: Call

    @property
    def dest(self) -> str:
        given = self.call.get("dest")
        if given is not None and isinstance(given.const, str):
            return given.const
        long = next((n for n in self.names if n.startswith("--")), self.names[0])
        return long.lstrip("-").replace("-", "_")


@dataclass(slots=True)
class ScriptFacts:
    """Everything the checks look at."""

    target: Target
    project: Project
    traces: tuple[Trace, ...]
    launcher: str | None = None
    nnodes: int | None = None
    world: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    gangs: tuple[Gang, ...] = ()
    last: Trace | None = None
    """What the last rank does, where the script makes groups of some ranks only."""
    options: tuple[Option, ...] = ()
    imports: frozenset[str] = frozenset()

    @property
    def source(self) -> Source:
        return self.project.main

    @property
    def frameworks(self) -> frozenset[str]:
        return self.imports & known.FRAMEWORKS

    @property
    def main(self) -> Gang:
        return self.gangs[0]

    def calls(self, *names: str, stray: bool = True) -> list[Call]:
        """Calls by name, once for each place and process, over all ranks."""
        seen: dict[tuple[object, ...], Call] = {}
        for trace in self.traces:
            for call in trace.calls:
                if call.name in names and (stray or not call.stray):
                    key = call.args[0].const if call.name.startswith("environ.") else None
                    seen.setdefault((call.name, id(call.node), call.process.number, str(key)), call)
        return list(seen.values())

    def ending(self, *endings: str) -> list[Call]:
        """Calls whose name ends so."""
        names = {c.name for t in self.traces for c in t.calls if c.name.endswith(endings)}
        return self.calls(*names)

    def value_of(self, value: Value | None) -> Any:
        """A constant; for an option of the command line what the launch gives, or its default."""
        if value is None:
            return None
        if value.known:
            return value.const
        if value.role.startswith("arg:"):
            return self.option_value(value.role[4:])
        return None

    def option_value(self, dest: str) -> Any:
        option = next((o for o in self.options if o.dest == dest), None)
        if option is None:
            return None
        words = self.target.plan.script_args if self.target.plan else ()
        for index, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name in option.names:
                return value if equals else words[index + 1] if index + 1 < len(words) else None
        return option.default.const if option.default is not None and option.default.known else None

    @property
    def starts_children(self) -> bool:
        return len(self.gangs) > 1


def script_of(target: Target) -> Path | None:
    """The script that is examined: named itself, or by the launch."""
    if target.script is not None:
        return target.script
    plan = target.plan
    if plan is None or plan.script is None:
        return None
    if plan.module:
        relative = Path(*plan.script.split("."))
        for path in (plan.cwd / relative.with_suffix(".py"), plan.cwd / relative / "__main__.py"):
            if path.is_file():
                return path
        return None
    named = plan.script_path
    return named if named is not None and named.suffix in (".py", ".ipynb", "") else None


@contextlib.contextmanager
def collector_rests() -> Iterator[None]:
    """Trees and traces live until the end: looking at them for cycles again and again is vain."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_facts(
    target: Target, script: Path, instead: Mapping[Path, str] | None = None
) -> ScriptFacts:
    """Read the script and follow it as rank 0 and as rank 1. Raises ScriptError.

    Several probes ask for the same script, and it is followed once: until one of its files is
    written, or one comes to them.
    """
    global _last
    if instead:
        return _read_facts(target, script, instead)
    asked = (script, target.plan, target.plans, target.env)
    with _following:
        if _last is None or _last[0] != asked or _last[1] != _stamps(_last[2].project):
            facts = _read_facts(target, script, None)
            _last = (asked, _stamps(facts.project), facts)
        known = _last[2]
    # Whoever asks for further files of the project adds them to his own copy.
    project = replace(known.project, sources=dict(known.project.sources))
    return replace(known, target=target, project=project)


_following = Lock()
_last: tuple[object, object, ScriptFacts] | None = None


def _stamps(project: Project) -> list[tuple[int, int, int] | None]:
    files = [source.path for source in project.read()]
    folders = {path.parent for path in files} | set(project.roots)
    return [_stamp(path) for path in (*files, *sorted(folders))]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns


@collector_rests()
def _read_facts(
    target: Target, script: Path, instead: Mapping[Path, str] | None
) -> ScriptFacts:
    plan = target.plan
    project = read_project(script, plan.cwd if plan else None, instead)
    environment = plan.environment(target.env) if plan else dict(target.env)
    launcher = plan.launcher if plan else None
    nnodes, world = _size(target)

    def present(name: str) -> bool | None:
        if plan is None:
            return None
        if name in environment or name in plan.unclear:
            return True
        if launcher in SETTERS and name in GIVEN:
            return True
        starts = {"srun": ("SLURM_",), "mpirun": _OF_MPI, "mpiexec": _OF_MPI}
        return name.startswith(starts.get(launcher or "", ("\0",)))

    def value(name: str) -> str | None:
        return environment.get(name) if plan is not None and name not in plan.unclear else None

    argument = bool(re.search(r"rank\s*=\s*(int\()?\w+\.rank\b", project.main.text))
    words = (
        tuple(p.script_args for p in target.plans if p.script_path == plan.script_path)
        if plan
        else ()
    )
    words = words or ((plan.script_args,) if plan else ())
    traces = tuple(
        follow(project, Settings(rank, world, present, value, words, argument)) for rank in (0, 1)
    )
    entered = traces[0].entered | traces[1].entered
    for trace in traces:  # a function that one rank enters is not one that nothing calls
        trace.calls = [
            c for c in trace.calls if not (c.stray and c.stack and id(c.stack[0]) in entered)
        ]
    facts = ScriptFacts(target, project, traces, launcher, nnodes, world, environment)
    if (
        world is not None
        and world > len(traces)
        and any("new_group" in source.text for source in project.read())
    ):
        facts.last = follow(project, Settings(world - 1, world, present, value, words, argument))
    facts.imports = frozenset(_imports(project))
    facts.options = tuple(_options(facts))
    facts.gangs = tuple(_gangs(facts))
    return facts


def _size(target: Target) -> tuple[int | None, int | None]:
    plan = target.plan
    if plan is None:
        return None, None
    nnodes = plan.nnodes[1] if plan.nnodes else 1
    if plan.launcher == "srun" and plan.nnodes is None:
        seen = plan.environment(target.env)
        nodes, tasks = seen.get("SLURM_NNODES", ""), seen.get("SLURM_NTASKS", "")
        return (int(nodes) if nodes.isdigit() else None), int(tasks) if tasks.isdigit() else None
    if plan.launcher in SETTERS or plan.launcher in ("srun", "mpirun", "mpiexec"):
        return nnodes, plan.nproc * nnodes if isinstance(plan.nproc, int) else None
    size = plan.environment(target.env).get("WORLD_SIZE", "")
    return (nnodes if plan.nnodes else None), int(size) if size.isdigit() else None


_IMPORT: Final = re.compile(
    r"^[ \t]*(?:from[ \t]+([A-Za-z_]\w*)|import[ \t]+([^#\n;]+))", re.MULTILINE
)


def _imports(project: Project) -> Iterator[str]:
    """The packages that the project's files import, by their first name."""
    for source in project.read():
        for start, plain in _IMPORT.findall(source.text):
            if start:
                yield start
            for part in plain.split(","):
                yield part.split(".")[0].split()[0] if part.strip() else ""


def _options(facts: ScriptFacts) -> Iterator[Option]:
    for call in facts.ending(".add_argument", ".option"):
        names = tuple(a.const for a in call.args if isinstance(a.const, str))
        if names and (names[0].startswith("-") or call.name.endswith("add_argument")):
            required, nargs = call.get("required"), call.get("nargs")
            optional = nargs is not None and nargs.const in ("?", "*")
            yield Option(
                names,
                (required is not None and required.const is True)
                or not (names[0].startswith("-") or optional),
                call.get("default"),
                call.get("type"),
                call,
            )


def _gangs(facts: ScriptFacts) -> Iterator[Gang]:
    first, second = facts.traces
    streams = tuple(
        tuple(c for c in trace.calls if c.process.number == 0) for trace in facts.traces
    )
    yield Gang(Process(0), streams, _several(facts, streams), facts.world)
    processes = {c.process.number: c.process for c in first.calls if c.process.number}
    kin: dict[int, list[Process]] = {}
    for process in processes.values():
        if process.function is not None:
            kin.setdefault(id(process.function.node), []).append(process)
        elif process.call is not None:
            kin.setdefault(id(process.call.node), []).append(process)
    for family in kin.values():
        of = [
            [c for c in t.calls if c.process.number == p.number]
            for t in facts.traces
            for p in family
        ]
        head = family[0]
        if len(family) > 1 and not (head.call is not None and head.call.looped):
            pairs = tuple(tuple(stream) for stream in of[: len(family)])
            yield Gang(head, pairs, True, len(family))
        else:
            pairs = (tuple(of[0]), tuple(of[len(family)]))
            size = _count(facts, head)
            yield Gang(head, pairs, size != 1, size)


def _several(facts: ScriptFacts, streams: tuple[tuple[Call, ...], ...]) -> bool | None:
    """Whether the script itself is started several times."""
    if facts.world is not None and facts.world > 1:
        return True
    if facts.launcher in SETTERS or facts.launcher in ("srun", "mpirun", "mpiexec"):
        return facts.world != 1
    if facts.launcher == "python":
        return facts.target.plan is not None and facts.target.plan.background or None
    return None


def _count(facts: ScriptFacts, process: Process) -> int | None:
    call = process.call
    if call is None:
        return None
    if process.via == "pool":
        return None if call.looped or not call.name.endswith((".submit", ".apply")) else 1
    if process.via == "spawn":
        number = facts.value_of(call.get("nprocs", 2))
        if call.get("nprocs", 2) is None:
            return 1
        return number if isinstance(number, int) else None
    for item in handed(call):
        if item.role == "index":
            return item.count
    return None if call.looped else 1


def handed(call: Call) -> list[Value]:
    """What a process is given: its arguments, by place and by name, or its environment."""
    if call.name in SPAWNS:
        given = call.get("args", 1)
        return list((given.items or []) if given is not None else [])
    if call.name.startswith("subprocess."):
        environ = call.get("env")
        return list((environ.table or {}).values()) if environ is not None else []
    given, named = call.get("args", 3), call.get("kwargs", 4)
    parts = list((given.items or []) if given is not None else [])
    parts += list((named.table or {}).values()) if named is not None else []
    owner = call.receiver.target if call.name.endswith(".start") and call.receiver else None
    if isinstance(owner, Instance):
        parts += owner.attrs.values()
    return parts


def endpoints(facts: ScriptFacts) -> list[Endpoint]:
    """Where the script itself tells its ranks to meet, so that live probes look there."""
    found: dict[tuple[str, int | None], Endpoint] = {}

    def add(host: Any, port: Any, call: Call) -> None:
        number = int(port) if isinstance(port, int | str) and str(port).isdigit() else None
        if number and isinstance(host, str) and host:
            origin = call.source.where(getattr(call.node, "lineno", 1))
            found.setdefault((host, number), Endpoint(host, number, origin))

    address: Any = facts.environment.get("MASTER_ADDR", "localhost")
    for call in facts.calls("environ.set", "environ.setdefault"):
        if call.args[0].const == "MASTER_ADDR":
            address = facts.value_of(call.args[1]) or address
    for call in facts.calls("environ.set", "environ.setdefault"):
        if call.args[0].const == "MASTER_PORT" and "rank" not in call.args[1].of:
            add(address, facts.value_of(call.args[1]), call)
    for call in facts.calls(INIT):
        method = call.get("init_method", 1)
        if (
            method is not None
            and isinstance(method.const, str)
            and method.const.startswith("tcp://")
        ):
            try:
                parts = urlsplit(method.const)
                add(parts.hostname, parts.port, call)
            except ValueError:
                continue
    for call in facts.calls("torch.distributed.TCPStore"):
        add(facts.value_of(call.get("host_name", 0)), facts.value_of(call.get("port", 1)), call)
    return list(found.values())
