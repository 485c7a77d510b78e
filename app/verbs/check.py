"""`ddp-assist check`: every probe of this host, no symptom needed."""

from __future__ import annotations

import json
import sys
import time

from ddp_assist.app.cli import OK, Wrong
from ddp_assist.app.diagnose import Diagnosis, conclude, look, target_of
from ddp_assist.app.options import add_question, launch_of, parser, question, split
from ddp_assist.app.saying import as_json
from ddp_assist.app.verbs.diagnose import exit_code
from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.model import Finding
from ddp_assist.probes.text import clean

SHOWN = (("bad", "WRONG"), ("info", "note"), ("ok", "ok"), ("unknown", "?"))


def run(verb: str, words: list[str]) -> int:
    ours, launch = split(words)
    p = parser(verb, "Ask this host everything; no symptom needed.")
    add_question(p)
    p.add_argument("--json", action="store_true", help="print JSON")
    given = p.parse_args(ours)
    begun = time.monotonic()
    asked = question(given, launch_of(launch))
    try:
        target = target_of(asked)
    except LaunchError as why:
        raise Wrong(str(why)) from why
    target, findings, probes = look(target)
    diagnosis = conclude(Diagnosis(asked, target, findings, asked=probes))
    diagnosis.seconds = round(time.monotonic() - begun, 3)
    if given.json:
        json.dump(as_json(diagnosis, []), sys.stdout, allow_nan=False, indent=1)
        print()
    else:
        print("\n".join(table(diagnosis)))
    code = exit_code(diagnosis)
    return code if diagnosis.causes or code != OK else OK


def table(diagnosis: Diagnosis) -> list[str]:
    """What is wrong first, then what is fine, then what could not be seen and why."""
    weights = diagnosis.weights
    groups: dict[str, list[Finding]] = {weight: [] for weight, _ in SHOWN}
    for finding in diagnosis.findings:
        weight = "unknown" if finding.outcome == "unknown" else weights.get(finding.key, "info")
        groups.setdefault(weight, []).append(finding)
    lines = [
        f"{mark:<6} {clean(f.sentence)}" + (f"  [{f.probe}]" if weight != "ok" else "")
        for weight, mark in SHOWN
        for f in groups[weight]
    ]
    causes = [f"  {r.certainty}: {r.cause}" for r in diagnosis.causes]
    return [*lines, *(["", "This can cause:", *causes] if causes else [])]
