"""The five longest waits of a user: before anything was done about them and now, and where their
time goes.

    sudo python benchmarks/waits.py [--before REVISION] [--nodes 16] [--size-mb 500] [--rounds 3]

Both versions run in turn, with the same interpreter and packages. Where our own process works is
sampled by py-spy in all its threads: the deepest of our modules in each sample. What is left of the
wait is spent in others: the training environment's torch, the ranks, the nodes. The table of
docs/waits.md is written anew.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from logs import write_log
from measuring import ROOT, Row, between, in_turn, keep, row, spoken
from proof import PLAIN, TORCHRUN, TRAIN, held_port
from script import project

sys.path.append(str(ROOT / "tests" / "fleet"))

from fleet_nodes import start  # type: ignore[import-not-found]  # noqa: E402

BEFORE = "b794fd0"
"""The version before these waits were looked at."""
RATE = 200
"""Samples a second."""
PAGE = ROOT / "docs" / "waits.md"
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL,"
    " stderr=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Wait:
    """What the user waits for, and how `ddp-assist` is run where that is."""

    name: str
    words: Sequence[str]
    run: Run

    def command(self, tree: Path) -> list[str]:
        told = f"PYTHONPATH={tree}/tests/typing"
        return ["env", told, sys.executable, "-m", "ddp_assist", *self.words]

    def through(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode in (0, 1, 5), (words, done.stderr[-400:])
        return done.stdout

    def peak_mb(self, tree: Path) -> float:
        return round(int(self.through(sys.executable, "-c", PEAK, *self.command(tree))) / 1024, 1)

    def places(self, seconds: float) -> list[tuple[str, float]]:
        """Where our process works, each as a share of the wait."""
        spy = shlex.quote(str(Path(sys.executable).with_name("py-spy")))
        ours = shlex.join([sys.executable, "-m", "ddp_assist", *self.words])
        record = f"{spy} record -f raw -o spied -r {RATE} -t -d 600 -- {ours} >said 2>&1"
        told = f"PYTHONPATH={ROOT}/tests/typing"
        done = self.run("env", told, "sh", "-c", f"{record}; cat spied; rm -f spied said")
        samples: Counter[str] = Counter()
        for line in done.stdout.splitlines():
            stack, _, count = line.rpartition(" ")
            if count.isdigit():
                samples[_place(stack)] += int(count)
        return [(place, n / RATE / seconds) for place, n in samples.most_common(3)]


def _place(stack: str) -> str:
    frames = stack.split(";")
    if any("_find_and_load" in frame for frame in frames):
        return "imports of modules"
    ours = [frame for frame in frames if "ddp_assist/" in frame]
    if not ours:
        return "the interpreter itself"
    return "`" + ours[-1].rpartition("ddp_assist/")[2].partition(".py")[0] + "`"


@contextmanager
def waits(nodes: int, megabytes: int) -> Iterator[list[Wait]]:
    with tempfile.TemporaryDirectory() as tmp, held_port() as port:
        folder = Path(tmp)
        write_log(log := folder / "job.log", megabytes, 64)
        (train := folder / "held.py").write_text(TRAIN.format(init=PLAIN))
        script = project(folder, 2_000, 50)
        launch = [TORCHRUN, "--nproc-per-node=2", f"--master-port={port}", str(train)]

        def here(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp)

        found = [
            Wait(f"a log of {megabytes} MB", ["diagnose", "--log", str(log)], here),
            Wait("from a launch to a proven fix", ["diagnose", "--", *launch], here),
            Wait("a trial of 2 ranks", ["trial"], here),
            Wait("a script of 2,000 lines with 50 files", ["diagnose", "--script", str(script)],
                 here),
        ]  # fmt: skip
        if os.geteuid():
            yield found
            return
        bed = start([f"n{i}" for i in range(1, nodes + 1)])
        try:
            asked = ["fleet", "-w", f"n[1-{nodes}]", "--no-trial"]
            yield [Wait(f"{nodes} nodes asked and compared", asked, bed.user), *found]
        finally:
            bed.close()


@contextmanager
def version(revision: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as tmp:
        os.chmod(tmp, 0o755)  # the nodes' user runs it
        packed = subprocess.run(
            ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", tmp], input=packed.stdout, check=True)
        subprocess.run([sys.executable, "-m", "compileall", "-q", tmp], check=True)
        yield Path(tmp)


def measure(wait: Wait, before: Path, revision: str, rounds: int) -> Row:
    sides = {
        name: lambda tree=tree: wait.through(*wait.command(tree))  # type: ignore[misc]
        for name, tree in (("now", ROOT), ("before", before))
    }
    took = in_turn(sides, rounds)
    usual = statistics.median(took["now"])
    return row(
        wait.name, f"version {revision}", took["now"], took["before"],
        here_mb=wait.peak_mb(ROOT), peer_mb=wait.peak_mb(before), places=wait.places(usual),
    )  # fmt: skip


def tables(rows: Sequence[Mapping[str, object]]) -> str:
    def cells(each: Mapping[str, object]) -> str:
        shares = "; ".join(f"{place} {share:.0%}" for place, share in each["places"])  # type: ignore[attr-defined]
        return (f"| {each['what']} | {spoken(each['peer_s'])}, {each['peer_mb']:.0f} MB | "
                f"{spoken(each['here_s'])}, {each['here_mb']:.0f} MB | {each['times']:.1f} "
                f"({each['times_from']:.1f} to {each['times_to']:.1f}) | {shares} |")  # fmt: skip

    head = "| what you wait for | before | now | times faster | our own work in it |"
    return "\n".join([head, "|---|---|---|---|---|", *map(cells, rows)])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--before", default=BEFORE)
    asked.add_argument("--nodes", type=int, default=16)
    asked.add_argument("--size-mb", type=int, default=500)
    asked.add_argument("--rounds", type=int, default=3)
    given = asked.parse_args()
    with version(given.before) as before, waits(given.nodes, given.size_mb) as every:
        rows = [measure(wait, before, given.before, given.rounds) for wait in every]
    between(PAGE, "waits", tables(keep("waits", rows)))


if __name__ == "__main__":
    main()
