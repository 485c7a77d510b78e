"""What a report says, in order, whatever it is written in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BADGES = {
    "ran": "proven here: a trial with this launch joined",
    "holds": "checked here: the probes were asked again and the cause is gone",
    "failed": "tried here, and it did not help",
    "not-tried": "not tried",
}


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
        Section("Answer", _answer(diagnosis)),
        Section("Fix", _fixes(diagnosis)),
        Section("Evidence", _evidence(diagnosis)),
        Section("Ruled out", _against(diagnosis)),
        Section(
            "Alarming, but not the problem", _lines(e["line"] for e in diagnosis.get("noise", ()))
        ),
        Section(
            "Could not be looked at",
            _lines(
                f"{_name(e, 'probe')}: {_name(e, 'why')}" for e in diagnosis.get("unanswered", ())
            ),
        ),
        Section("Trial", _trial(diagnosis.get("trial"))),
        Section("Environment", _plain(diagnosis.get("environment"))),
        Section("Versions", _plain(diagnosis.get("versions"))),
        Section("See it yourself", _commands(diagnosis)),
        Section("Changed on this machine", _changed(diagnosis)),
    ]
    return [section for section in found if section.blocks]


def _answer(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    causes = diagnosis.get("causes") or ()
    if not causes:
        left = bool(diagnosis.get("unanswered"))
        said = "No cause was found" + (", and not everything could be looked at." if left else ".")
        return (Block("text", said),)
    lines = [f"{c.get('certainty', '')}: {c.get('title', '')} ({c.get('id', '')})" for c in causes]
    blocks = [Block("text", "What is wrong, the likeliest first:"), Block("code", "\n".join(lines))]
    if causes[0].get("for"):
        blocks += [Block("text", "Because:"), Block("code", "\n".join(causes[0]["for"]))]
    return tuple(blocks)


def _fixes(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for fix in diagnosis.get("fixes") or ():
        blocks.append(Block("code", f"{fix.get('title', '')} (for {fix.get('cause', '')})"))
        blocks.append(Block("text", f"Proof: {BADGES.get(fix.get('badge', ''), 'not tried')}."))
        if fix.get("why"):
            blocks.append(Block("code", str(fix["why"])))
        if fix.get("launch"):
            blocks.append(Block("code", str(fix["launch"]).strip("\n"), "bash"))
        blocks += [Block("code", f["diff"].rstrip("\n"), "diff") for f in fix.get("files") or ()]
        steps = [f"{n}. {step}" for n, step in enumerate(fix.get("steps") or (), 1)]
        blocks += [Block("code", "\n".join(steps))] if steps else []
        if fix.get("does_not"):
            blocks += [Block("text", "Does not fix:"), Block("code", str(fix["does_not"]))]
    return tuple(blocks)


def _evidence(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    lines: list[str] = []
    for finding in diagnosis.get("findings") or ():
        if finding.get("outcome") == "unknown":
            continue
        lines.append(f"{finding['probe']}.{finding['outcome']}: {finding.get('sentence', '')}")
        for evidence in finding.get("evidence") or ():
            lines += [f"    {line}" for line in evidence.get("lines") or ()]
            lines += [f"    from {evidence['source']}"] if evidence.get("source") else []
    return (Block("code", "\n".join(lines)),) if lines else ()


def _against(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    return _lines(
        f"{cause.get('id', '')}: {said}"
        for cause in diagnosis.get("causes") or ()
        for said in cause.get("against") or ()
    )


def _trial(trial: Mapping[str, Any] | None) -> tuple[Block, ...]:
    if not trial:
        return ()
    lines = [
        f"{trial.get('backend', '')}, {trial.get('nproc', '')} ranks: {trial.get('outcome', '')}"
    ]
    for stage in trial.get("stages") or ():
        seconds = stage.get("seconds")
        took = f"{seconds:8.3f} s" if isinstance(seconds, (int, float)) else "         -"
        lines.append(
            f"rank {stage.get('rank')}  {took}  {stage.get('stage')}  "
            f"{stage.get('error') or ''}".rstrip()
        )
    return (Block("code", "\n".join(lines)),)


def _commands(diagnosis: Mapping[str, Any]) -> tuple[Block, ...]:
    seen: dict[str, None] = {}
    for finding in diagnosis.get("findings") or ():
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


def _lines(lines: Any) -> tuple[Block, ...]:
    text = "\n".join(lines)
    return (Block("code", text),) if text else ()


def _name(entry: Any, key: str) -> str:
    return (
        str(entry.get(key, ""))
        if isinstance(entry, Mapping)
        else (str(entry) if key == "probe" else "")
    )
