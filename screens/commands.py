"""What the palette offers: what would do something now, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddp_assist.screens.widgets.frame import UNSAID, Framed

if TYPE_CHECKING:
    from textual.screen import Screen

    from ddp_assist.app.session import Session

EVERYWHERE = (
    ("app.everything", "probe: check everything on this machine"),
    ("app.jobs", "job: those alive on this machine"),
    ("app.hosts", "host: ask several nodes, and compare"),
    ("app.trial", "trial: let ranks meet here"),
    ("app.cases", "case: go on with a saved one"),
    ("app.map", "tree: where I am, what is ruled out, what is left"),
    ("app.help", "help: the keys of this screen"),
    ("app.suspend_process", "app: suspend, fg comes back"),
    ("app.quit", "app: quit, and print the corrected command"),
)
CONCLUDED = (
    ("app.diagnosis", "diagnosis: the causes, the likeliest first"),
    ("app.export", "report: preview and write it, redacted"),
)
LEFT_OUT = ("app.pop_screen", "app.commands")


def commands(screen: Screen[Any], session: Session) -> list[tuple[str, str]]:
    """Action and words: first what this screen can do, then what can be done from anywhere."""
    found: dict[str, str] = {}
    for active in screen.active_bindings.values():
        binding = active.binding
        if active.node is screen and active.enabled and binding.description not in UNSAID:
            found.setdefault(binding.action, f"here: {binding.description.lower()}")
    general = [*EVERYWHERE, *(CONCLUDED if session.diagnosis is not None else ())]
    for action, words in general:
        found[action] = words
    if not isinstance(screen, Framed):
        found = {action: words for action, words in found.items() if action.startswith("app.")}
    if session.recorded:
        found.pop("app.cases", None)
    return [(action, words) for action, words in found.items() if action not in LEFT_OUT]
