"""The decision tree, loaded from assets: symptoms, steps, causes, and where a walk starts."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ddp_assist.probes.model import Finding, matches

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Certainty = Literal["certain", "likely", "possible"]
ORDER: Mapping[str, int] = {"certain": 0, "likely": 1, "possible": 2}


@dataclass(frozen=True, slots=True)
class To:
    """Where an outcome leads: to a step or a cause, and the most it allows to be said of it."""

    name: str
    is_step: bool
    at_most: Certainty

    @classmethod
    def read(cls, text: str) -> To:
        first, _, rest = text.partition(" ")
        if rest and first in ORDER:
            step = rest.startswith("step:")
            return cls(rest.removeprefix("step:"), step, first)  # type: ignore[arg-type]
        return cls(text.removeprefix("step:"), text.startswith("step:"), "certain")


@dataclass(frozen=True, slots=True)
class Step:
    """A question, the probes that answer it, and where each answer leads."""

    id: str
    question: str
    probes: tuple[str, ...]
    on: Mapping[str, tuple[To, ...]]
    otherwise: tuple[To, ...]
    unknown: tuple[To, ...]
    stands: tuple[str, ...] = ()
    """Answers that no other cause explains: whatever else is true, this was seen by itself."""

    def targets(self) -> list[To]:
        every = [to for tos in self.on.values() for to in tos]
        return list(dict.fromkeys([*every, *self.otherwise, *self.unknown]))


@dataclass(frozen=True, slots=True)
class Symptom:
    """Where a walk starts, in the user's words."""

    id: str
    title: str
    words: tuple[str, ...]
    recognised_by: tuple[str, ...]
    start: str
    often: int = 0
    """Its place among those that most people see; 0 for the others."""


@dataclass(frozen=True, slots=True)
class Page:
    """A cause: what it is called, what it explains, what cures it, and its text."""

    id: str
    title: str
    family: str
    hides: tuple[str, ...]
    fixes: tuple[str, ...]
    text: str
    gives_way: bool = False
    """A cause for what nothing else explains: said of a failure that is known it means little."""

    def section(self, heading: str) -> str:
        _, found, rest = self.text.partition(f"## {heading}\n")
        return rest.split("\n## ")[0].strip() if found else ""


@dataclass(frozen=True, slots=True)
class Tree:
    symptoms: Mapping[str, Symptom]
    steps: Mapping[str, Step]
    pages: Mapping[str, Page]


def _tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def read_page(name: str, text: str) -> Page:
    _, head, body = text.split("+++\n", 2)
    data = tomllib.loads(head)
    return Page(
        name,
        data["title"],
        data["family"],
        _tuple(data.get("hides")),
        _tuple(data.get("fixes")),
        body.strip(),
        data.get("gives_way", False),
    )


@cache
def page(cause: str) -> Page:
    """One page alone: `explain` must not read them all."""
    text = (files("ddp_assist.assets") / "causes" / f"{cause}.md").read_text("utf-8")
    return read_page(cause, text)


@cache
def page_ids() -> tuple[str, ...]:
    names = (entry.name for entry in (files("ddp_assist.assets") / "causes").iterdir())
    return tuple(sorted(name[:-3] for name in names if name.endswith(".md")))


def read_tree(documents: Iterable[str], pages: Mapping[str, Page]) -> Tree:
    symptoms: dict[str, Symptom] = {}
    steps: dict[str, Step] = {}
    for document in documents:
        data = tomllib.loads(document)
        for entry in data.get("symptom", ()):
            if entry["id"] in symptoms:
                raise ValueError(f"two symptoms are called {entry['id']}")
            symptoms[entry["id"]] = _symptom(entry)
        for entry in data.get("step", ()):
            if entry["id"] in steps:
                raise ValueError(f"two steps are called {entry['id']}")
            on = {key: tuple(map(To.read, _tuple(to))) for key, to in entry.get("on", {}).items()}
            steps[entry["id"]] = Step(
                entry["id"],
                entry["question"],
                _tuple(entry.get("probes")),
                on,
                tuple(map(To.read, _tuple(entry.get("otherwise")))),
                tuple(map(To.read, _tuple(entry["unknown"])))
                if "unknown" in entry
                else tuple(dict.fromkeys(to for tos in on.values() for to in tos)),
                _tuple(entry.get("stands")),
            )
    return Tree(symptoms, steps, pages)


def _symptom(entry: Mapping[str, Any]) -> Symptom:
    return Symptom(
        entry["id"],
        entry["title"],
        _tuple(entry.get("words")),
        _tuple(entry.get("recognised_by")),
        entry["start"],
        entry.get("often", 0),
    )


@cache
def _documents() -> tuple[str, ...]:
    folder = files("ddp_assist.assets") / "tree"
    names = [entry.name for entry in folder.iterdir() if entry.name.endswith(".toml")]
    names.sort(key=lambda name: (name != "symptoms.toml", not name.startswith("symptoms"), name))
    return tuple((folder / name).read_text("utf-8") for name in names)


@cache
def symptoms() -> Mapping[str, Symptom]:
    """Where walks start, without the tree below: the first screen waits for nothing else."""
    tables = [table for text in _documents() for table in re.split(r"(?m)^(?=\[\[)", text)]
    document = "".join(table for table in tables if table.startswith("[[symptom]]"))
    return {entry["id"]: _symptom(entry) for entry in tomllib.loads(document)["symptom"]}


@cache
def load() -> Tree:
    return read_tree(_documents(), {cause: page(cause) for cause in page_ids()})


def recognised(tree: Tree, findings: Sequence[Finding]) -> list[Symptom]:
    """The symptoms that something found speaks for, the strongest hint first."""
    hits: list[tuple[int, int, Symptom]] = []
    for place, symptom in enumerate(tree.symptoms.values()):
        lines = [
            int(f.data.get("order", 0))
            for f in findings
            if any(matches(f.key, key) for key in symptom.recognised_by)
        ]
        if lines:
            hits.append((min(lines), place, symptom))
    return [symptom for _, _, symptom in sorted(hits, key=lambda hit: hit[:2])]
