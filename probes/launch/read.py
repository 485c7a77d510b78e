"""From words, a line, a shell script or a live process to what is launched. Nothing is run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ddp_assist.probes.launch import options
from ddp_assist.probes.launch.commands import RUNNERS, SHELLS, Reader
from ddp_assist.probes.launch.expand import Field, Scope, Variable, expand
from ddp_assist.probes.launch.launchers import whole
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan, joined
from ddp_assist.probes.launch.shell import ASSIGNED, ELSEWHERE, Traced, tokens
from ddp_assist.probes.launch.walk import LARGEST, Command, Walk

DIRECTIVE = re.compile(r"^#SBATCH[ \t]+(-\S+?)(?:[= \t]+(\S+))?[ \t]*$", re.M)
SLURM_NAMES = {
    "nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
    "gpus-per-node": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"),
    "cpus-per-task": ("SLURM_CPUS_PER_TASK",),
}
SLURM_SHORT = {"-N": "nodes", "-n": "ntasks", "-c": "cpus-per-task"}
STEERING = re.compile(
    r"((LOCAL_|GROUP_|NODE_)?RANK|(LOCAL_)?WORLD_SIZE|MASTER_(ADDR|PORT)|CUDA_VISIBLE_DEVICES)\Z"
    r"|(PET|TORCHELASTIC|TORCH|NCCL|GLOO|SLURM|OMPI|PMI|ACCELERATE)_"
)


def read_launch(words: Sequence[str] | str, env: Mapping[str, str], cwd: Path) -> Launch:
    """The launch that a user typed, either as words or as one line of shell."""
    text = words if isinstance(words, str) else _line(words)
    if not text.strip():
        raise LaunchError("the launch is empty")
    script = _as_file(text, env, cwd)
    launch = script or Launch(text, cwd, env=dict(env))
    return reread(launch, launch.text)


def reread(launch: Launch, text: str) -> Launch:
    """The same launch with another text."""
    reader = Reader()
    scope = Scope(launch.env, launch.cwd)
    if launch.path is not None:
        scope.name = str(launch.path)
        nowhere = (ELSEWHERE, ELSEWHERE)
        scope.arguments = tuple(Traced.computed(w, nowhere) for w in launch.arguments)
        _outer(launch, scope)
        if launch.is_submitted:
            over = re.sub(r" (?=-)", "\n#SBATCH ", " ".join(["", *launch.submitted]))
            scope.variables |= _slurm(text + over)
            scope.elsewhere = True
    Walk(Traced.written(text), scope, reader.notes, reader.meet).whole()
    return replace(launch, text=text, plans=tuple(reader.plans), notes=tuple(reader.notes))


def from_process(argv: Sequence[str], environ: Mapping[str, str], cwd: Path) -> LaunchPlan:
    """The plan that a live process was started with."""
    text = shlex.join(argv)
    fields, at = [], 0
    for word in argv:
        end = at + len(shlex.quote(word))
        value = Traced.computed(word, (at, end))
        fields.append(Field(value, True, (at, end)))
        at = end + 1
    reader = Reader()
    name = os.path.basename(argv[0]) if argv else ""
    if fields and name not in SHELLS:
        scope = Scope(environ, cwd)
        reader.meet(Command(tuple(fields), scope, (), (0, len(text))))
    steering = {k: v for k, v in environ.items() if STEERING.match(k)}
    if not reader.plans:
        return LaunchPlan(launcher=name, words=tuple(argv), env=steering, cwd=cwd)
    return replace(reader.plans[0], env=steering, cwd=cwd)


def _line(words: Sequence[str]) -> str:
    if len(words) == 1 and re.search(r"\s", words[0]):
        return words[0]
    first = 0
    while first < len(words) and ASSIGNED.match(words[first]):
        first += 1
    names = [ASSIGNED.match(w) for w in words[:first]]
    given = [m[0] + shlex.quote(w[m.end() :]) for m, w in zip(names, words, strict=False) if m]
    rest = joined(list(words[first:]))
    joined(list(words))
    return " ".join([*given, rest])


def _as_file(text: str, env: Mapping[str, str], cwd: Path) -> Launch | None:
    """`[X=1] [env ...] [nohup] bash FILE ARGS`, `./FILE` and `sbatch FILE` are the file's text."""
    cut = tokens(text)
    if any(t.kind != "word" and t.raw not in ("\n", "&") for t in cut[:-1]):
        return None
    written = Traced.written(text)
    parts = [written.cut(t.start, t.end) for t in cut if t.kind == "word"]
    scope = Scope(env, cwd)
    given = 0
    while given < len(parts) and ASSIGNED.match(parts[given].text):
        given += 1
    fields = [f for part in parts[given:] for f in expand(part, scope)]
    words = [f.text for f in fields]
    at = _runner(words)
    if at >= len(words) or not all(f.known for f in fields[: at + 1]):
        return None
    shell = os.path.basename(words[at])
    if shell in SHELLS or shell == "sbatch":
        file = at + 1
        if shell == "sbatch":
            file = options.cut(fields, file, options.SBATCH)[2]
        while file < len(words) and words[file].startswith(("-", "+")):
            if words[file].startswith("-") and words[file].endswith("c"):
                return None
            file += 2 if words[file] in ("-o", "+o") else 1
        if file >= len(words):
            return None
    else:
        file, shell = at, "bash"
        if not _is_shell_script(cwd / words[at]):
            return None
    path = Path(words[file])
    return Launch(
        _text(cwd / path), cwd, (), path, tuple(words[file + 1 :]),
        (*(p.text for p in parts[:given]), *words[:at]), shell,
        tuple(words[at + 1 : file]) if shell == "sbatch" else (), dict(env),
    )  # fmt: skip


def _runner(words: Sequence[str]) -> int:
    """How many words in front do not change what runs: `env X=1`, `nohup`, `time`."""
    at = 0
    while at < len(words):
        name = os.path.basename(words[at])
        if name != "env" and name not in RUNNERS:
            break
        if name in RUNNERS and RUNNERS[name][1]:
            at += RUNNERS[name][1]
        at += 1
        while at < len(words) and (words[at].startswith("-") or ASSIGNED.match(words[at])):
            at += 2 if words[at] in ("-u", "-n", "-C") else 1
    return at


def _is_shell_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except (OSError, ValueError):
        return False
    return bool(re.match(rb"#!.*\b(ba|da|z|k)?sh\b", first)) or path.suffix == ".sh"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise LaunchError(f"the launch script {path} is larger than 1 MB, so it was not read")
        if not path.is_file():
            raise LaunchError(f"the launch script {path} is not a file")
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as why:
        if isinstance(why, LaunchError):
            raise
        reason = why.strerror if isinstance(why, OSError) else "its name is not one a file can have"
        raise LaunchError(f"the launch script {path} can't be read: {reason}") from why


def _outer(launch: Launch, scope: Scope) -> None:
    """What stands in front of `bash FILE` is in force inside it."""
    taken_away = False
    for word in launch.outer:
        match = ASSIGNED.match(word)
        if taken_away:
            scope.unset.add(word)
        elif match:
            value = Traced.computed(word[match.end() :].strip("'\""), (ELSEWHERE, ELSEWHERE))
            scope.variables[match[1]] = Variable(value, True)
        taken_away = word == "-u"


def _slurm(text: str) -> dict[str, Variable]:
    """What Slurm will set, as far as the directives of the script say it."""
    found: dict[str, Variable] = {
        name: Variable(None, True)
        for name in ("SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_JOB_ID",
                     "SLURM_JOBID", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURMD_NODENAME",
                     "SLURM_NNODES", "SLURM_NTASKS", "SLURM_GPUS_ON_NODE")
    }  # fmt: skip
    asked: dict[str, str] = {}
    for spelling, value in DIRECTIVE.findall(text):
        short = re.fullmatch(r"(-[Nnc])(\d+)", spelling)
        name = SLURM_SHORT.get(short[1] if short else spelling, spelling.lstrip("-"))
        asked[name] = short[2] if short else value
    nodes, each = whole(asked.get("nodes")), whole(asked.get("ntasks-per-node"))
    if nodes and each:
        asked.setdefault("ntasks", str(nodes * each))
    for name, value in asked.items():
        for variable in SLURM_NAMES.get(name, ()):
            if whole(value) is not None:
                found[variable] = Variable(Traced.computed(value, (ELSEWHERE, ELSEWHERE)), True)
    return found
