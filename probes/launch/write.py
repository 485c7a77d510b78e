"""A launch written back: with edits, and as a script that means the same from any directory."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddp_assist.probes.launch.hosts import HOSTFILES
from ddp_assist.probes.launch.plan import Launch, LaunchError, LaunchPlan, Span
from ddp_assist.probes.launch.shell import ASSIGNED, tokens

SIMPLE = re.compile(r"[\w@%+=:,./ -]*", re.ASCII)
ITSELF = re.compile(
    r"\\.|'[^']*'|\"|\$(?:0(?!\d)|\{0(?=[}%#:/])|BASH_SOURCE\b|\{BASH_SOURCE(?:\[0\])?(?=[}%#:/]))",
    re.S,
)
ORIGINAL = "DDP_ASSIST_ORIGINAL"


class RefusedWord(LaunchError):
    """A word that holds a control character and is therefore never written down."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One place of the text and what stands there afterwards; an empty span inserts."""

    span: Span
    text: str


def rewritten(launch: Launch, edits: Iterable[Edit]) -> Launch:
    """The launch with these edits, all else byte for byte, read again."""
    from ddp_assist.probes.launch.read import reread

    text, edge = launch.text, len(launch.text) + 1
    for edit in sorted(set(edits), key=lambda e: (e.span, e.text), reverse=True):
        start, end = edit.span
        if start < 0:
            raise LaunchError("the place to change is not in this launch but in a file it reads")
        if end > edge:
            raise LaunchError("two corrections of the launch touch the same words")
        text, edge = text[:start] + edit.text + text[end:], start
    return reread(launch, text)


def fitting(launch: Launch, span: Span, word: str) -> str:
    """The word as it can stand at this place, whatever quotes are around it."""
    refuse(word)
    if SIMPLE.fullmatch(word) and " " not in word:
        return word
    around = [t for t in tokens(launch.text) if t.start <= span[0] and span[1] <= t.end]
    if any((t.start, t.end) == span or not re.search(r"['\"\\`]", t.raw) for t in around):
        return shlex.quote(word)
    raise LaunchError(f"{word!r} can't be put between the quotes of this launch")


def refuse(word: str) -> None:
    """Raises for what could make a pasted command something else than what is seen."""
    bad = next((c for c in word if not c.isprintable() and c not in "\n\t"), None)
    if bad is not None and not "\udc80" <= bad <= "\udcff":
        raise RefusedWord(f"the launch holds the character U+{ord(bad):04X}, so it is not written")


def as_script(launch: Launch, out_dir: Path | None, copies: Mapping[Path, Path]) -> str:
    """The text of `launch.sh`, to be started from anywhere."""
    text = launch.text
    replaced = {file.resolve(): copy for file, copy in copies.items()}
    edits = set()
    folders: list[str] = []
    for plan in launch.plans:
        edits |= {*_hostfiles(launch, plan, replaced)}
        path = plan.script_path
        copy = replaced.get(path.resolve()) if path is not None else None
        if copy is None or path is None or plan.script_span is None:
            continue
        if plan.script_span[0] < 0:
            raise LaunchError(f"the command that runs {plan.script} stands in another file")
        edits.add(Edit(plan.script_span, fitting(launch, plan.script_span, str(copy.absolute()))))
        folders += [str(copy.absolute().parent), str(path.resolve().parent)]
    for edit in sorted(edits, key=lambda e: e.span, reverse=True):
        text = text[: edit.span[0]] + edit.text + text[edit.span[1] :]
    by = shlex.join(started_by(launch))
    head = [] if out_dir is None else [f"# {by} {out_dir.absolute() / 'launch.sh'}"]
    head += [f"cd {shlex.quote(str(launch.cwd.absolute()))} || exit 1"]
    head += [f"export {_assignment(w)}" for w in launch.outer if ASSIGNED.match(w)]
    taken = [b for a, b in zip(launch.outer, launch.outer[1:], strict=False) if a == "-u"]
    head += [f"unset {shlex.join(taken)}"] if taken else []
    if folders:
        path_list = shlex.quote(":".join(dict.fromkeys(folders)))
        head.append(f"export PYTHONPATH={path_list}${{PYTHONPATH:+:$PYTHONPATH}}")
    if launch.path is not None:
        changed = _itself(text)
        if changed != text:
            original = os.path.join(launch.cwd.absolute(), launch.path)
            head.append(f"{ORIGINAL}={shlex.quote(original)}")
            text = changed
        if launch.arguments:
            head.append(f"set -- {shlex.join(launch.arguments)}")
    refuse(text.replace("\r\n", "\n"))
    for line in head:
        refuse(line)
    lines = text.splitlines(keepends=True)
    at = 0
    # Slurm reads its directives up to the first command, over blank lines too.
    while at < len(lines) and (lines[at].startswith("#") or not lines[at].strip()):
        at += 1
    while at and not lines[at - 1].strip():
        at -= 1
    shebang = "" if text.startswith("#!") else "#!/usr/bin/env bash\n"
    body = "".join(lines[at:])
    before = "".join(lines[:at])
    before += "\n" if before and not before.endswith("\n") else ""
    return shebang + before + "".join(f"{h}\n" for h in head) + body + (
        "" if body.endswith("\n") else "\n"
    )  # fmt: skip


def started_by(launch: Launch) -> list[str]:
    """The words before `launch.sh` that start it as the user's own script was started."""
    return [launch.interpreter, *launch.submitted] if launch.is_submitted else ["bash"]


def _hostfiles(
    launch: Launch, plan: LaunchPlan, replaced: Mapping[Path, Path]
) -> Iterator[Edit]:
    for option in map(plan.option, HOSTFILES):
        if option is None or not option.value:
            continue
        copy = replaced.get((plan.cwd / option.value).resolve())
        if copy is None:
            continue
        if option.value_span is None or option.value_span[0] < 0:
            raise LaunchError(f"the value of {option.spelling} is put together in several places")
        word = fitting(launch, option.value_span, str(copy.absolute()))
        yield Edit(option.value_span, word)


def _assignment(word: str) -> str:
    match = ASSIGNED.match(word)
    value = word[match.end() :] if match else ""
    is_plain = re.fullmatch(r"'[^']*'|\"[^\"]*\"|[\w@%+=:,./$-]*", value)
    return f"{match[1] if match else word}={value if is_plain else shlex.quote(value)}"


def _itself(text: str) -> str:
    """`$0` and its like, which name the script, made to name the user's script again."""
    parts, last = [], 0
    for token in tokens(text):
        if token.kind != "word" or "$" not in token.raw:
            continue
        parts += [text[last : token.start], _renamed(token.raw)]
        last = token.end
    return "".join([*parts, text[last:]])


def _renamed(raw: str) -> str:
    result, at, quoted = [], 0, False
    while match := ITSELF.search(raw, at):
        result.append(raw[at : match.start()])
        found, at = match[0], match.end()
        if found == '"':
            quoted = not quoted
        elif found[0] == "'" and quoted:
            found, at = "'", match.start() + 1
        elif found[0] == "$":
            found = f"${{{ORIGINAL}" + ("" if found[1] == "{" else "}")
        result.append(found)
    return "".join([*result, raw[at:]])
