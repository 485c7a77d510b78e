"""`cases`, `resume`, `report`, `replay`: what was saved, looked at again."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ddp_assist.app.case import Case, CaseUnreadable, find, load, saved_cases
from ddp_assist.app.cli import FOUND, OK, UNREADABLE, Wrong
from ddp_assist.app.options import parser
from ddp_assist.probes.text import clean


def run(verb: str, words: list[str]) -> int:
    try:
        return {"cases": _list, "resume": _resume, "report": _report, "replay": _replay}[verb](
            words
        )
    except CaseUnreadable as why:
        raise Wrong(str(why), UNREADABLE) from why


def _list(words: list[str]) -> int:
    given = parser("cases", "The saved cases, the newest first.")
    given.parse_args(words)
    shown = 0
    for path in saved_cases():
        try:
            case = load(path)
        except CaseUnreadable as why:
            print(f"{path.stem:<22} {why}", file=sys.stderr)
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
        last = case.last("concluded") or {}
        causes = last.get("result", {}).get("causes", [])
        print(f"{case.id:<22} {when}  {clean(causes[0]['id']) if causes else 'no cause yet'}")
        shown += 1
    if not shown:
        print("no saved cases")
    return OK


def _resume(words: list[str]) -> int:
    p = parser("resume", "Go on with a saved case in the guided session.")
    p.add_argument("id", nargs="?")
    given = p.parse_args(words)
    from ddp_assist.app.cli import main, no_screen

    path = find(given.id)
    if why := no_screen():
        raise Wrong(f"{why}, so a case can't be resumed here: use `ddp-assist report {path.stem}`")
    return main(["--resume", path.stem])


def _report(words: list[str]) -> int:
    from ddp_assist.app.report import render, standard_redactor, write_report

    p = parser("report", "A saved case as a report, redacted.")
    p.add_argument("id", nargs="?", help="default: the newest")
    p.add_argument("--format", choices=("md", "html", "json", "txt"), default="md")
    p.add_argument("-o", type=Path, metavar="F", help="default: stdout")
    given = p.parse_args(words)
    result = concluded(load(find(given.id)))
    if given.o is None:
        print(render(result, given.format, standard_redactor()), end="")
        return OK
    write_report(result, given.format, given.o)
    print(given.o)
    return OK


def concluded(case: Case) -> dict[str, object]:
    last = case.last("concluded")
    if last is None:
        raise CaseUnreadable(f"the case {case.id} has no conclusion yet: resume it")
    result: dict[str, object] = last["result"]
    return result


def _replay(words: list[str]) -> int:
    """Concludes again from the recorded findings alone: same case, same bytes."""
    from ddp_assist.app.diagnose import Diagnosis, Question, conclude
    from ddp_assist.app.saying import as_json
    from ddp_assist.probes.model import Target

    p = parser("replay", "Conclude a saved case again, without the machine.")
    p.add_argument("id", nargs="?")
    given = p.parse_args(words)
    case = load(find(given.id))
    findings = tuple(case.findings)
    asked = case.last("asked-all") or {"probes": sorted({f.probe for f in findings})}
    picked = case.last("symptom")
    diagnosis = conclude(
        Diagnosis(
            Question(symptom=picked["id"] if picked else None, env={}),
            Target(env={}),
            findings,
            asked=frozenset(asked["probes"]),
        )
    )
    json.dump(as_json(diagnosis, []), sys.stdout, allow_nan=False, indent=1)
    print()
    return FOUND if diagnosis.causes else OK
