"""What `make TARGET` would run, read from the Makefile: its recipes as lines of shell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

NAMES = ("GNUmakefile", "makefile", "Makefile")
LARGEST = 200_000
DEEPEST = 6
_RULE = re.compile(r"^([^\s#=:][^=:]*?)\s*::?(?!=)\s*([^#;]*)(?:;(.*))?$")
_SET = re.compile(r"^(?:export\s+|override\s+)*([A-Za-z_][\w.-]*)\s*(\?|:{1,3}|\+)?=\s*(.*?)\s*$")
_USE = re.compile(r"\$\$|\$\(([A-Za-z_][\w.-]*)\)|\$\{([A-Za-z_][\w.-]*)\}")


def recipes(folder: Path, words: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The shell lines of the targets named, with those they depend on first, and where they run."""
    goals: list[str] = []
    given: dict[str, str] = {}
    file: Path | None = None
    i = 0
    while i < len(words):
        word = words[i]
        if word in ("-C", "--directory", "-f", "--file", "-j", "-o") and i + 1 < len(words):
            if word in ("-C", "--directory"):
                folder = folder / words[i + 1]
            elif word in ("-f", "--file"):
                file = folder / words[i + 1]
            i += 1 if not (word == "-j" and not words[i + 1].isdigit()) else 0
        elif "=" in word and not word.startswith("-"):
            name, _, value = word.partition("=")
            given[name] = value
        elif not word.startswith("-"):
            goals.append(word)
        i += 1
    file = file or next((folder / n for n in NAMES if (folder / n).is_file()), None)
    try:
        if file is None or file.stat().st_size > LARGEST:
            return
        text = file.read_text("utf-8", "replace")
    except OSError:
        return
    rules, variables = _read(text)
    variables |= given
    seen: set[str] = set()
    for goal in goals or list(rules)[:1]:
        for line in _lines(goal, rules, variables, seen, 0):
            yield folder, line


Rules = Mapping[str, tuple[list[str], list[str]]]


def _read(text: str) -> tuple[dict[str, tuple[list[str], list[str]]], dict[str, str]]:
    """Targets with what they depend on and their recipe, and the variables."""
    rules: dict[str, tuple[list[str], list[str]]] = {}
    variables: dict[str, str] = {}
    current: list[str] = []
    lines = iter(text.split("\n"))
    for line in lines:
        while line.endswith("\\"):
            line += "\n" + next(lines, "")
        if line.startswith("\t"):
            for target in current:
                rules[target][1].append(line[1:])
            continue
        plain = line.replace("\\\n", " ")
        if setting := _SET.match(plain):
            name, how, value = setting[1], setting[2], setting[3].partition(" #")[0].strip()
            before = variables.get(name)
            if how == "+" and before is not None:
                value = f"{before} {value}"
            if how != "?" or before is None:
                variables[name] = value
        elif rule := _RULE.match(plain):
            current = [t for t in rule[1].split() if not t.startswith(".")]
            for target in current:
                needs, recipe = rules.setdefault(target, ([], []))
                needs += rule[2].replace("|", " ").split()
                recipe += [rule[3].strip()] if rule[3] else []
    return rules, variables


def _lines(
    goal: str, rules: Rules, variables: Mapping[str, str], seen: set[str], depth: int
) -> Iterator[str]:
    if goal in seen or goal not in rules or depth > DEEPEST:
        return
    seen.add(goal)
    needs, recipe = rules[goal]
    for need in needs:
        yield from _lines(need, rules, variables, seen, depth + 1)
    for line in recipe:
        yield _expanded(line.lstrip("@+- \t"), variables, goal)


def _expanded(line: str, variables: Mapping[str, str], goal: str, depth: int = 0) -> str:
    """make's own variables put in; what make does not know is left for the shell to miss."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        if name not in variables or depth > DEEPEST:
            return "$" + name if name in ("PWD", "HOME", "USER") else f"${{{name}}}"
        return _expanded(variables[name], variables, goal, depth + 1)

    return _USE.sub(value, line.replace("$@", goal))
