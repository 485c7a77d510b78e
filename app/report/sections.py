"""What a report says, in order, whatever it is written in."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddp_assist.app.hosts_drawn import summary

PROOF = {
    "ran": "proven here: ranks met with this launch",
    "holds": "checked here: the probes were asked again, and the cause is gone",
    "failed": "tried here, and it did not help",
    "not-tried": "not tried",
}
MORE = "more variables, not shown"
"""The name under which an environment counts what it does not show."""
# Letters and marks that mean nothing to a reader of Markdown, HTML or mentions.
_HARMLESS = re.compile(r"[A-Za-z0-9 ,.;:'\"()/=+_-]+")


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph, list, or piece of foreign text. Only `code` may hold text from elsewhere."""

    kind: str  # "text" | "code"
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: tuple[Block, ...]


def sections(diagnosis: Mapping[str, Any]) -> list[Section]:
    found = [
        Section("Answer", tuple(_answer(diagnosis))),
        Section("What was asked", _asked(diagnosis.get("asked"))),
        Section("Fix", tuple(_first_fix(diagnosis))),
        Section("Other ways", tuple(_other_fixes(diagnosis))),
        Section("Hosts", _hosts(diagnosis)),
        Section("Evidence", tuple(_evidence(diagnosis))),
        Section("Ruled out", _ruled_out(diagnosis)),
        Section("Alarming, but not the problem", _noise(diagnosis)),
        Section("Could not be looked at", _unanswered(diagnosis)),
        Section("Trial", _trial(diagnosis.get("trial"))),
        Section("Environment", _environment(diagnosis.get("environment"))),
        Section("Versions", _plain(diagnosis.get("versions"))),
        Section("See it yourself", _commands(diagnosis)),
        Section("Changed on this machine", _changed(diagnosis)),
    ]  # fmt: skip
    return [section for section in found if section.blocks]


def said(text: str) -> Block:
    """A sentence as prose where nothing in it could be markup, else as code."""
    harmless = _HARMLESS.fullmatch(text) and "://" not in text
    return Block("text" if harmless else "code", text)


def _all(diagnosis: Mapping[str, Any], name: str) -> Sequence[Any]:
    found: Sequence[Any] = diagnosis.get(name) or ()
    return found


def _answer(diagnosis: Mapping[str, Any]) -> Iterator[Block]:
    causes = _all(diagnosis, "causes")
    if not causes:
        left = bool(_all(diagnosis, "unanswered"))
        yield Block("text", f"No cause was found{', and not everything could be seen' * left}.")
        return
    first, *others = causes
    yield said(f"{str(first.get('certainty', '')).capitalize()}: {first.get('title', '')} ({first.get('id', '')}).")  # noqa: E501
    yield Block("text", _prospect(_all(diagnosis, "fixes"), diagnosis.get("trial")))
    if first.get("for"):
        yield Block("text", "What says so:")
        yield from _lines(first["for"])
    if first.get("would_decide"):
        yield Block("text", "What would make it sure:")
        yield from _lines(first["would_decide"])
    if others:
        yield Block("text", "Less likely, in this order:")
        yield from _lines(f"{c.get('certainty')}: {c.get('title')} ({c.get('id')})" for c in others)


def _prospect(fixes: Sequence[Mapping[str, Any]], trial: Any) -> str:
    """The second sentence: what to do about it, and how sure that is."""
    if not fixes:
        return "No cure of it is known here."
    badge = fixes[0].get("badge")
    if badge == "ran":
        return f"The corrected launch below was tried here, and {_joined(trial)}."
    if badge == "holds":
        return "With the correction below the cause is gone when looked at again."
    if badge == "failed":
        return "The cure below was tried here and did not help."
    alone = fixes[0].get("safety") == "system"
    return "The steps below cure it." if alone else "The cure below was not tried here."


def _joined(trial: Any) -> str:
    if not isinstance(trial, Mapping) or trial.get("outcome") != "joined":
        return "its ranks met"
    took = trial.get("seconds")
    within = f" within {took:.2f} s" if isinstance(took, (int, float)) else ""
    return f"{int(trial.get('nproc') or 0)} ranks met and computed the right sum{within}"


def _asked(asked: Any) -> tuple[Block, ...]:
    if not isinstance(asked, Mapping):
        return ()
    lines = [f"{name}: {entry}" for name, value in asked.items() for entry in _each(value)]
    return _lines(lines)


def _each(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _first_fix(diagnosis: Mapping[str, Any]) -> Iterator[Block]:
    fixes = _all(diagnosis, "fixes")
    if not fixes:
        return
    before = (diagnosis.get("asked") or {}).get("launch")
    after = fixes[0].get("launch")
    yield Block("code", str(fixes[0].get("title", "")))
    if before and after and before.strip() != after.strip():
        yield Block("text", "Before and after:")
        changed = difflib.ndiff(_launch_lines(before), _launch_lines(after))
        yield Block("code", "\n".join(line for line in changed if line[0] != "?"), "diff")
    yield from _fix(fixes[0])


def _other_fixes(diagnosis: Mapping[str, Any]) -> Iterator[Block]:
    for fix in _all(diagnosis, "fixes")[1:]:
        yield Block("code", f"{fix.get('title', '')} (for {fix.get('cause', '')})")
        yield from _fix(fix)


def _launch_lines(text: str) -> list[str]:
    return text.strip("\n").splitlines()


def _fix(fix: Mapping[str, Any]) -> Iterator[Block]:
    texts = [(entry["node"], str(entry["launch"]).strip()) for entry in fix.get("nodes") or ()]
    if len({text for _, text in texts}) > 1:
        yield Block("code", "\n".join(f"# on {node}\n{text}" for node, text in texts[:64]), "bash")
    elif fix.get("launch"):
        yield Block("code", str(fix["launch"]).strip("\n"), "bash")
    for file in fix.get("files") or ():
        yield Block("code", file["diff"].rstrip("\n"), "diff")
    yield from _lines(f"{n}. {step}" for n, step in enumerate(fix.get("steps") or (), 1))
    if fix.get("launch") or fix.get("files"):
        yield Block("text", f"Proof: {PROOF.get(fix.get('badge', ''), 'not tried')}.")
    if fix.get("why"):
        yield Block("code", str(fix["why"]))
    if fix.get("does_not"):
        yield Block("text", "Does not fix:")
        yield Block("code", str(fix["does_not"]))


def _hosts(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    """Where several were asked: who came, and who reaches whom."""
    if "nodes" not in diagnosis:
        return ()
    return _lines(summary(diagnosis["nodes"], diagnosis.get("links") or ()))


def _evidence(diagnosis: Mapping[str, Any]) -> Iterator[Block]:
    """What speaks for a cause first; what was merely in order is a list of names at the end."""
    fine = set(_all(diagnosis, "fine"))
    speaks = {said for cause in _all(diagnosis, "causes") for said in cause.get("for") or ()}
    seen = [f for f in _all(diagnosis, "findings") if f.get("outcome") != "unknown"]
    told = [f for f in seen if _key(f) not in fine]
    lines: list[str] = []
    for finding in sorted(told, key=lambda f: f.get("sentence") not in speaks):
        lines.append(f"{_key(finding)}: {finding.get('sentence', '')}")
        for evidence in finding.get("evidence") or ():
            lines += [f"    {line}" for line in evidence.get("lines") or ()]
            lines += [f"    from {evidence['source']}"] if evidence.get("source") else []
    yield from _lines(lines)
    if well := [f"{_key(f)}: {f.get('sentence', '')}" for f in seen if _key(f) in fine]:
        yield Block("text", "Looked at and in order:")
        yield from _lines(well)


def _key(finding: Mapping[str, Any]) -> str:
    return f"{finding.get('probe', '')}.{finding.get('outcome', '')}"


def _ruled_out(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    against = [
        f"{cause.get('id', '')}: spoken against by: {word}"
        for cause in _all(diagnosis, "causes")
        for word in cause.get("against") or ()
    ]
    explained = [f"{e['id']}: explained by {e['by']}" for e in _all(diagnosis, "hidden")]
    by: dict[str, list[str]] = {}
    for entry in _all(diagnosis, "ruled_out"):
        by.setdefault(entry["by"], []).append(entry["id"])
    left = [f"{', '.join(ids)}: {finding}" for finding, ids in by.items()]
    return _lines([*against, *explained, *left])


def _noise(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    return _lines(entry["line"] for entry in _all(diagnosis, "noise"))


def _unanswered(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    return _lines(
        f"{entry.get('probe', '')}: {entry.get('why', '')}" if isinstance(entry, Mapping) else entry
        for entry in _all(diagnosis, "unanswered")
    )


def _trial(trial: Mapping[str, Any] | None) -> tuple[Block, ...]:
    if not trial:
        return ()
    head = f"{trial.get('backend', '')}, {trial.get('nproc', '')} ranks: {trial.get('outcome', '')}"
    return _lines([head, *(stage_line(stage) for stage in trial.get("stages") or ())])


def stage_line(stage: Mapping[str, Any]) -> str:
    """Who got through what, and in what time."""
    rank, seconds = stage.get("rank"), stage.get("seconds")
    who = "all" if rank is None else f"rank {rank}"
    took = f"{seconds:.3f} s" if isinstance(seconds, (int, float)) else "-"
    return f"{who:<8}{stage.get('stage')!s:<14}{took:>10}  {stage.get('error') or ''}".rstrip()


def _environment(shown: Any) -> tuple[Block, ...]:
    if not isinstance(shown, Mapping):
        return ()
    lines = [f"{name}={value}" for name, value in shown.items() if name != MORE]
    return _lines([*lines, f"{shown[MORE]} {MORE}"] if MORE in shown else lines)


def _commands(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    seen: dict[str, None] = {}
    for finding in _all(diagnosis, "findings"):
        for evidence in finding.get("evidence") or ():
            if evidence.get("see"):
                seen[f"{shlex.join(map(str, evidence['see']))}  # {finding['probe']}"] = None
    return (Block("code", "\n".join(seen), "bash"),) if seen else ()


def _changed(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    changed = diagnosis.get("changed")
    return _plain(changed) if changed else (Block("text", "Nothing."),)


def _plain(value: Any) -> tuple[Block, ...]:
    if not value:
        return ()
    if isinstance(value, Mapping):
        return _lines(f"{key}={entry}" for key, entry in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _lines(entry if isinstance(entry, str) else json.dumps(entry) for entry in value)
    return (Block("code", str(value)),)


def _lines(lines: Iterable[Any]) -> tuple[Block, ...]:
    text = "\n".join(map(str, lines))
    return (Block("code", text),) if text else ()
