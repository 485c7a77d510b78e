"""The guided session from home to an exported report, on a real held port, at three sizes."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from screen_text import SIZES, shown, until  # type: ignore[import-not-found]

from ddp_assist.app.diagnose import Question
from ddp_assist.app.tui import Assistant
from ddp_assist.probes.network.ports import free_port
from ddp_assist.screens.confirm import Confirm
from ddp_assist.screens.diagnosis import DiagnosisScreen
from ddp_assist.screens.entry import Entry
from ddp_assist.screens.everything import Everything
from ddp_assist.screens.export import ExportScreen
from ddp_assist.screens.fix import FixScreen
from ddp_assist.screens.home import Home
from ddp_assist.screens.messages import Given
from ddp_assist.screens.reader import Reader
from ddp_assist.screens.step import StepScreen
from ddp_assist.screens.widgets.rows import Rows

SERVER = """
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); print("up", flush=True); sys.stdin.read()
"""


@pytest.fixture
def held() -> Iterator[int]:
    """A port that a plain server holds."""
    port = free_port()
    assert port is not None
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], 30)
    assert ready
    yield port
    child.kill()
    child.wait(10)


def launch(port: int, folder: Path) -> Question:
    (folder / "train.py").write_text(
        "import torch.distributed as dist\ndist.init_process_group('gloo')\n"
    )
    words = ("torchrun", "--nproc-per-node=2", f"--master-port={port}", "train.py")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return Question(launch=words, cwd=folder, env={"PATH": path})


@pytest.mark.parametrize("size", SIZES)
async def test_from_a_held_port_to_a_report(
    held: int, tmp_path: Path, size: tuple[int, int]
) -> None:
    app = Assistant(launch(held, tmp_path))
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.session.diagnosis is not None)
        assert isinstance(app.screen, Home)
        assert app.session.recognised()[0][0].id == "address-in-use"
        await until(pilot, lambda: "was recognised" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, StepScreen))
        assert f"port {held} is held by" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DiagnosisScreen))
        assert app.session.diagnosis is not None
        assert app.session.diagnosis.causes[0].cause == "port-held-by-service"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, FixScreen))
        assert app.session.fixes[0].launch is not None
        assert str(held) not in app.session.fixes[0].launch.text
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, ExportScreen))
        await pilot.press("enter")
        await until(pilot, lambda: app.exported is not None)
        assert app.exported is not None
        assert (app.exported / "report.md").exists()
        await pilot.press("escape", "escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, StepScreen))


async def test_help_lists_the_keys_of_the_screen(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Reader))
        text = shown(app)
        assert "Filter" in text
        assert "Paste" in text


async def test_a_pasted_error_is_recognised_and_not_chosen(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: isinstance(app.screen, Entry))
        assert isinstance(app.screen, Entry)
        app.screen._take("RuntimeError: Address already in use\n")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.session.diagnosis is not None)
        assert isinstance(app.screen, Home)
        await until(pilot, lambda: "recognised" in shown(app))


async def test_the_picked_row_stays_picked_when_rows_move(tmp_path: Path) -> None:
    """What is recognised goes to the top while the user's cursor is on another symptom."""
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "What did you see?" in shown(app))
        await pilot.press("down")
        rows = app.screen.query_one(Rows)
        picked = rows.lines[rows.cursor].split(" ", 1)[1]
        app.screen.post_message(Given("paste", "RuntimeError: Address already in use\n"))
        await until(pilot, lambda: "was recognised" in shown(app))
        assert rows.lines[rows.cursor].split(" ", 1)[1] == picked
        assert rows.cursor != 1


HOSTILE = (
    "[@click=app.quit]quit[/] [rank0]: \x1b]52;c;aGk=\x07 [/dev/shm] \u202eevil\u202c "
    "RuntimeError: Address already in use\n"
)


async def test_hostile_text_is_text(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_text(HOSTILE * 3)
    app = Assistant(Question(logs=(str(log),), cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "was recognised" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, StepScreen))
        await pilot.press("tab", "v")
        for y in range(1, 22):
            await pilot.click(offset=(4 + y * 7 % 60, y))
        assert app.is_running
        assert "\x1b" not in shown(app)
        assert "\u202e" not in shown(app)


async def test_a_command_with_unbalanced_quotes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    said: list[str] = []
    monkeypatch.setattr(app, "say", said.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, Entry))
        await pilot.press(*"torchrun", "space", "quotation_mark", "x", "enter")
        await until(pilot, lambda: any("unbalanced" in line for line in said))


async def test_filter_finds_by_the_users_words(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("slash", *"eaddrinuse")
        await until(pilot, lambda: len(app.screen.query_one(Rows).texts) == 1)
        assert "port is taken" in app.screen.query_one(Rows).texts[0]


async def test_the_default_answer_is_no(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    answers: list[bool | None] = []
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(Confirm("End this process?", ["pid 1"], "end pid 1"), answers.append)
        await pilot.press("enter")
        await until(pilot, lambda: answers == [False])


async def test_no_screenshot_is_offered(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)):
        titles = [command.title.lower() for command in app.get_system_commands(app.screen)]
        assert not any("screenshot" in title for title in titles)
        with pytest.raises(RuntimeError):
            app.action_screenshot()


async def test_not_sure_checks_everything(tmp_path: Path) -> None:
    app = Assistant(Question(cwd=tmp_path, env={}))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, Everything))
        await until(pilot, lambda: app.session.diagnosis is not None)
        assert "wrong" in shown(app)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, DiagnosisScreen))
