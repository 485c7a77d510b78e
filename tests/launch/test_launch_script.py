"""`launch.sh` means the same from any directory, for scripts of the shell as they are written."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ddp_assist.probes.launch.plan import LaunchError
from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.launch.write import Edit, rewritten

HERE = {"HOME": "/nowhere/home", "PATH": os.environ["PATH"]}
SHOW = (
    "import os, sys\n"
    "print(os.getcwd(), os.path.abspath(sys.argv[0]), sys.argv[1:],"
    " os.environ.get('X'), os.environ.get('MASTER_PORT'), os.environ.get('GONE'))\n"
)


def run(text: str, folder: Path, env: dict[str, str]) -> str:
    folder.mkdir(exist_ok=True)
    script = folder / "launch.sh"
    script.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["bash", str(script)], cwd="/", env=env, capture_output=True, text=True, check=True
    )
    return done.stdout


def job(folder: Path, body: str) -> list[str]:
    (folder / "sub dir").mkdir()
    (folder / "sub dir" / "show.py").write_text(SHOW)
    (folder / "sub dir" / "run.sh").write_text(body)
    return ["bash", "sub dir/run.sh", "one", "two words"]


BODIES = [
    'cd "$(dirname "$0")"\npython3 show.py "$@"\n',
    'cd "$(dirname "${BASH_SOURCE[0]}")" && python3 show.py $1\n',
    "cd \"${0%/*}\"; MASTER_PORT=1 python3 show.py '$0'\n",
    'HERE="$(cd "$(dirname "$BASH_SOURCE")" && pwd)"\npython3 "$HERE/show.py" "$2"\n',
    '#!/bin/bash\n# mine\nset -e\npython3 "$(dirname -- "$0")/show.py" it\\\'s\n',
    "export MASTER_PORT=77\ncd \"$(dirname \"$(readlink -f \"$0\")\")\"\npython3 show.py",
    'D=`dirname "$0"`\ncd "$D"\npython3 show.py \\$0\n',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_same_from_anywhere(body: str, tmp_path: Path) -> None:
    words = job(tmp_path, body)
    direct = subprocess.run(
        words, cwd=tmp_path, env=HERE, capture_output=True, text=True, check=True
    ).stdout
    launch = read_launch(words, HERE, tmp_path)
    assert launch.text == body
    assert run(launch.shell(tmp_path / "out"), tmp_path / "out", HERE) == direct
    again = read_launch(["bash", str(tmp_path / "out" / "launch.sh")], HERE, Path("/"))
    assert again.main is not None and launch.main is not None
    assert again.main.script_path is not None and launch.main.script_path is not None
    assert again.main.script_path.resolve() == launch.main.script_path.resolve()
    assert launch.main.script_path.is_file()


@pytest.mark.parametrize("outer", [["X=a b"], ["env", "-u", "GONE", "X=1"], ["nohup"], ["time"]])
def test_what_stands_before_the_script_is_kept(outer: list[str], tmp_path: Path) -> None:
    words = [*outer, *job(tmp_path, 'cd "$(dirname "$0")"\npython3 show.py $1\n')]
    env = HERE | {"GONE": "still here"}
    launch = read_launch(words, env, tmp_path)
    printed = run(launch.shell(tmp_path / "out"), tmp_path / "out", env)
    assert printed.startswith(str(tmp_path / "sub dir"))
    assert "['one']" in printed
    if outer == ["X=a b"]:
        assert "a b None" in printed
    if "GONE" in outer:
        assert printed.rstrip().endswith("1 None None")


def test_a_corrected_copy_runs_in_place_of_the_script(tmp_path: Path) -> None:
    words = job(tmp_path, 'cd "$(dirname "$0")"\npython3 "show.py" x &\nwait\n')
    (tmp_path / "sub dir" / "beside.py").write_text("NAME = 'beside'\n")
    copy = tmp_path / "out dir" / "files" / "show.py"
    copy.parent.mkdir(parents=True)
    copy.write_text("import beside\nprint('copy', beside.NAME)\n")
    launch = read_launch(words, HERE, tmp_path)
    text = launch.shell(tmp_path / "out dir", {tmp_path / "sub dir" / "show.py": copy})
    assert run(text, tmp_path / "out dir", HERE) == "copy beside\n"


def test_a_copy_with_blanks_is_not_squeezed_between_quotes(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("")
    launch = read_launch("su me -c 'python3 t.py'", HERE, tmp_path)
    assert launch.shell(None, {tmp_path / "t.py": Path("/srv/t.py")}).endswith(
        "'python3 /srv/t.py'\n"
    )
    with pytest.raises(LaunchError):
        launch.shell(None, {tmp_path / "t.py": Path("/srv/a b/t.py")})


def test_directives_of_slurm_stay_on_top(tmp_path: Path) -> None:
    body = "#!/bin/bash\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=4\n\nsrun python t.py\n"
    (tmp_path / "job.sbatch").write_text(body)
    launch = read_launch(["sbatch", "job.sbatch"], HERE, tmp_path)
    lines = launch.shell().splitlines()
    assert lines[:3] == body.splitlines()[:3]
    assert lines[3].startswith("cd ")
    assert launch.main is not None
    assert launch.main.env["SLURM_NTASKS"] == "8" and launch.main.env["SLURM_NNODES"] == "2"


BLOCKS = """#!/bin/bash -l
#SBATCH --nodes=2

# the cards
#SBATCH --gres=gpu:4

module load cuda
srun python t.py
"""


@pytest.mark.parametrize(
    ("options", "nodes"),
    [
        ("", "2"),
        ("-N 4", "4"),
        ("--nodes 4 --partition gpu", "4"),
        ("--parsable --nodes=3 -W", "3"),
        ("-N3 --dependency afterok:7 --test-only", "3"),
    ],
)
def test_what_sbatch_is_told_is_kept(options: str, nodes: str, tmp_path: Path) -> None:
    (tmp_path / "job.sbatch").write_text(BLOCKS)
    launch = read_launch(f"sbatch {options} job.sbatch 7", HERE, tmp_path)
    assert launch.arguments == ("7",)
    assert launch.main is not None and launch.main.env["SLURM_NNODES"] == nodes
    lines = launch.shell(tmp_path / "out").splitlines()
    assert lines[:5] == BLOCKS.splitlines()[:5], "directives behind a command are not read"
    told = " ".join(f"sbatch {options}".split())
    assert lines[5] == f"# {told} {tmp_path / 'out' / 'launch.sh'}"


def test_two_corrections_of_one_word_are_refused(tmp_path: Path) -> None:
    launch = read_launch("torchrun t.py", HERE, tmp_path)
    assert rewritten(launch, [Edit((0, 8), "a"), Edit((9, 13), "b.py")]).text == "a b.py"
    with pytest.raises(LaunchError):
        rewritten(launch, [Edit((0, 8), "a"), Edit((4, 13), "b")])
    with pytest.raises(LaunchError):
        rewritten(launch, [Edit((-1, -1), "a")])


def test_another_file_is_followed_but_not_edited(tmp_path: Path) -> None:
    (tmp_path / "env.sh").write_text("export MASTER_PORT=29533\n")
    (tmp_path / "inner.sh").write_text("MASTER_ADDR=h0 python t.py $1\n")
    launch = read_launch("source env.sh; bash inner.sh 7", HERE, tmp_path)
    plan = launch.main
    assert plan is not None and not plan.editable
    assert (plan.master_port, plan.master_addr, plan.script_args) == ("29533", "h0", ("7",))


def test_reading_is_quick(tmp_path: Path) -> None:
    """A guard against a quadratic reader, not a measurement: thousands of lines in some seconds."""
    body = "".join(f'export A{i}="$A{i - 1} x" # {i}\n' if i % 50 == 0 else f"A{i}={i}\n"
                   for i in range(8000))  # fmt: skip
    (tmp_path / "big.sh").write_text(body + "torchrun --nproc-per-node=$A7 t.py\n")
    start = time.process_time()
    launch = read_launch(["bash", "big.sh"], HERE, tmp_path)
    assert launch.main is not None and launch.main.nproc == 7
    assert time.process_time() - start < 20
