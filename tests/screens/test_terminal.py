"""However the session ends, the terminal comes back: a real pty, a real process, real signals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pty_terminal import PATIENCE, ROOT, Terminal  # type: ignore[import-not-found]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    here = Terminal(tmp_path)
    here.shows("What did you see")
    yield here
    here.close()


def test_q_leaves_a_clean_terminal(terminal: Terminal) -> None:
    terminal.type(b"q")
    assert terminal.ended() == 0
    assert terminal.is_restored()


def test_ctrl_c_twice_leaves_too(terminal: Terminal) -> None:
    terminal.type(b"\x03")
    terminal.shows("again")
    terminal.type(b"\x03")
    assert terminal.ended() == 130
    assert terminal.is_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_the_command_restores(terminal: Terminal, number: signal.Signals) -> None:
    os.kill(terminal.child.pid, number)
    assert terminal.ended() == 128 + number
    assert terminal.is_restored()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGHUP]
)
def test_the_death_of_the_screen_restores(terminal: Terminal, number: signal.Signals) -> None:
    os.kill(terminal.screen(), number)
    assert terminal.ended() == 128 + number
    assert terminal.is_restored()


def test_the_screen_goes_when_its_guard_is_killed(terminal: Terminal) -> None:
    screen = terminal.screen()
    os.kill(terminal.child.pid, signal.SIGKILL)
    terminal.read(lambda: not os.path.exists(f"/proc/{screen}") or _is_zombie(screen))


def test_a_terminal_that_goes_without_a_word_ends_the_session(tmp_path: Path) -> None:
    """No SIGHUP comes where it is not the session's own terminal, as under `docker exec`."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "ddp_assist"], stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
        env={**{k: v for k, v in os.environ.items() if k != "CI"}, "TERM": "xterm-256color",
             "PYTHONPATH": str(ROOT / "tests/typing"), "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    seen = b""
    while b"What did you see" not in seen:
        seen += os.read(master, 1 << 16)
    os.close(slave)
    os.close(master)
    assert child.wait(PATIENCE) == 128 + signal.SIGHUP


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("term", ["screen-256color", "linux", "vt100", "tmux-256color"])
def test_other_terminals_show_it_too(tmp_path: Path, term: str) -> None:
    here = Terminal(tmp_path, TERM=term)
    here.shows("What did you see")
    here.type(b"q")
    assert here.ended() == 0
    here.close()


def test_a_dumb_terminal_is_refused_with_a_way_on(tmp_path: Path) -> None:
    here = Terminal(tmp_path, TERM="dumb")
    assert here.ended() == 2
    assert b"ddp-assist diagnose" in here.bytes
    assert b"\x1b" not in here.bytes
    here.close()


def test_no_color_means_no_color(tmp_path: Path) -> None:
    here = Terminal(tmp_path, NO_COLOR="1")
    here.shows("What did you see")
    assert b"\x1b[38" not in here.bytes
    assert b";38;" not in here.bytes
    here.type(b"q")
    assert here.ended() == 0
    here.close()


def test_the_mouse_stays_with_the_terminal(terminal: Terminal) -> None:
    assert b"\x1b[?1000h" not in terminal.bytes
    assert b"\x1b[?1003h" not in terminal.bytes


LOG = (
    b"[rank0]: torch.distributed.DistNetworkError: quit \x1b[31mred\x1b[0m and /filter, a line\r"
    * 3000
)


def test_a_paste_without_marks_neither_freezes_nor_types(terminal: Terminal) -> None:
    """250 kB as a terminal without bracketed paste sends them, on the first screen."""
    assert len(LOG) > 240_000
    threading.Thread(target=_feed, args=(terminal.master, LOG), daemon=True).start()
    terminal.shows("3000 lines")
    terminal.type(b"\x13")
    terminal.shows("looking")
    terminal.type(b"q")
    assert terminal.ended() == 0


def _feed(master: int, data: bytes) -> None:
    while data:
        data = data[os.write(master, data[:4000]) :]


@pytest.mark.parametrize("env", [{"TERM": "linux"}, {"LANG": "C", "LC_ALL": ""}, {"TERM": "vt100"}])
def test_where_only_ascii_is_sure_there_is_only_ascii(tmp_path: Path, env: dict[str, str]) -> None:
    here = Terminal(tmp_path, "--demo", **env)
    here.shows("Pick one")
    for said in ("recognised", "Who has the port?", "The cause is this", "Fix 1 of 3", "[ RAN ]"):
        here.type(b"\r")
        here.shows(said)
    here.type(b"q")
    assert here.ended() == 0
    assert here.bytes.isascii()
    assert "corrected launch [ran]:" in here.bytes.decode()
    here.close()


@pytest.mark.needs("tmux")
def test_in_tmux_the_command_is_copied_to_its_buffer(tmp_path: Path) -> None:
    tmux = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null"]
    env = (f"PYTHONPATH={ROOT}/tests/typing", f"XDG_STATE_HOME={tmp_path}", "CI=", "LANG=C.UTF-8")
    shown = ["env", *env, sys.executable, "-m", "ddp_assist", "--demo"]
    subprocess.run([*tmux, "new-session", "-d", "-x", "80", "-y", "24", *shown], check=True)

    def pane() -> str:
        seen = subprocess.check_output([*tmux, "capture-pane", "-p"], text=True)
        return " ".join(seen.split())

    def pane_shows(text: str) -> None:
        end = time.monotonic() + PATIENCE
        while text not in pane():
            assert time.monotonic() < end, pane()
            time.sleep(0.1)

    try:
        pane_shows("Pick one")
        for said in ("recognised", "Who has the port?", "The cause is this", "Fix 1 of 3"):
            subprocess.run([*tmux, "send-keys", "Enter"], check=True)
            pane_shows(said)
        subprocess.run([*tmux, "send-keys", "y"], check=True)
        pane_shows("copied to the tmux buffer")
        copied = subprocess.check_output([*tmux, "show-buffer"], text=True)
        assert "--master-port=28636" in copied
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
