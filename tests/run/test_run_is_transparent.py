"""`run` in front of a healthy command: bytes, exit status and signals as without it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

TOOL = (str(Path(sys.executable).with_name("ddp-assist")), "run", "--no-trial", "--")
PLAIN = """
import sys, os
sys.stdout.write("\\x1b[31mred\\x1b[0m\\ttab\\r\\nÄ\\U0001f3d6\\n10 %\\r 20 %\\r done\\n")
sys.stdout.flush()
os.write(2, b"to stderr\\n")
os.write(1, bytes(range(256)) + b"\\n")
print([os.isatty(fd) for fd in (0, 1, 2)], os.get_terminal_size())
"""
ASKS = """
stty size; stty -a | tr ';' '\\n' | grep -v speed
printf 'name? '; read name; echo "hello $name"
stty -echo; printf 'secret? '; read word; stty echo; echo; echo "${#word} letters"
"""
INTERRUPTED = "trap 'echo caught; exit 0' INT; echo ready; while :; do sleep 0.05; done"
DIES = "echo ready; exec sleep 60"
RESIZED = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
STOPPED = "stty -echo; echo ready; read line; echo went on with $line; stty echo"


@dataclass
class Seen:
    out: bytes
    status: int
    stopped: list[int]


class Screen:
    """A terminal with one command on it, as a shell with job control would start it."""

    def __init__(self, words: Sequence[str]) -> None:
        self.master, slave = pty.openpty()
        self.size(24, 80)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.master)
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            job = os.fork()
            if job == 0:
                os.setpgid(0, 0)
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                os.tcsetpgrp(slave, os.getpgrp())
                signal.signal(signal.SIGTTOU, signal.SIG_DFL)
                for fd in (0, 1, 2):
                    os.dup2(slave, fd)
                os.closerange(3, 64)
                os.execvp(words[0], list(words))
            self._shell(job, slave)
        os.close(slave)
        self.out = b""

    def _shell(self, job: int, slave: int) -> None:
        """Says when the job stops, and lets it go on."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                os.tcsetpgrp(slave, os.getpgrp())
                os.write(slave, b"<stopped by %d>\n" % os.WSTOPSIG(status))
                os.tcsetpgrp(slave, job)
                os.killpg(job, signal.SIGCONT)
                continue
            if os.WIFSIGNALED(status):
                os.write(slave, b"<ended by %d>" % os.WTERMSIG(status))
                os._exit(0)
            os.write(slave, b"<code %d>" % os.WEXITSTATUS(status))
            os._exit(0)

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: bytes) -> None:
        ends = time.monotonic() + 60
        while text not in self.out and self._read():
            assert time.monotonic() < ends, self.out[-400:]

    def until_awake(self) -> None:
        """Nobody on this terminal is stopped any more; what is typed sooner nobody reads."""
        ends = time.monotonic() + 60
        here = psutil.Process(self.pid).children(recursive=True)
        while any(p.is_running() and p.status() == psutil.STATUS_STOPPED for p in here):
            assert time.monotonic() < ends, here

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> bytes:
        while self._read():
            pass
        os.waitpid(self.pid, 0)
        os.close(self.master)
        return self.out

    def _read(self) -> bool:
        select.select([self.master], [], [], 60)
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:
            return False
        self.out += data
        return bool(data)


def both(words: Sequence[str], act: Callable[[Screen], None]) -> bytes:
    """What the terminal got, the same with and without us."""
    seen = []
    for front in ((), TOOL):
        screen = Screen([*front, *words])
        act(screen)
        seen.append(screen.end())
    assert seen[0] == seen[1]
    return seen[0]


def test_every_byte_and_the_look_of_the_terminal() -> None:
    out = both([sys.executable, "-c", PLAIN], lambda screen: None)
    assert b"\x1b[31mred" in out
    assert b"[True, True, True] os.terminal_size(columns=80, lines=24)" in out
    assert out.endswith(b"<code 0>")


def test_what_is_typed_with_and_without_echo() -> None:
    def answer(screen: Screen) -> None:
        screen.until(b"name? ")
        screen.type(b"Ada\r")
        screen.until(b"secret? ")
        screen.type(b"hunter2\r")

    out = both(["sh", "-c", ASKS], answer)
    assert b"hello Ada" in out
    assert b"7 letters" in out
    assert b"hunter2" not in out


@pytest.mark.parametrize(
    ("keys", "ended"), [(b"\x03", b"<ended by 2>"), (b"\x1c", b"<ended by 3>")]
)
def test_keys_that_end_a_job(keys: bytes, ended: bytes) -> None:
    def press(screen: Screen) -> None:
        screen.until(b"ready")
        screen.type(keys)

    assert both(["sh", "-c", DIES], press).endswith(ended)


def test_a_job_that_handles_ctrl_c_itself() -> None:
    def press(screen: Screen) -> None:
        screen.until(b"ready")
        screen.type(b"\x03")

    assert b"caught" in both(["sh", "-c", INTERRUPTED], press)


def test_ctrl_z_stops_the_job_and_us_until_the_shell_goes_on() -> None:
    def press(screen: Screen) -> None:
        screen.until(b"ready")
        screen.type(b"\x1a")
        screen.until(b"<stopped by")
        screen.until_awake()
        screen.type(b"more\r")

    out = both(["sh", "-c", STOPPED], press)
    assert b"<stopped by 20>" in out
    assert b"went on with more" in out


def test_a_new_size_reaches_the_job() -> None:
    def resize(screen: Screen) -> None:
        screen.until(b"ready")
        screen.size(50, 132)

    assert b"50 132" in both(["sh", "-c", RESIZED], resize)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_of_other_processes_end_it_as_they_would_the_job(number: int) -> None:
    codes = []
    for front in ((), TOOL):
        with subprocess.Popen(
            [*front, "sh", "-c", DIES], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as job:
            assert job.stdout is not None
            assert job.stdout.readline() == b"ready\n"
            job.send_signal(number)
            codes.append(job.wait(30))
    assert codes[0] == -number
    if number == signal.SIGUSR1:  # nobody asked it to end: that is a failure, and is diagnosed
        assert codes[1] in (0, 1, 5)
    else:
        assert codes[1] == codes[0]


@pytest.mark.parametrize("into", ["files", "pipe", "same"])
def test_without_a_terminal_the_streams_stay_apart_and_whole(into: str, tmp_path: Path) -> None:
    many = (
        "import os\nfor n in range(3000):\n os.write(1, b'%06d\\n' % n * 90)\n"
        " n % 300 or os.write(2, b'.')"
    )
    seen = []
    for name, front in (("plain", ()), ("ours", TOOL)):
        out, err = tmp_path / f"{name}.out", tmp_path / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            done = subprocess.run(
                [*front, sys.executable, "-c", many], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if into == "pipe" else stdout,
                stderr=subprocess.STDOUT if into == "same" else stderr, check=False, timeout=120,
            )  # fmt: skip
        seen.append((done.returncode, done.stdout, out.read_bytes(), err.read_bytes()))
    assert seen[0] == seen[1]
    assert seen[0][0] == 0


def test_a_reader_that_goes_away_ends_the_job_as_it_would_without_us() -> None:
    seen = []
    for front in ("", " ".join(TOOL) + " "):
        done = subprocess.run(
            ["bash", "-c", f"{front}yes | head -c 100000 | cksum; echo ${{PIPESTATUS[1]}}"],
            capture_output=True, check=False, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        seen.append(done.stdout)
    assert seen[0] == seen[1]


def test_only_stderr_on_a_terminal_keeps_its_look(tmp_path: Path) -> None:
    """`run -- train > log`: progress bars go to stderr and ask whether it is a terminal."""
    asks = "import os, sys; os.write(2, b'%r\\n' % os.isatty(2)); print(os.isatty(1))"
    seen = []
    for name, front in (("plain", ()), ("ours", TOOL)):
        log = tmp_path / name
        words = [*front, sys.executable, "-c", asks]
        screen = Screen(["sh", "-c", f'exec "$@" > {log} < /dev/null', "sh", *words])
        seen.append((screen.end(), log.read_bytes()))
    assert seen[0] == seen[1]
    assert b"True\r\n" in seen[0][0]


def test_a_command_that_can_not_be_started_is_said_before_anything_else(tmp_path: Path) -> None:
    bad = tmp_path / "job"
    bad.write_text("#!/nonexistent/sh\n")
    bad.chmod(0o755)
    done = subprocess.run([*TOOL, str(bad)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "can't be started" in done.stderr


def test_nothing_is_left_in_the_temporary_folder_however_it_ends(tmp_path: Path) -> None:
    """Neither in front of a job that prints, nor while a log comes in on stdin."""
    run = [*TOOL, "sh", "-c", "echo ready; exec sleep 60"]
    for words in (run, [TOOL[0], "diagnose", "--log", "-"]):
        ours = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )  # fmt: skip
        assert ours.stdin is not None and ours.stdout is not None
        kept: list[str] = []
        with ours:
            if words is run:
                assert ours.stdout.readline() == b"ready\n"
            else:
                ours.stdin.write(b"Address already in use\n" * 9999)
            for _ in range(600):
                fds = Path(f"/proc/{ours.pid}/fd").iterdir()
                kept = [t for fd in fds if (t := os.readlink(fd)).startswith(str(tmp_path))]
                if kept:
                    break
                time.sleep(0.05)
            assert kept, "it keeps nothing yet"
            job = psutil.Process(ours.pid).children()
            ours.kill()
            for child in job:
                child.kill()
        assert list(tmp_path.iterdir()) == []


def test_our_own_words_on_a_raw_terminal_are_lines() -> None:
    says = (
        "import tty; from ddp_assist.app.passthrough import readable\n"
        "tty.setraw(0)\nprint('raw')\n"
        "with readable():\n    print('one\\ntwo')\nprint('raw')"
    )
    assert Screen([sys.executable, "-uc", says]).end() == b"raw\none\r\ntwo\r\nraw\n<code 0>"
