"""How processes ended, as launchers, shells, kernels and schedulers report it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ddp_assist.probes.logs.ranks import Line

SIGNALS = {
    1: "killed-1", 6: "abort-6", 7: "bus-7", 9: "killed-9", 11: "segfault-11", 15: "killed-15",
}  # fmt: skip
_NAMES = {
    "SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8,
    "SIGKILL": 9, "SIGSEGV": 11, "SIGPIPE": 13, "SIGTERM": 15,
}  # fmt: skip
_WHAT = {
    1: "SIGHUP: its terminal or session closed",
    6: "SIGABRT: it gave up by itself (abort)",
    7: "SIGBUS: memory behind a mapping was missing, often a full /dev/shm",
    9: "SIGKILL: something outside killed it, often for want of memory",
    11: "SIGSEGV: it crashed in native code",
    15: "SIGTERM: it was asked to end",
}

_AGENT = re.compile(
    r"failed \(exitcode: (?P<code>-?\d{1,5})\) "
    r"local_rank: (?P<local>\d{1,6}) \(pid: (?P<pid>\d{1,9})\)"
)
_SPAWN = re.compile(
    r"process (?P<rank>\d{1,6}) terminated with "
    r"(?:signal (?P<name>SIG\w+)|exit code (?P<code>-?\d{1,5}))"
)
_SAID = re.compile(
    r"(?:rank|task|process|worker)[ _]?(?P<rank>\d{1,6})[ :,]+(?:\(?pid[ :=]*\d+\)?[ :,]+)?"
    r"(?:exited? (?:with )?(?:code |status |with )?|exit(?:ed)?[ _]?(?:code|status)?[ :=]+|"
    r"return(?:ed)? code[ :=]+|rc[ :=]+)(?P<code>-?\d{1,5})\b",
    re.IGNORECASE,
)
_SHELL = re.compile(
    r"(?:^|: line \d+: +(?P<pid>\d+) |\s)"
    r"(?P<word>Killed|Segmentation fault|Bus error|Aborted|Terminated|Hangup)"
    r"(?: \(core dumped\))?(?:\s{2,}|$)"
)
_WORDS = {
    "Killed": 9, "Segmentation fault": 11, "Bus error": 7, "Aborted": 6, "Terminated": 15,
    "Hangup": 1,
}  # fmt: skip
_SLURM = re.compile(
    r"task (?P<rank>\d{1,6}): (?P<word>Killed|Segmentation fault|Bus error|Aborted|Terminated)"
)
_SLURM_EXIT = re.compile(r"task (?P<rank>\d{1,6}): Exited with exit code (?P<code>\d{1,3})")
_OOM = re.compile(
    r"(?i)\boom[-_]kill(?:er\b|:| event)|Out of memory: Killed process (?P<pid>\d{1,9})"
)
# torchrun itself was told to end, and tells its workers.
_LAUNCHER = re.compile(
    r"(?:Received (?P<signal>\d{1,2}) death signal|got signal: (?P<sent>\d{1,2}))"
)
_MPI = re.compile(
    r"process rank (?P<rank>\d{1,6}) with PID (?P<pid>\d{1,9})"
    r".{0,80}exited on signal (?P<signal>\d{1,2})"
)
# Each of the patterns above holds one of these; most lines of a log hold none.
_TELLING = re.compile(
    r"exit|return|\brc\b|terminated|killed|fault|error|aborted|hangup|signal|oom|out of memory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class End:
    """One process that ended other than well."""

    line: Line
    rank: int | None = None
    pid: int | None = None
    signal: int | None = None
    code: int | None = None
    local: int | None = None
    """Its place on its own node, where that is all the line says."""

    @property
    def first(self) -> bool:
        """Whether this can be where it began; SIGTERM and SIGHUP come from the launcher."""
        return self.signal not in (None, 15)

    @property
    def told(self) -> bool:
        """A worker that its launcher ended, because another one had failed."""
        return self.signal == 15 and self.rank is not None

    @property
    def sentence(self) -> str:
        who = "a process" if self.rank is None else f"rank {self.rank}"
        if self.signal:
            return f"{who} was ended by {_WHAT.get(self.signal, f'signal {self.signal}')}"
        return f"{who} ended with exit code {self.code}"


def ends(lines: list[Line]) -> list[End]:
    """All ends, in the order of the lines; a table of torchrun gives one for each of its rows."""
    found = [end for line in lines for end in _in_line(line)]
    rows = list(_in_tables(lines))
    found = [_of_the_job(end, rows) for end in found] + rows
    found = [_with_rank(end, found) for end in found]
    position = {id(line): n for n, line in enumerate(lines)}
    return sorted(found, key=lambda end: position.get(id(end.line), 0))


def _of_the_job(end: End, rows: list[End]) -> End:
    """torchrun's line names the place on the node; its table knows the rank in the whole job."""
    if end.local is None:
        return end
    rank = next((row.rank for row in rows if row.pid == end.pid and _same_log(row, end)), None)
    return replace(end, rank=end.local if rank is None else rank)


def _same_log(one: End, other: End) -> bool:
    return one.line.file == other.line.file


def _with_rank(end: End, all_ends: list[End]) -> End:
    """A shell says "Killed" and names nobody; another line may know whom the same signal met."""
    if end.rank is not None or end.signal is None:
        return end
    ranks = {other.rank for other in all_ends if other.signal == end.signal} - {None}
    return replace(end, rank=ranks.pop()) if len(ranks) == 1 else end


def _in_line(line: Line) -> Iterator[End]:
    text = line.text if len(line.text) < 4096 else line.text[:4096]
    if not _TELLING.search(text):
        return
    for said in _SAID.finditer(text):
        yield _end(line, said.groupdict())
    for pattern in (_AGENT, _SPAWN, _SLURM, _SLURM_EXIT, _MPI, _LAUNCHER, _SHELL, _OOM):
        if match := pattern.search(text):
            yield _end(line, match.groupdict())
            return


def _end(line: Line, said: dict[str, str | None]) -> End:
    rank = _number(said.get("rank"))
    rank = line.rank if rank is None else rank
    pid = _number(said.get("pid"))
    if local := said.get("local"):
        return replace(_coded(line, None, pid, int(said["code"] or 0)), local=int(local))
    if name := said.get("name"):
        return End(line, rank, pid, _NAMES.get(name))
    if word := said.get("word"):
        return End(line, rank, pid, _WORDS[word])
    if number := said.get("signal") or said.get("sent"):
        return End(line, rank, pid, int(number))
    code = _number(said.get("code"))
    return End(line, rank, pid, 9) if code is None else _coded(line, rank, pid, code)


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _coded(line: Line, rank: int | None, pid: int | None, code: int) -> End:
    """An exit code; -9 is how Python and 137 how a shell writes signal 9."""
    if -65 < code < 0:
        return End(line, rank, pid, -code, code)
    if 128 < code < 160 and code - 128 in _WHAT:
        return End(line, rank, pid, code - 128, code)
    return End(line, rank, pid, None, code)


_ROW_RANK = re.compile(r"^\s*rank\s*: (?P<rank>\d{1,6}) \(local_rank: (?P<local>\d{1,6})\)")
_ROW_CODE = re.compile(r"^\s*exitcode\s*: (?P<code>-?\d{1,5}) \(pid: (?P<pid>\d{1,9})\)")


def _in_tables(lines: list[Line]) -> Iterator[End]:
    rank: int | None = None
    local = 0
    seen: set[tuple[str, int | None, int]] = set()
    for line in lines:
        if row := _ROW_RANK.match(line.text):
            rank, local = int(row["rank"]), int(row["local"])
        elif (row := _ROW_CODE.match(line.text)) and rank is not None:
            pid = int(row["pid"])
            # The root cause repeats a row of the table above it.
            if (line.file, rank, pid) not in seen:
                seen.add((line.file, rank, pid))
                yield replace(_coded(line, rank, pid, int(row["code"])), local=local)
            rank = None
