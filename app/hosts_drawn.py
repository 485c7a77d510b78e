"""Nodes and ways between them in few lines: equal ones folded, the odd one out first."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

MARKS = {
    "reached": ".", "silent": "s", "refused": "r", "reset": "x", "unreachable": "u",
    "no-route": "n", "large-lost": "L", "stranger": "?", "failed": "!",
}  # fmt: skip
WORDS = {
    ".": "reached", "s": "silent", "r": "refused", "x": "reset", "u": "host unreachable",
    "n": "no route", "L": "large packets lost", "?": "somebody else answers", "!": "failed",
    " ": "not tried",
}  # fmt: skip
ORDER = "unsrx!?L."
"""The worst of several outcomes comes first."""
MOST = 12
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class HostRow:
    """Nodes that are alike, in one line."""

    nodes: str
    count: int
    state: str
    why: str
    group: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Who reaches whom, between classes of nodes that behave alike."""

    classes: tuple[tuple[str, int], ...]
    """Folded names and how many."""
    cells: Mapping[tuple[int, int], str]
    """From a class to a class: one mark, upper case where only a part of the ways is shut."""

    def lines(self, width: int = 78) -> list[str]:
        """A matrix in plain text: a row reaches for the columns."""
        if not self.classes:
            return []
        names = [name for name, _ in self.classes]
        room = max(10, min(max(map(len, names)), width - 4 * len(names) - 6))
        head = " " * (room + 6) + "".join(f"{number:>4}" for number in range(1, len(names) + 1))
        lines = [head.rstrip()]
        for at, name in enumerate(names):
            shown = name if len(name) <= room else name[: room - 1] + "~"
            row = "".join(f"{self.cells.get((at, to), ' '):>4}" for to in range(len(names)))
            lines.append(f"{at + 1:>3}  {shown:<{room}} {row}".rstrip())
        used = sorted({mark.lower() if mark != "L" else mark for mark in self.cells.values()})
        legend = [f"{mark} {WORDS[mark]}" for mark in used if mark in WORDS]
        if any(m.isupper() and m != "L" for m in self.cells.values()):
            legend.append("upper case: some of the ways only")
        wrapped = textwrap.wrap(", ".join(legend), max(20, width - 5))
        return [*lines, *(f"     {line}" for line in wrapped)]


def rows(nodes: Rows) -> list[HostRow]:
    """Who did not come, then the rarest kind, then the many that are alike."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    said: dict[tuple[str, str, str], str] = {}
    for node in nodes:
        why = node.get("why") or ""
        kind = "" if node["group"] else why.replace(node["node"], "it")
        row = node["group"] or "-", node["state"], kind
        said.setdefault(row, why)
        found[row].append(node["node"])
    order = sorted(found.items(), key=lambda row: (row[0][1] == "ok", len(row[1]), row[0]))
    return [
        HostRow(folded(names), len(names), row[1], said[row], row[0]) for row, names in order
    ]


def folded(names: Iterable[str]) -> str:
    """`node[1-3]`. What folds them is loaded only where there are nodes."""
    from ddp_assist.probes.fleet.compare import folded as fold

    return fold(names)


def picture(links: Rows) -> Picture:
    """Nodes with the same ways in and out are one class; the classes with trouble come first."""
    names = list(dict.fromkeys(n for way in links for n in (way["to"], way["from"])))
    inward: dict[str, set[tuple[str, str]]] = defaultdict(set)
    outward: dict[str, set[tuple[str, str]]] = defaultdict(set)
    spared = _reached_by_some(links)
    for way in links:
        if way["outcome"] != "reached":
            what = way["kind"], MARKS.get(way["outcome"], "!")
            inward[way["to"]].add(what)
            # Who fails where everybody fails is not odd for it.
            if (way["to"], way["kind"]) in spared:
                outward[way["from"]].add(what)
    alike: dict[Any, list[str]] = defaultdict(list)
    for name in names:
        alike[frozenset(inward[name]), frozenset(outward[name])].append(name)
    order = sorted(alike.items(), key=lambda item: (not item[0][0], not item[0][1], len(item[1])))
    if len(order) > MOST:
        rest = [name for _, members in order[MOST - 1 :] for name in members]
        order = [*order[: MOST - 1], ((frozenset(), frozenset()), rest)]
    place = {name: at for at, (_, members) in enumerate(order) for name in members}
    between: dict[tuple[int, int], set[str]] = defaultdict(set)
    for way in links:
        between[place[way["from"]], place[way["to"]]].add(MARKS.get(way["outcome"], "!"))
    cells = {at: _mark(marks) for at, marks in between.items()}
    return Picture(tuple((folded(members), len(members)) for _, members in order), cells)


def _reached_by_some(links: Rows) -> set[tuple[str, str]]:
    """Whose ports of which kind somebody reaches."""
    return {(way["to"], way["kind"]) for way in links if way["outcome"] == "reached"}


def _mark(marks: set[str]) -> str:
    worst = min(marks, key=ORDER.index)
    return worst.upper() if len(marks) > 1 and worst != "L" else worst


def summary(nodes: Rows, links: Rows, width: int = 78) -> list[str]:
    """Both as plain text, as the verb prints it and reports show it."""
    from ddp_assist.probes.fleet.links import FEW

    lines = ["NODES"]
    for row in rows(nodes):
        state = "answered" if row.state == "ok" else row.state
        lines.append(f"  {row.group:<2} {state:<17} {row.nodes}  {row.why}".rstrip())
    tried = len(links)
    lines += ["", f"LINKS  {tried} connections tried" if tried else "LINKS  none tried"]
    shut: dict[tuple[str, str, str, int], set[str]] = defaultdict(set)
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for way in links:
        asked[way["to"], way["kind"]].add(way["from"])
        if way["outcome"] != "reached":
            port = way["port"] if way["kind"] == "port" else 0
            shut[way["to"], way["kind"], way["outcome"], port].add(way["from"])
    worst = sorted(shut.items(), key=lambda item: (-len(item[1]), item[0]))
    for (to, kind, outcome, port), names in worst[:MOST]:
        what = f"port {port}" if kind == "port" else "data ports"
        every = len(names) > FEW and names == asked[to, kind]
        whom = f"all {len(names)} that tried" if every else folded(names)
        lines.append(f"  SHUT  {whom} -> {to} {what}: {outcome}")
    if len(worst) > MOST:
        lines.append(f"  and {len(worst) - MOST} more")
    if shut:
        lines += ["", "WHO REACHES WHOM  (from the row to the column)"]
        lines += [f"  {line}" for line in picture(links).lines(width - 2)]
    return lines


def svg(links: Rows) -> str:
    """The same matrix for the HTML report."""
    shown = picture(links)
    count = len(shown.classes)
    if not count:
        return ""
    size, left, top = 26, 260, 30
    parts = []
    for at, (name, many) in enumerate(shown.classes):
        label = f"{at + 1} {name}" if len(name) < 34 else f"{at + 1} {name[:31]}..."
        label += f" ({many})" if many > 1 else ""
        y = top + at * size
        parts.append(f'<text x="4" y="{y + 17}">{escape(label)}</text>')
        parts.append(f'<text x="{left + at * size + 8}" y="20">{at + 1}</text>')
        for to in range(count):
            mark = shown.cells.get((at, to), " ")
            kind = ' class="failed"' if mark not in ". " else ""
            x = left + to * size
            said = escape(f"{name} to {shown.classes[to][0]}: {WORDS.get(mark.lower(), mark)}")
            if mark != " ":
                parts.append(
                    f'<rect{kind} x="{x}" y="{y}" width="{size - 3}" height="{size - 3}">'
                    f"<title>{said}</title></rect>"
                )
            parts.append(f'<text x="{x + 8}" y="{y + 17}">{escape(mark)}</text>')
    box = f"0 0 {left + count * size + 4} {top + count * size + 4}"
    title = "<title>Who reaches whom: from the row to the column</title>"
    return "\n".join([f'<svg viewBox="{box}" role="img">{title}', *parts, "</svg>"])
