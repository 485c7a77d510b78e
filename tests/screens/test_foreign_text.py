"""A screen full of hostile text: clicked and typed through, and nothing comes of it."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

from screen_text import shown, until, words  # type: ignore[import-not-found]

from ddp_assist.app.demo import Recorded, Story, story
from ddp_assist.app.diagnose import Diagnosis
from ddp_assist.app.question import Question
from ddp_assist.app.tui import Assistant
from ddp_assist.probes.model import Evidence
from ddp_assist.probes.runner import Told

HOSTILE = (
    "[@click=app.quit]quit[/] [@click=app.screenshot('pwn.svg','.')]x[/] [rank0]: [/dev/shm] [/] "
    "\x1b]52;c;aGk=\x07 \x1b[2J \x9b31m \u202eevil\u202c [link=javascript:alert(1)]l[/link] [c10d]"
)


class Hostile(Recorded):
    """Every sentence, line and name that a machine could give, all of it hostile."""

    def __init__(self, told: Story) -> None:
        data = json.loads(json.dumps(told.data))
        for job in data["jobs"]:
            job["launcher"] = job["verdict"]["sentence"] = HOSTILE
        data["fixes"][0] |= {"title": HOSTILE, "steps": [HOSTILE], "does_not": HOSTILE}
        super().__init__(replace(told, data=data))

    def look(self, question: Question, told: Told, cancel: threading.Event) -> Diagnosis:
        seen = super().look(question, lambda probe, found: None, cancel)
        evidence = (Evidence(HOSTILE, (HOSTILE, "x" * 100_000), ("echo", HOSTILE)),)
        found = tuple(replace(f, sentence=HOSTILE, evidence=evidence) for f in seen.findings)
        for probe, finding in {f.probe: f for f in found}.items():
            told(next(p for p in _probes() if p.id == probe), (finding,))
        return replace(seen, findings=found)


def _probes():  # type: ignore[no-untyped-def]
    from ddp_assist.probes.catalogue import probes

    return probes()


async def test_nothing_of_it_is_obeyed(tmp_path: Path) -> None:
    machine = Hostile(story("1-port"))
    app = Assistant(machine.story.question, machine=machine)
    here = set(Path().iterdir())
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.session.diagnosis is not None)
        # Home, step, its evidence, diagnosis, fix, report, jobs, everything: each clicked all over.
        for keys in ("", "enter", "v", "b enter", "enter", "x", "b b b b", "j", "b 0"):
            await pilot.press(*keys.split())
            await pilot.pause()
            for y in range(1, 29, 2):
                await pilot.click(offset=(4 + y * 7 % 60, y))
            assert app.is_running
            assert app.return_code is None
            seen = shown(app)
            assert not any(c in seen for c in "\x1b\x9b\x07\u202e"), keys
        await until(pilot, lambda: "[rank0]: [/dev/shm]" in words(app))
        assert "[@click=app.quit]quit[/]" in words(app)
        await pilot.press(*"[@click]", "tab", "space")
        assert app.is_running
    assert set(Path().iterdir()) == here


async def test_what_is_pasted_and_typed_is_text_too(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        await until(pilot, lambda: "The launch command" in words(app))
        await pilot.press(*"[red]", "enter")
        await until(pilot, lambda: "launch [red]" in words(app))
        await pilot.press("colon")
        await until(pilot, lambda: "What now?" in words(app))
        await pilot.press(*"[@")
        assert app.is_running
