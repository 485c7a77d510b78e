"""One command of a script: what stands in front of the launcher is peeled off, word by word."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ddp_assist.probes.launch import options as tables
from ddp_assist.probes.launch.expand import Field, Scope, Variable, is_known
from ddp_assist.probes.launch.launchers import describe, recognise, whole
from ddp_assist.probes.launch.makefile import recipes
from ddp_assist.probes.launch.options import cut
from ddp_assist.probes.launch.plan import Assignment, LaunchPlan, Note, Option
from ddp_assist.probes.launch.shell import ASSIGNED, ELSEWHERE, NOTHING, Traced
from ddp_assist.probes.launch.walk import Command, Walk, elsewhere

SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh"})
RUNNERS: Mapping[str, tuple[str, int]] = {
    "nohup": ("", 0), "time": ("-o -f", 0), "nice": ("-n --adjustment", 0), "setsid": ("", 0),
    "ionice": ("-c -n", 0), "stdbuf": ("-i -o -e", 0), "unbuffer": ("", 0), "command": ("", 0),
    "timeout": ("-s --signal -k --kill-after", 1), "taskset": ("", 1), "chrt": ("", 1),
    "numactl": ("-N -m -C -i --cpunodebind --membind --physcpubind --interleave", 0),
    "exec": ("-a", 0), "caffeinate": ("", 0), "doas": ("-u", 0), "builtin": ("", 0),
    "systemd-run": ("-p --property -u --unit --slice --uid --gid -E --setenv", 0),
}  # fmt: skip
"""Words that run what stands behind them: options that take a value, and words they use."""
TOOLS = {
    "conda": "-n --name -p --prefix --cwd", "mamba": "-n --name -p --prefix --cwd",
    "micromamba": "-n --name -p --prefix --cwd", "poetry": "-C --directory -P --project",
    "uv": "--with --python -p --extra --group --env-file --directory --project --package"
          " --index-url --with-requirements --with-editable",
    "pdm": "-p --project", "pipenv": "", "rye": "", "pixi": "-e --environment --manifest-path",
    "hatch": "-e --env", "coverage": "--rcfile --source --data-file",
}  # fmt: skip
"""Tools whose `run` starts the rest in an environment of theirs."""
SSH_VALUES = frozenset("bcDEeFIiJLlmOopQRSWw")
DOCKER_FLAGS = frozenset({
    "-d", "-i", "-t", "-it", "-ti", "-dit", "-itd", "--rm", "--init", "--privileged", "--detach",
    "--interactive", "--tty", "--read-only", "--no-healthcheck", "-P", "--publish-all",
    "--oom-kill-disable", "--sig-proxy", "--tls", "--nv", "--rocm", "--fakeroot", "--cleanenv",
    "-e", "--contain", "-c", "--writable", "--no-home", "--containall", "-C", "--userns",
})  # fmt: skip
TALKS_ABOUT = frozenset({
    "echo", "printf", "which", "type", "hash", "pip", "pip3", "apt", "apt-get", "yum", "dnf",
    "brew", "pkill", "killall", "pgrep", "grep", "egrep", "rg", "ls", "cp", "mv", "rm", "ln",
    "cat", "sed", "awk", "tail", "head", "less", "mkdir", "touch", "test", "[", "[[", "git",
    "wait", "kill", "sleep", "exit", "return", "module", "ml", "true", "false", ":", "trap",
    "alias", "ps", "pstree", "lsof", "ss", "du", "df", "find", "chmod", "chown", "tar", "wget",
    "curl", "rsync", "scp", "man", "whereis", "file", "stat", "readlink", "realpath", "ulimit",
    "mount", "sysctl", "virtualenv", "nvidia-smi", "date", "hostname",
    "id", "logger", "tee", "vim", "nano", "code", "diff", "source", ".", "eval", "cd",
})  # fmt: skip


@dataclass(slots=True)
class State:
    """What has been learnt from the words in front of the launcher."""

    words: list[Field]
    env: dict[str, Variable]
    user: Mapping[str, str]
    unset: set[str]
    cwd: Path
    host: str | None = None
    prefix: list[str] = field(default_factory=list)
    scheduler: str | None = None
    tasks: int | None = None
    tasks_at: int = ELSEWHERE
    more: list[Option] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    """Variables that were exported, but do not get through `ssh`, `sudo` or a container."""

    def take(self, count: int) -> list[Field]:
        taken, self.words = self.words[:count], self.words[count:]
        self.prefix += [w.text for w in taken]
        return taken

    def give(self, text: Traced) -> None:
        """`NAME=value` as a word of `env`, `sudo` or `docker -e`."""
        match = ASSIGNED.match(text.text)
        if match is None:
            return
        value = text.cut(match.end(), len(text.text))
        span = text.raw_span(0, len(text.text))
        inside = value.span() or (span[1], span[1])
        one = Assignment(match[1], value.text, span, inside)
        self.env[match[1]] = Variable(value, True, one)

    def forget(self) -> None:
        """The command starts with an environment of its own."""
        self.lost |= {n: v.value.text for n, v in self.env.items() if isinstance(v.value, Traced)}
        self.env, self.user = {}, {}


class Reader:
    """Turns the commands of a walk into plans."""

    def __init__(self) -> None:
        self.plans: list[LaunchPlan] = []
        self.notes: list[Note] = []

    def meet(self, command: Command) -> None:
        scope = command.scope
        env = {n: v for n, v in scope.variables.items() if v.exported}
        for one in command.line:
            value = scope.pending.get(one.name)
            sure = not isinstance(value, Traced) or is_known(value)
            env[one.name] = Variable(value if sure else None, True, one)
        unset = {n for n in scope.unset if n not in env}
        state = State(list(command.words), env, scope.user, unset, scope.cwd, command.host)
        while state.words and self.peel(state, command):
            pass

    def peel(self, state: State, command: Command) -> bool:
        """Takes one layer off. False when nothing more is to be done."""
        word = state.words[0]
        name = os.path.basename(word.text) if word.known else ""
        start = recognise(state.words, 0)
        if start is not None:
            self.plans.append(self.plan(state, command))
        elif name == "env":
            return self.env(state)
        elif name in ("sudo", "docker", "podman", "singularity", "apptainer", "nerdctl"):
            return self.sudo(state) if name == "sudo" else self.container(state)
        elif name in ("su", "runuser"):
            self.su(state, command)
        elif name in SHELLS or (name == "sbatch" and not command.scope.user.get("SLURM_JOB_ID")):
            self.shell(state, command)
        elif name == "ssh":
            self.ssh(state, command)
        elif name == "make":
            self.make(state, command)
        elif name == "screen":
            state.take(1)
            return self.options(state, "-S -c -dmS -DmS -mdS -LdmS -t -h -Logfile")
        elif name == "tmux":
            return self.tmux(state, command)
        elif name in ("srun", "mpirun", "mpiexec", "mpirun.openmpi", "mpiexec.hydra", "orterun"):
            return self.scheduler(state, "srun" if name == "srun" else "mpirun")
        elif name in TOOLS and state.words[1:] and state.words[1].text == "run":
            state.take(2)
            return self.options(state, TOOLS[name])
        elif name in RUNNERS:
            values, used = RUNNERS[name]
            state.take(1)
            self.options(state, values)
            state.take(used)
            return True
        elif word.known and (name.endswith(".sh") or word.text.startswith("./")):
            self.shell(state, command, itself=True)
        elif name not in TALKS_ABOUT and not ASSIGNED.match(word.text):
            return self.stranger(state)
        return False

    def options(self, state: State, values: str) -> bool:
        with_value = values.split()
        while state.words and state.words[0].text.startswith("-"):
            text = state.words[0].text
            state.take(2 if text in with_value else 1)
            if text == "--":
                break
        return True

    def env(self, state: State) -> bool:
        state.take(1)
        while state.words:
            text = state.words[0].text
            if text in ("-i", "-", "--ignore-environment"):
                state.forget()
                state.take(1)
            elif text in ("-u", "--unset", "-C", "--chdir") and len(state.words) > 1:
                value = state.take(2)[1].text
                self.removed(state, value) if "u" in text else self.moved(state, value)
            elif text.startswith(("--unset=", "--chdir=")):
                value = text.partition("=")[2]
                self.removed(state, value) if "uns" in text else self.moved(state, value)
                state.take(1)
            elif re.match(r"-u.", text):
                self.removed(state, text[2:])
                state.take(1)
            elif ASSIGNED.match(text):
                state.give(state.words[0].value)
                state.take(1)
            elif text.startswith("-"):
                state.take(1)
            else:
                return True
        return False

    def removed(self, state: State, name: str) -> None:
        state.env.pop(name, None)
        state.unset.add(name)

    def moved(self, state: State, path: str) -> None:
        state.cwd = Path(os.path.normpath(state.cwd / path))

    def sudo(self, state: State) -> bool:
        taken = [state.take(1)[0].text]
        while state.words and state.words[0].text.startswith("-"):
            text = state.words[0].text
            taken.append(text)
            state.take(2 if text in ("-u", "-g", "-h", "-p", "-C", "-D", "-U") else 1)
        if not any(t.startswith("--preserve-env") or t in ("-E", "-nE", "-En") for t in taken):
            state.forget()
        while state.words and ASSIGNED.match(state.words[0].text):
            state.give(state.words[0].value)
            state.take(1)
        return True

    def container(self, state: State) -> bool:
        """`docker run OPTIONS IMAGE COMMAND`: only what reaches the ranks is understood."""
        kind = state.take(1)[0].text
        verb = state.take(1)[0].text if state.words else ""
        if verb not in ("run", "exec"):
            return False
        docker = os.path.basename(kind) in ("docker", "podman", "nerdctl")
        if docker:
            state.forget()
        while state.words and state.words[0].text.startswith("-"):
            text = state.words[0].text
            name, equals, _ = text.partition("=")
            lone = text in DOCKER_FLAGS and not (docker and text in ("-e", "-c"))
            single = bool(equals) or lone
            taken = state.take(1 if single else 2)
            last = taken[-1].value
            value = last.cut(len(name) + 1, len(last.text)) if equals else last
            if name in ("-e", "--env") and (docker or name == "--env"):
                state.give(value)
            elif not single or equals:
                span = (taken[0].span[0], taken[-1].span[1])
                state.more.append(
                    Option("docker-" + name.lstrip("-"), value.text, name, span, value.span())
                )
            else:
                state.more.append(Option("docker-" + name.lstrip("-"), None, name, taken[0].span))
        state.take(1)
        return bool(state.words)

    def su(self, state: State, command: Command) -> None:
        words = state.words[1:]
        if any(w.text in ("-", "-l", "--login") for w in words):
            state.forget()
        for i, word in enumerate(words):
            if word.text in ("-c", "--command") and i + 1 < len(words):
                state.take(i + 2)
                self.inner(words[i + 1].value, words[i + 1].known, state, command, "bash", ())

    def shell(self, state: State, command: Command, itself: bool = False) -> None:
        words = state.words if itself else state.words[1:]
        i = 0
        while not itself and i < len(words) and words[i].text[:1] in ("-", "+"):
            text = words[i].text
            if text.startswith("-") and not text.startswith("--") and text.endswith("c"):
                if i + 1 < len(words):
                    rest = words[i + 2 :]
                    name = rest[0].text if rest else "bash"
                    state.take(2)
                    self.inner(
                        words[i + 1].value, words[i + 1].known, state, command, name,
                        tuple(w.carried for w in rest[1:]),
                    )  # fmt: skip
                return
            takes_value = text.endswith("o") or text in ("--rcfile", "--init-file")
            i += 2 if takes_value or text.startswith(("--wrap", "-p", "-A", "-J", "-t")) else 1
        if i < len(words) and words[i].known:
            path = state.cwd / words[i].text
            text_there = elsewhere(path)
            if text_there is not None:
                arguments = tuple(w.carried for w in words[i + 1 :])
                state.take(1)
                self.inner(text_there, True, state, command, words[i].text, arguments)

    def make(self, state: State, command: Command) -> None:
        """Each line of a recipe is a shell of its own."""
        if not all(w.known for w in state.words):
            return
        words = [w.text for w in state.take(len(state.words))[1:]]
        begun = state.cwd
        for folder, line in recipes(begun, words):
            state.cwd = folder
            text = Traced.computed(line, (ELSEWHERE, ELSEWHERE))
            self.inner(text, True, state, command, "make", ())
        state.cwd = begun

    def tmux(self, state: State, command: Command) -> bool:
        """A command in a window of its own: words, or one word of shell."""
        state.take(1)
        verb = state.take(1)[0].text if state.words else ""
        if verb not in ("new", "new-session", "neww", "new-window", "splitw", "split-window",
                        "send-keys", "send", "respawn-pane"):  # fmt: skip
            return False
        self.options(state, "-s -n -c -t -x -y -F -e -l -p -ds -dsn")
        if len(state.words) == 1 or verb.startswith("send"):
            text = state.take(1)[0] if state.words else None
            if text is not None:
                self.inner(text.value, text.known, state, command, "bash", ())
            return False
        return bool(state.words)

    def ssh(self, state: State, command: Command) -> None:
        i, words = 1, state.words
        while i < len(words) and words[i].text.startswith("-"):
            i += 2 if words[i].text[1:] in SSH_VALUES else 1
        if i + 1 >= len(words):
            return
        state.host = words[i].text.rpartition("@")[2]
        text, known = NOTHING, True
        for number, word in enumerate(words[i + 1 :]):
            blank = Traced.computed(" ", (ELSEWHERE, ELSEWHERE)) if number else NOTHING
            text, known = text + blank + word.value, known and word.known
        state.take(i + 1)
        state.forget()
        self.inner(text, known, state, command, "bash", ())

    def inner(
        self, text: Traced, known: bool, state: State, command: Command, name: str,
        arguments: tuple[Traced, ...],
    ) -> None:  # fmt: skip
        """Follows a script inside the command. Its plans carry what stands in front of it."""
        if not known:
            return
        scope = Scope(state.user, state.cwd, dict(state.env), set(state.unset), arguments, name)
        before = len(self.plans)
        over = replace(command, host=state.host)
        Walk(text, scope, [] if ELSEWHERE in text.starts else self.notes, self.meet, over).whole()
        for at in range(before, len(self.plans)):
            plan = self.plans[at]
            self.plans[at] = replace(
                plan,
                launcher=_started_by(plan.launcher, state.scheduler),
                prefix=(*state.prefix, *plan.prefix),
                host=plan.host or state.host,
                scheduler=plan.scheduler or state.scheduler,
                tasks=state.tasks if plan.tasks is None else plan.tasks,
                tasks_at=state.tasks_at if plan.tasks_at == ELSEWHERE else plan.tasks_at,
                options=(*plan.options, *state.more),
                unexported={n: v for n, v in state.lost.items() if n not in plan.env}
                | dict(plan.unexported),
            )

    def scheduler(self, state: State, kind: str) -> bool:
        """`srun` and `mpirun` start the command behind them several times."""
        options, _, at = cut(state.words, 1, tables.SRUN if kind == "srun" else tables.MPIRUN)
        given = {o.name: o.value for o in options}
        state.scheduler = kind
        number = given.get("ntasks") or given.get("n")
        nodes = whole((given.get("nodes") or "").partition("-")[0])
        each = whole(given.get("ntasks-per-node"))
        state.tasks = whole(number) or (nodes * each if nodes and each else None)
        for one in options:
            if one.name == "x" and one.value and "=" in one.value:
                state.give(Traced.computed(one.value, one.value_span or one.span))
            if one.name in ("genv", "env") and one.value:
                state.give(Traced.computed(one.value, one.span))
            state.more.append(replace(one, name=f"{kind}-{one.name}"))
        state.tasks_at = state.words[at - 1].span[1]
        state.take(at)
        return bool(state.words)

    def stranger(self, state: State) -> bool:
        """A word we do not know: if a launcher stands behind it, it is taken for a runner."""
        for i in range(1, min(len(state.words) - 1, 40)):
            if not self.leads_on(state, i):
                continue
            before = [w.text for w in state.words[:i]]
            if i == 2 and re.fullmatch(r"[A-Za-z][\w.-]*", before[1]) and state.host is None:
                state.host = before[1]
            state.take(i)
            return True
        return False

    def leads_on(self, state: State, i: int) -> bool:
        """A launcher, or a wrapper that we know with a launcher behind it."""
        if recognise(state.words, i) is not None:
            return True
        name = os.path.basename(state.words[i].text)
        if name not in RUNNERS and name != "env":
            return False
        return any(recognise(state.words, n) for n in range(i + 1, min(len(state.words), 40)))

    def plan(self, state: State, command: Command) -> LaunchPlan:
        start = recognise(state.words, 0)
        assert start is not None
        known = {n: v.value.text for n, v in state.env.items() if isinstance(v.value, Traced)}
        unclear = {n for n, v in state.env.items() if not isinstance(v.value, Traced)}
        seen = {k: v for k, v in state.user.items() if k not in state.unset | unclear} | known
        fields = describe(start, state.words, seen, state.cwd)
        fields["options"] = (*fields.get("options", ()), *state.more)
        scope = command.scope
        hidden = {
            n: v.value.text
            for n, v in scope.variables.items()
            if not v.exported and n not in known and isinstance(v.value, Traced)
        }
        foreign = set(command.scope.user) if not state.user else set()
        return LaunchPlan(
            launcher=_started_by(start.launcher, state.scheduler),
            words=tuple(w.text for w in state.words),
            prefix=tuple(state.prefix),
            env=known,
            unset=frozenset(state.unset | (foreign - set(known))),
            unclear=frozenset(unclear),
            assignments=tuple(v.assignment for v in state.env.values() if v.assignment),
            unexported={n: v for n, v in state.lost.items() if n not in known} | hidden,
            scheduler=state.scheduler,
            tasks=state.tasks,
            tasks_at=state.tasks_at,
            python=start.python,
            cwd=state.cwd,
            host=state.host,
            background=command.background,
            repeated=command.repeated,
            conditional=command.conditional,
            editable=start.span[0] != ELSEWHERE,
            span=command.span,
            launcher_span=start.span,
            **fields,
        )


def _started_by(launcher: str, scheduler: str | None) -> str:
    """Plain python under srun or mpirun gets its rank from them."""
    return scheduler if launcher == "python" and scheduler else launcher
