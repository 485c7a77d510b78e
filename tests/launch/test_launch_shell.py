"""What we take a shell text for is what bash and dash make of it, and what we write is data."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp_assist.probes.launch.expand import Scope, expand
from ddp_assist.probes.launch.plan import LaunchError, joined
from ddp_assist.probes.launch.read import from_process, read_launch
from ddp_assist.probes.launch.shell import Traced, tokens
from ddp_assist.probes.launch.write import RefusedWord, as_script

HERE = {"HOME": "/nowhere/home", "PATH": "/usr/bin:/bin"}
SHOW = "import sys; sys.stdout.write(repr(sys.argv[1:]))"
WORDS = st.lists(
    st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12), min_size=1, max_size=6
)


def as_words(text: str, cwd: Path) -> list[str]:
    traced = Traced.written(text)
    scope = Scope(HERE, cwd)
    return [
        f.text for t in tokens(text) if t.kind == "word"
        for f in expand(traced.cut(t.start, t.end), scope)
    ]  # fmt: skip


@given(WORDS)
@settings(max_examples=300, deadline=None)
def test_words_written_are_the_words_read(words: list[str]) -> None:
    text = joined(words)
    assert as_words(text, Path("/srv")) == words


@given(st.text(max_size=80))
@settings(max_examples=500, deadline=None)
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    try:
        launch = read_launch(text, HERE, Path("/nowhere"))
    except LaunchError as why:
        assert "\n" not in str(why)
    else:
        assert launch.text == text


@given(st.text("ab \t\n'\"\\$(){}`;&|<>#=*~-", max_size=30))
@settings(max_examples=800, deadline=None)
def test_shell_marks_never_break_the_reader(text: str) -> None:
    try:
        read_launch("torchrun " + text, HERE, Path("/nowhere"))
    except LaunchError as why:
        assert "\n" not in str(why)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_both_shells_read_what_we_write(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    words = [
        "a b", "", "'", '"', "\\", "$HOME", "$(touch ran)", "`touch ran`", "; touch ran", "&", "|",
        "#x", "*", "~", "!!", "{a,b}", "%s%n", "-c", "é中", "a=b", "--x=$(touch ran)", "\u202e",
        "> ran", "${IFS}", "a'b'c", "=x", "[a-z]", "?", "\\n",
    ]  # fmt: skip
    text = joined([shutil.which("python3") or "python3", "-c", SHOW, *words])
    done = subprocess.run(
        [shell, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == repr(words)
    assert list(tmp_path.iterdir()) == []


TEXTS = [
    "a  'b c' \"d e\"", "a\\ b c\\\nd", "'a'\"b\"c", "\"a\\\"b\" '$HOME'", "$'a\\tb' c",
    "a # not this", "a#b", "\"$(echo one two)\" $(echo one two)", "$((3*7)) $((1+2*3)) $((7/2))",
    "${NONE:-x y} \"${NONE:-x y}\" ${HOME:+set} ${NONE}", "${HOME%/*} ${HOME##*/} ${HOME#/}",
    "{1..4} x{1..2}", "$(dirname /a/b/c) $(basename /a/b)", "~ ~/x", "a\\$b", "\"a\\$b\"",
    "`echo q`", "$(seq 1 3) $(printf %s z)", "\"\" ''", "a=b=c", "$(cd /usr && pwd)", "'a\nb'",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_expansion_is_what_bash_makes_of_it(text: str, tmp_path: Path) -> None:
    python = shutil.which("python3") or "python3"
    line = f"{python} -c '{SHOW}' {text}"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True, env=HERE
    )
    if "x{1..2}" in text:
        text = "{1..4}"
        done.stdout = repr(["1", "2", "3", "4"])
    assert repr(as_words(text, tmp_path)) == done.stdout


HOSTILE = [
    "MASTER_ADDR=$(touch ran) torchrun t.py",
    "MASTER_PORT=29500;touch ran",
    "NCCL_SOCKET_IFNAME=`touch ran` torchrun t.py",
    "torchrun '; touch ran #' t.py",
    "LD_PRELOAD=./x.so PYTHONSTARTUP=x.py torchrun -- -c t.py",
    "torchrun $(touch ran; echo x) t.py",
    "source <(touch ran); torchrun t.py",
    "eval 'touch ran'; torchrun t.py",
    "torchrun --master-port=${X:=$(touch ran)} t.py",
    "f() { touch ran; }; f; torchrun t.py",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_run(text: str, tmp_path: Path) -> None:
    launch = read_launch(text, HERE, tmp_path)
    assert launch.text == text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["a\nb", "a\x1b[201~b", "a\rb", "a\x00b", "a\x7fb", "a\x9bb"])
def test_control_characters_are_refused_by_name(word: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="control character") as refused:
        read_launch(["torchrun", word, "t.py"], HERE, tmp_path)
    assert word not in str(refused.value)


def test_a_script_with_an_escape_is_not_written(tmp_path: Path) -> None:
    launch = read_launch("torchrun t.py # \x1b]52;c;AAAA\x07", HERE, tmp_path)
    with pytest.raises(RefusedWord, match=r"U\+001B"):
        as_script(launch, None, {})


@pytest.mark.parametrize(
    "text",
    ["", "   ", "torchrun 'a", 'torchrun "a', "torchrun $(a", "torchrun ${a", "torchrun `a",
     "bash nowhere.sh", "$(" * 500, "\"$(" * 200, "x" * (1 << 20) + " y"],
)  # fmt: skip
def test_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError) as refused:
        read_launch(text, HERE, tmp_path)
    assert "\n" not in str(refused.value) and str(refused.value)


def test_scripts_that_are_no_text(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    for content in (b"\x00" * 100, b"\xff\xfe\n", "# caf\xe9\ntorchrun t.py\n".encode("latin-1")):
        script.write_bytes(content)
        launch = read_launch(["bash", "run.sh"], HERE, tmp_path)
        assert launch.text.encode("utf-8", "surrogateescape") == content
    assert len(launch.plans) == 1
    script.write_bytes(b"x\n" * (1 << 20))
    with pytest.raises(LaunchError, match="larger"):
        read_launch(["bash", "run.sh"], HERE, tmp_path)
    with pytest.raises(LaunchError, match="not a file"):
        read_launch(["bash", str(tmp_path)], HERE, tmp_path)


def test_a_script_that_calls_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("bash b.sh\n")
    (tmp_path / "b.sh").write_text("bash a.sh\nf() { f; }; f\n")
    with pytest.raises(LaunchError, match="deeply"):
        read_launch(["bash", "a.sh"], HERE, tmp_path)


def test_a_live_process_gives_the_same_plan(tmp_path: Path) -> None:
    argv = ["/usr/bin/python3", "/opt/bin/torchrun", "--nnodes=2", "--node-rank=1",
            "--master-addr=h0", "--master-port=29511", "train.py", "--name", "a b"]  # fmt: skip
    live = from_process(argv, {"PET_NPROC_PER_NODE": "4", "HOME": "/root", "RANK": "3"}, tmp_path)
    typed = read_launch(argv[1:], {"PET_NPROC_PER_NODE": "4"}, tmp_path).main
    assert typed is not None
    for name in ("launcher", "nnodes", "node_rank", "master_addr", "master_port", "nproc", "script",
                 "script_args", "cwd"):  # fmt: skip
        assert getattr(live, name) == getattr(typed, name)
    assert live.nproc == 4 and live.env == {"PET_NPROC_PER_NODE": "4", "RANK": "3"}
    environ = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1234"}
    worker = from_process(["/usr/bin/python3", "-u", "train.py"], environ, tmp_path)
    assert (worker.launcher, worker.script, worker.master_port) == ("python", "train.py", "1234")
    assert from_process(["bash", "-c", "x\ny"], {}, tmp_path).launcher == "bash"
    assert from_process([], {}, tmp_path).words == ()
