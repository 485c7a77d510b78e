"""Several hosts: which answer, which are the odd ones, who can't reach whom, what follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding

from ddp_assist.app.hosts_drawn import summary
from ddp_assist.screens.messages import HostsWanted
from ddp_assist.screens.widgets.frame import Framed, Line
from ddp_assist.screens.widgets.lines import wrapped
from ddp_assist.screens.widgets.rows import Rows

NOW = {
    "log in": "logging in, and looking at who came",
    "look": "looking at the last of them",
    "reach": "letting them reach for each other",
    "meet": "letting ranks meet between them",
    "conclude": "comparing them",
    "cure": "trying a cure",
    "done": "writing it down",
}
"""What a stage of the asking is, in words."""
MARGIN = 2
"""Columns that a row needs for the cursor."""


class HostsScreen(Framed):
    CSS_PATH = "hosts.tcss"
    BINDINGS = [
        Binding("enter", "on", "Go on", key_display="enter"),
        Binding("n", "nodes", "Name nodes"),
        Binding("r", "again", "Ask again"),
        Binding("v", "raw", "Evidence"),
        Binding("d", "app.diagnosis", "Diagnosis"),
        Binding("b,escape", "app.pop_screen", "Back", key_display="b"),
        Binding("question_mark", "app.help", "Help"),
    ]
    nodes = ""

    def head(self) -> str:
        return "ddp-assist > Hosts"

    def body(self) -> ComposeResult:
        yield Line("", id="said")
        yield Rows(id="hosts")

    def on_mount(self) -> None:
        self.query_one(Rows).focus()

    def show(self) -> None:
        so_far = self.session.hosts_so_far
        hosts = so_far() if so_far is not None else self.session.hosts
        self.query_one("#said", Line).say(self._said(hosts))
        list_of = self.query_one(Rows)
        room = (list_of.size.width or self.app.size.width) - MARGIN
        list_of.show([part for row in rows(hosts) for part in wrapped(row, room)] if hosts else [])

    def _said(self, hosts: dict[str, Any] | None) -> str:
        if hosts is not None and "stage" in hosts:
            come = f"{hosts['answered']} of {len(hosts['nodes'])} nodes have answered"
            return "\n".join([f"{come}; now: {NOW[hosts['stage']]} ...", *_named(hosts)])
        if self.session.asking:
            return "Asking every node over ssh: looking, connecting, meeting. At most 90 s ..."
        if hosts is None:
            return (
                "Every node is asked over ssh, with your own keys: what it has, whom it\n"
                "reaches, and whether ranks meet between them. Nothing stays there.\n\n"
                "enter names the nodes, as in node[01-04]."
            )
        causes = hosts["causes"]
        if causes:
            more = sum(1 for cause in causes[1:] if cause["certainty"] != "possible")
            on = "enter goes on to it" + (f" and {more} more" if more else "")
            return "\n".join([*_named(hosts), on])
        nodes = hosts["nodes"]
        silent = sum(1 for node in nodes if node["group"] is None)
        well = "nothing differs that matters, and all that was tried is open."
        if silent:
            return f"{silent} of {len(nodes)} nodes told nothing; between the others\n{well}"
        return well.capitalize()

    def action_on(self) -> None:
        if self.session.asking:
            return
        if self.session.hosts and self.session.hosts["causes"]:
            self.call_later(self.run_action, "app.diagnosis")
        else:
            self.action_nodes()

    def action_nodes(self) -> None:
        from ddp_assist.screens.entry import entry

        def answered(text: str | None) -> None:
            if text is not None:
                self.nodes = text
                self.action_again()

        self.app.push_screen(entry("nodes"), answered)

    def action_again(self) -> None:
        self.post_message(HostsWanted(self.nodes))

    def action_raw(self) -> None:
        from ddp_assist.screens.reader import Reader

        findings = (self.session.hosts or {}).get("findings", ())
        lines = [line for f in findings for line in (f["sentence"], *_evidence(f["evidence"]), "")]
        self.app.push_screen(Reader("What the nodes said", "\n".join(lines)))


def rows(hosts: dict[str, Any]) -> Iterator[str]:
    """Nodes in kinds, the odd ones first; then what is shut; then what was seen side by side."""
    yield from (line.rstrip() for line in summary(hosts["nodes"], hosts["links"]) if line)
    for finding in hosts.get("findings", ()):
        if finding["probe"] == "fleet" and finding["outcome"] != "unknown":
            yield f"- {finding['sentence']}"


def _named(hosts: dict[str, Any]) -> Iterator[str]:
    """The first cause, and where it was seen."""
    for cause in hosts.get("causes", ())[:1]:
        yield f"{cause['certainty'].upper()}: {cause['title']}"
        yield from cause["for"][:1]


def _evidence(evidence: list[dict[str, Any]]) -> list[str]:
    return [f"  {line}" for seen in evidence for line in seen["lines"]]
