"""One fault at one moment: the stage, the job, the tool as its user types it, the cure.

`python live_proof.py [-m MOMENT] [-v COUNT] [FAULT ...]` prints a row each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from live_box import BIN, NOBODY, Box, box, until  # noqa: E402
from live_fault import HELPERS, MOMENTS, Fault, Moment, Variation, faults, variations  # noqa: E402
from live_table import write  # noqa: E402

TOOL = str(BIN / "ddp-assist")
HOLD = "1800"


@dataclass(slots=True)
class Row:
    """What was seen."""

    fault: str
    family: str
    moment: Moment
    variation: str
    wanted: str | None
    cause: str | None = None
    certainty: str = ""
    fix: str = ""
    badge: str = ""
    ran: str = ""
    """trained, cured, failed, or empty where nothing was to be run."""
    seconds: float = 0.0
    code: int | None = None
    others: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    wrong: bool = False
    """Another cause came first than the right one."""
    output: str = ""

    def line(self) -> str:
        mark = "ok " if not self.problems else "BAD"
        return (
            f"{mark} {self.fault:28} {self.moment:7} {self.variation:26} {self.cause or '-':26}"
            f" {self.certainty:8} {self.badge:9} {self.ran:8} {self.seconds:5.1f} {self.code}"
            f" {'; '.join(self.problems)}"
        )


@contextlib.contextmanager
def staged(fault: Fault, how: Variation) -> Iterator[tuple[Box, list[str]]]:
    """The box with everything in place, and the launch as words."""
    user = NOBODY if how.nobody or fault.user else 0
    with box(user, fault.two_hosts) as inside:
        for name, text in fault.files.items():
            path = inside.at / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        words = ["bash", "launch.sh"]
        single = fault.launch.strip()
        if how.as_words and "\n" not in single and not set(single) & set("&;|$`'\"="):
            words = shlex.split(single)
        (inside.at / "launch.sh").write_text(f"#!/bin/bash\n{single}\n")
        inside.shell(f"chown -R {user}:{user} {inside.at}")
        if fault.stage:
            holder = HELPERS + "keep() { keep=1; }\n" + fault.stage
            stage = inside.at.parent / "stage.sh"
            stage.write_text(f"cd {inside.at}\n{holder}\ntouch ../staged\nexec sleep {HOLD}\n")
            user_of_stage = user if "keep" in fault.stage or "old.py" in fault.stage else 0
            if "setpriv" in fault.stage or "/proc/sys" in fault.stage:
                user_of_stage = 0
            inside.shell(f"chmod 777 {inside.at.parent}")
            log = inside.at.parent / "stage.log"
            child = inside.start("bash", "-e", str(stage), user=user_of_stage, log=log)
            up = until(
                lambda: (inside.at.parent / "staged").exists() or child.poll() is not None, 60
            )
            assert up and child.poll() is None, f"the stage of {fault.id}: {log.read_text()}"
        inside.env.update(fault.exported)
        yield inside, words


def look(
    fault: Fault, moment: Moment, how: Variation, host: str = "", keep: Path | None = None,
    cure: bool = True,
) -> Row:
    """The tool at this moment (on this host of two), its answer judged, and its cure tried."""
    varied = fault.varied(how)
    row = Row(fault.id, fault.family, moment, f"{how.name} {host}".strip(), fault.cause)
    with staged(varied, how) as (inside, words):
        out = inside.at / "answer"
        done = _ask(varied, moment, inside, words, out, host)
        row.code = done.returncode
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{fault.id}.{moment}.json").write_text(done.stdout)
            (keep / f"{fault.id}.{moment}.err").write_text(done.stderr)
        said = _json(done.stdout)
        if said is None and moment == "run" and fault.cause is None and row.code == 0:
            return row  # nothing is said of a job that goes well
        if said is None:
            row.wrong = True
            row.problems.append(f"no answer: {done.stdout[-200:]} {done.stderr[-300:]}")
            return row
        _judge(row, fault, said)
        if not cure:
            pass
        elif moment in ("before", "run") and fault.cause is not None and not row.problems:
            _cure(row, varied, inside, out)
        elif fault.cause is None and moment == "before":
            row.ran = _trains(inside, words, fault)
        if keep is not None and out.exists():
            shutil.copytree(out, keep / f"{fault.id}.{moment}.out", dirs_exist_ok=True)
            (keep / f"{fault.id}.{moment}.run").write_text(row.output)
    return row


def hosts(fault: Fault, moment: Moment) -> tuple[str, ...]:
    """Where the tool is asked at this moment; nowhere in particular with one host."""
    return {"before": fault.ask, "during": fault.at}.get(moment, ()) or ("",)


def _ask(
    fault: Fault, moment: Moment, inside: Box, words: list[str], out: Path, host: str
) -> Any:
    ours = ["--json", "--out", str(out)]
    where = ["on", host] if host else []
    if moment == "before":
        return inside.run(*where, TOOL, "diagnose", *ours, "--", *words)
    if moment == "run":
        limit = {"JOB_WAIT_S": str(fault.wait)}
        hang = ["--hang-after", "8"]
        return inside.run(TOOL, "run", *hang, *ours, "--", *words, env=limit, timeout=180)
    log = inside.at / "job.log"
    if moment == "during":
        job = inside.start(*words, log=log)
        pid = hung(inside, job, host)
        if pid is None:
            raise AssertionError(f"the job ended with {job.poll()}: {log.read_text()[-2000:]}")
        return inside.run(*where, TOOL, "diagnose", *ours, "--job", str(pid))
    job = inside.start(*words, log=log, env={"JOB_WAIT_S": str(fault.wait)})
    if not until(lambda: job.poll() is not None, 60 + fault.wait):
        raise AssertionError(f"the job neither failed nor ended: {log.read_text()[-2000:]}")
    extra = ["--", *words] if moment == "after" else []
    return inside.run(TOOL, "diagnose", *ours, "--log", str(log), *extra)


def hung(inside: Box, job: Any, host: str) -> int | None:
    """The pid, as the box counts it, of the job's uppermost process there, once all of it waits."""
    before: dict[int, float] = {}
    calm = 0
    end = time.monotonic() + 90
    while calm < 4 and time.monotonic() < end:
        if job.poll() is not None:
            return None
        now = _work(inside)
        busy = [p for p, used in now.items() if used - before.get(p, -1.0) > 0.03]
        calm = calm + 1 if now and not busy else 0
        before = now
        time.sleep(0.5)
    table = inside.processes()
    for pid in list(table):
        there = inside.run("ip", "netns", "identify", str(pid), user=0).stdout.strip()
        if there != host or _is_of_the_stage(table[pid][1]):
            del table[pid]
    return max((p for p, (parent, _) in table.items() if parent not in table), default=None)


def _is_of_the_stage(line: str) -> bool:
    return any(name in line for name in ("old.py", "other.py", "http.server", "socket"))


def _work(inside: Box) -> dict[int, float]:
    """Seconds of CPU of each process that has torch in it."""
    code = (
        "for p in /proc/[0-9]*; do grep -qs libtorch_cpu $p/maps &&"
        ' echo "${p#/proc/} $(cut -d\\) -f2 $p/stat)"; done; true'
    )
    found = {}
    for line in inside.run("sh", "-c", code, user=0).stdout.splitlines():
        words = line.split()
        if len(words) > 15:
            found[int(words[0])] = (int(words[12]) + int(words[13])) / 100
    return found


def _json(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text[text.index('{\n "schema"') :])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _judge(row: Row, fault: Fault, said: dict[str, Any]) -> None:
    causes = said["causes"]
    row.seconds = said["seconds"]
    if causes:
        row.cause, row.certainty = causes[0]["id"], causes[0]["certainty"]
        row.others = [cause["id"] for cause in causes[1:]]
    if said["fixes"]:
        row.fix, row.badge = said["fixes"][0]["title"], said["fixes"][0]["badge"]
    if fault.cause is None:
        if causes:
            row.wrong = True
            row.problems.append(f"a cause where nothing is wrong: {row.cause}")
        if row.code not in (0, 5):
            row.problems.append(f"exit code {row.code}")
        return
    if row.cause not in fault.right:
        row.wrong = True
        row.problems.append(f"wanted {fault.cause}, then came {row.others[:3]}")
    if row.cause in fault.never:
        row.problems.append("which must never come first")
    if causes and row.code != 1 and not (row.moment == "run" and row.code == 0):
        row.problems.append(f"exit code {row.code}")


def _cure(row: Row, fault: Fault, inside: Box, out: Path) -> None:
    if fault.heal:
        inside.shell(fault.heal)
    if fault.cure == "steps" and not fault.heal:
        return
    words = ["bash", str(out / "launch.sh")]
    row.ran = _trains(inside, words, fault, row)
    if row.ran != "trained":
        row.problems.append(f"the corrected launch does not train: {row.output[-300:]}")
        if row.badge == "ran":
            row.problems.append("and its badge says that it ran")


def _trains(inside: Box, words: list[str], fault: Fault, row: Row | None = None) -> str:
    """The marker counts, and the exit code, but for an abort that right runs of this torch end in.

    On a busy machine it comes after the training, and says "terminate called".
    """
    done = inside.run(*words, env={"JOB_WAIT_S": "60"}, timeout=90)
    output = done.stdout + done.stderr
    if row is not None:
        row.output = output
    ended = done.returncode in (0, 124) or "terminate called" in output
    return "trained" if fault.marker in output and ended else "failed"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-m", "--moment", action="append", choices=MOMENTS)
    p.add_argument("-v", "--variations", type=int, default=0)
    p.add_argument("-j", "--jobs", type=int, default=2)
    p.add_argument("-k", "--keep", type=Path, help="a folder for what was answered and written")
    p.add_argument("-r", "--rows", type=Path, help="a file that rows are added to, as JSON lines")
    p.add_argument("-f", "--family", action="append")
    p.add_argument("-o", "--only-variations", action="store_true")
    p.add_argument("-t", "--table", type=Path, help="a file that the table of all is written to")
    p.add_argument("-n", "--no-cure", action="store_true", help="only the cause is looked at")
    p.add_argument("fault", nargs="*")
    given = p.parse_args()
    cells = [
        (fault, moment, how, host)
        for fault in faults().values()
        if (not given.fault or fault.id in given.fault)
        and (not given.family or fault.family in given.family)
        for moment in (fault.moments or ("before",))
        if not given.moment or moment in given.moment
        for how in variations(fault, moment, given.variations)[given.only_variations :]
        for host in hosts(fault, moment)
    ]
    rows = []

    def one(cell: tuple[Fault, Moment, Variation, str]) -> Row:
        fault, moment, how, host = cell
        try:
            return look(fault, moment, how, host, given.keep, not given.no_cure)
        except Exception as why:  # noqa: BLE001
            named = f"{how.name} {host}".strip()
            return Row(
                fault.id, fault.family, moment, named, fault.cause, problems=[repr(why)], wrong=True
            )

    with ThreadPoolExecutor(given.jobs) as pool:
        for row in pool.map(one, cells):
            rows.append(row)
            print(row.line(), flush=True)
            if given.rows:
                with given.rows.open("a") as kept:
                    print(json.dumps(asdict(row)), file=kept)
    if given.table:
        write(given.table, rows)
    bad = [row for row in rows if row.problems]
    print(f"{len(rows) - len(bad)} of {len(rows)} right")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
