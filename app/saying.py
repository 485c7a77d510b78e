"""A diagnosis as JSON and as plain text."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from ddp_assist import __version__
from ddp_assist.app.case import to_json
from ddp_assist.app.diagnose import Diagnosis, weights
from ddp_assist.app.export import as_fix
from ddp_assist.app.fixes.model import Fix
from ddp_assist.app.report import allowed
from ddp_assist.app.tree import load, page
from ddp_assist.app.walk import Ranked, ruled_out
from ddp_assist.probes.model import Finding
from ddp_assist.probes.text import clean

SCHEMA = "ddp-assist/diagnosis/1"


def as_json(diagnosis: Diagnosis, fixes: Sequence[Fix]) -> dict[str, Any]:
    result: dict[str, Any] = cleaned(
        {
            "schema": SCHEMA,
            "symptom": diagnosis.symptom.id if diagnosis.symptom else None,
            "asked": asked(diagnosis),
            "causes": [as_cause(r) for r in diagnosis.causes],
            "hidden": [{"id": r.cause, "by": r.hidden_by} for r in diagnosis.ranked if r.hidden_by],
            "ruled_out": [
                {"id": cause, "by": finding.sentence}
                for cause, finding in ruled_out(load(), diagnosis.ranked).items()
            ],
            "noise": [{"id": f.outcome, "line": _line(f)} for f in diagnosis.noise],
            "fixes": [dict(as_fix(fix)) for fix in fixes],
            "findings": [to_json(f) for f in diagnosis.findings],
            "unanswered": [{"probe": f.probe, "why": f.sentence} for f in diagnosis.unanswered],
            "fine": sorted({f.key for f in diagnosis.findings if weights().get(f.key) == "ok"}),
            "seconds": diagnosis.seconds,
            "path": path(diagnosis),
            "trial": diagnosis.trial,
            "environment": environment(diagnosis),
            "versions": versions(diagnosis),
            "changed": diagnosis.changed,
        }
    )
    return result


def asked(diagnosis: Diagnosis) -> dict[str, Any]:
    """What the user gave, as far as it was given."""
    question, symptom = diagnosis.question, diagnosis.symptom
    launch = diagnosis.target.launch
    given = {
        "symptom": symptom.title if symptom else None,
        "launch": launch.text if launch else None,
        "script": str(question.script) if question.script else None,
        "logs": list(question.logs),
        "job": question.job,
    }
    return {name: value for name, value in given.items() if value}


def path(diagnosis: Diagnosis) -> list[str]:
    """The walk to the first cause: each question with its answer."""
    if not diagnosis.causes:
        return []
    first = diagnosis.causes[0]
    steps = load().steps
    lines = [
        f"{steps[p.step].question} {p.finding.sentence if p.finding else p.how}" for p in first.path
    ]
    return [*lines, page(first.cause).title]


def environment(diagnosis: Diagnosis) -> dict[str, str]:
    """What the launch would see; the report keeps only the names it may show."""
    plan = diagnosis.target.plan
    seen = dict(diagnosis.target.env) if plan is None else plan.environment(diagnosis.target.env)
    return allowed(seen)


def versions(diagnosis: Diagnosis) -> dict[str, str]:
    """Which ddp-assist, Python and torch spoke here."""
    found = {"ddp-assist": __version__, "system": f"{platform.system()} {platform.release()}"}
    for finding in diagnosis.findings:
        if finding.probe == "torch" and finding.data.get("version"):
            found["torch"] = str(finding.data["version"])
        if finding.probe == "python" and finding.data.get("version"):
            found["python"] = str(finding.data["version"])
    return found


def as_cause(ranked: Ranked) -> dict[str, Any]:
    return {
        "id": ranked.cause,
        "title": page(ranked.cause).title,
        "certainty": ranked.certainty,
        "for": [f.sentence for f in ranked.speaks_for],
        "against": [f.sentence for f in ranked.against],
        "would_decide": ranked.would_decide,
    }


def cleaned(value: Any) -> Any:
    """Everything that leaves passes the gate once more."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): cleaned(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(entry) for entry in value]
    return value


def _line(finding: Finding) -> str:
    for evidence in finding.evidence:
        if evidence.lines:
            return evidence.lines[0]
    return finding.sentence


def as_text(result: Mapping[str, Any]) -> str:
    """The answer first, then why, then what to do; plain words, no colour."""
    lines: list[str] = []
    causes = result["causes"]
    if not causes:
        lines.append("No cause was found.")
    for place, cause in enumerate(causes[:3]):
        lines += [] if place == 0 else [""]
        lines.append(f"{cause['certainty'].upper()}  {cause['title']}  ({cause['id']})")
        lines += [f"  for      {said}" for said in cause["for"]]
        lines += [f"  against  {said}" for said in cause["against"]]
        lines += [f"  open     {said}" for said in cause["would_decide"]]
    if len(causes) > 3:
        lines.append(f"and {len(causes) - 3} more: {', '.join(c['id'] for c in causes[3:])}")
    for fix in result["fixes"]:
        lines += ["", *_fix(fix)]
    if result["noise"]:
        lines += ["", "Looks alarming, is not the problem:"]
        lines += [f"  {entry['line'][:160]}" for entry in result["noise"]]
    lines += _suspicious(result)
    if result["unanswered"]:
        lines += ["", "Could not be looked at:"]
        lines += [f"  {entry['probe']}: {entry['why']}" for entry in result["unanswered"]]
    return "\n".join(lines)


def _fix(fix: Mapping[str, Any]) -> list[str]:
    lines = [f"FIX [{fix['badge']}] {fix['title']}  (for {fix['cause']})"]
    if differing(fix):
        lines += [f"    {entry['node']}: {entry['launch'].strip()}" for entry in fix["nodes"][:8]]
        if len(fix["nodes"]) > 8:
            lines.append(f"    and {len(fix['nodes']) - 8} more nodes: --out DIR writes them all")
    elif fix["launch"]:
        lines += [f"    {line}" for line in fix["launch"].strip().splitlines()]
    for file in fix["files"]:
        lines += [f"    {line}" for line in file["diff"].splitlines()]
    for number, step in enumerate(fix["steps"], 1):
        first, *rest = step.splitlines()
        lines += [f"  {number}. {first}", *(f"     {line}" for line in rest)]
    if fix["why"]:
        lines.append(f"  {fix['why']}")
    if fix["does_not"]:
        lines.append(f"  does not fix: {fix['does_not']}")
    return lines


def differing(fix: Mapping[str, Any]) -> bool:
    """Whether the nodes' launches are not one and the same text."""
    return len({entry["launch"] for entry in fix.get("nodes", ())}) > 1


def _suspicious(result: Mapping[str, Any]) -> list[str]:
    if result["causes"]:
        return []
    for finding in result["findings"]:
        lines = finding["data"].get("suspicious")
        if finding["outcome"] == "nothing-known" and lines:
            shown = [f"  {entry['line']:>6}: {entry['text']}" for entry in lines]
            return ["", "The most suspicious lines:", *shown]
    return []
