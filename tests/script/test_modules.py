"""Modules that the script imports and the Python of the launch lacks: named, and never guessed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from ddp_assist.probes.launch.read import read_launch
from ddp_assist.probes.model import Finding, Target
from ddp_assist.probes.script.check import look

TORCH = sysconfig.get_path("purelib")
TRAIN = """import os, socket, sys
from typing import TYPE_CHECKING
{body}
import torch.distributed as dist


def main():
    dist.init_process_group("gloo")


if __name__ == "__main__":
    main()
"""
GONE = "import tokenizerz"
OWN = socket.gethostname()


def said(
    folder: Path, code: str, *launch: str, env: Mapping[str, str] | None = None, logs: str = ""
) -> list[Finding]:
    (folder / "train.py").write_text(code if "dist" in code else TRAIN.format(body=code))
    seen = {"PATH": os.environ["PATH"], **(env or {})}
    words = list(launch) or [sys.executable, "train.py"]
    read = read_launch(words, seen, folder)
    target = Target(launch=read, plan=read.main, env=seen, cwd=folder, logs=(logs,) if logs else ())
    return [f for f in look(target) if "module-" in f.outcome or f.outcome == "unknown"]


def lacked(found: list[Finding]) -> list[tuple[str, int]]:
    return [(f.data["module"], f.data["line"]) for f in found]


@pytest.mark.parametrize(
    "body",
    [
        GONE,
        "from tokenizerz.fast import Tokenizer",
        "import os.path, tokenizerz as t",
        "try:\n    import tokenizerz\nexcept KeyError:\n    pass",
        "try:\n    import tokenizerz\nexcept ImportError:\n    raise ImportError('install it')",
        "try:\n    import tokenizerz\nexcept ImportError:\n    sys.exit('install it')",
        f"if socket.gethostname() == {OWN!r}:\n    import tokenizerz",
        f"if socket.gethostname() != 'not-{OWN}':\n    import tokenizerz",
        "import importlib\nprint(importlib.metadata)\nimport tokenizerz",
        "sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib'))\nimport tokenizerz",
        "def load():\n    import tokenizerz\nload()",
    ],
)
def test_a_module_that_is_not_there_is_named(body: str, tmp_path: Path) -> None:
    (finding,) = said(tmp_path, body)
    assert finding.outcome == "module-missing" and finding.data["module"] == "tokenizerz"
    assert (
        "tokenizerz" in (tmp_path / "train.py").read_text().splitlines()[finding.data["line"] - 1]
    )
    assert sys.executable in finding.sentence


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    import tokenizerz\nexcept ImportError:\n    tokenizerz = None",
        "try:\n    import tokenizerz\nexcept (AttributeError, ModuleNotFoundError):\n    pass",
        "import errors\ntry:\n    import tokenizerz\nexcept errors.Any:\n    pass",
        "try:\n    import tokenizerz\nexcept ImportError:\n    import json as tokenizerz",
        "try:\n    import json\nexcept ImportError:\n    import tokenizerz",
        "T = False\ntry:\n    import tokenizerz\n    T = True\nexcept ImportError:\n    pass\n"
        "if T:\n    import more_tokenizerz",
        "T = None\ntry:\n    import tokenizerz\n    T = True\nexcept ImportError:\n    T = False\n"
        "if T:\n    import more_tokenizerz",
        "class C:\n    fast = False\nc = C()\ntry:\n    import tokenizerz\n    c.fast = True\n"
        "except ImportError:\n    pass\nif c.fast:\n    import tokenizerz.more",
        "class C:\n    fast = False\nc = C()\nif os.path.exists('/some'):\n    import tokenizerz\n"
        "    c.fast = True\nif c.fast:\n    import tokenizerz.more",
        "import contextlib\nwith contextlib.suppress(ImportError):\n    import tokenizerz",
        "if TYPE_CHECKING:\n    import tokenizerz",
        "if sys.platform == 'win32':\n    import tokenizerz",
        "if sys.version_info < (3, 8):\n    import tokenizerz",
        "if os.path.exists('/some/where'):\n    import tokenizerz",
        "if os.environ.get('FAST'):\n    import tokenizerz",
        f"if socket.gethostname() == 'not-{OWN}':\n    import tokenizerz",
        "for name in sys.argv[5:]:\n    import tokenizerz",
        "def unused():\n    import tokenizerz",
        "import importlib\nif importlib.util.find_spec('tokenizerz'):\n    import tokenizerz",
        "sys.modules['tokenizerz'] = os\nimport tokenizerz",
        "sys.path.append(os.environ['WHERE'])\nimport tokenizerz",
        "sys.path[:0] = ['/some/where']\nimport tokenizerz",
        "import site\nsite.addsitedir('/some/where')\nimport tokenizerz",
        "os.system('pip install tokenizerz')\nimport tokenizerz",
        "import json, math, _socket, array, xml.dom.minidom",
        "import yaml, torch.utils.data, torch._C",
    ],
)
def test_what_the_script_can_do_without_is_not(body: str, tmp_path: Path) -> None:
    (tmp_path / "errors.py").write_text("Any = Exception\n")
    assert said(tmp_path, f"{body}\nimport yaml\n") == []


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizerz.py": ""},
        {"tokenizerz/__init__.py": ""},
        {"tokenizerz/part.py": ""},
        {f"tokenizerz{sysconfig.get_config_var('EXT_SUFFIX')}": ""},
    ],
    ids=["file", "package", "namespace", "extension"],
)
@pytest.mark.parametrize("place", ["", "lib"])
def test_what_lies_where_python_looks_is_there(
    files: dict[str, str], place: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    body = f"import yaml\n{GONE}"
    if place:
        by_script = (
            "sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lib'))"
        )
        assert said(tmp_path, body, env={"PYTHONPATH": "lib"}) == []
        assert said(tmp_path, f"{by_script}\n{body}") == []
        launch = ("env", "PYTHONPATH=lib", sys.executable, "train.py")
        assert said(tmp_path, body, *launch) == []
        assert lacked(said(tmp_path, body)) == [("tokenizerz", 4)]
    else:
        assert said(tmp_path, body) == []


def test_an_import_in_a_module_of_the_project_counts(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("import yaml\nimport tokenizerz\n")
    (finding,) = said(tmp_path, "import part")
    assert finding.sentence.startswith("part.py:2: the module tokenizerz is imported")
    assert said(tmp_path, "try:\n    import part\nexcept ImportError:\n    pass") == []


def test_after_the_meeting_is_another_story(tmp_path: Path) -> None:
    code = f"import torch.distributed as dist\ndist.init_process_group('gloo')\n{GONE}\n"
    assert said(tmp_path, code) == []


def test_a_module_of_the_working_directory_is_not_found_from_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text("")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "go.py").write_text(TRAIN.format(body="import models.net"))
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    (finding,) = said(tmp_path, "", torchrun, "scripts/go.py")
    assert finding.data["folder"] == str(tmp_path)
    ran = subprocess.run(
        [sys.executable, "scripts/go.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "No module named 'models'" in ran.stderr
    assert said(tmp_path, "", torchrun, "-m", "scripts.go") == []
    assert said(tmp_path, "", torchrun, "scripts/go.py", env={"PYTHONPATH": "."}) == []


def test_a_rank_s_own_import_is_named_where_that_rank_runs(tmp_path: Path) -> None:
    body = "if os.environ['RANK'] == '0':\n    import tokenizerz"
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    here = (torchrun, "--nproc-per-node=2", "train.py")
    assert lacked(said(tmp_path, body, *here)) == [("tokenizerz", 4)]
    two = (torchrun, "--nproc-per-node=2", "--nnodes=2", "--node-rank=1", "train.py")
    assert said(tmp_path, body, *two) == []
    assert lacked(said(tmp_path, GONE, *two)) == [("tokenizerz", 3)]


def test_what_only_another_host_imports_is_told_and_left_open(tmp_path: Path) -> None:
    body = "if socket.gethostname() == 'far':\n    import tokenizerz"
    script = tmp_path / "go.sh"
    script.write_text(
        f"RANK=0 {sys.executable} train.py &\nRANK=1 on far {sys.executable} train.py\n"
    )
    (finding,) = said(tmp_path, body, "bash", "go.sh")
    assert (
        finding.outcome == "unknown" and "train.py:4 imports tokenizerz on far" in finding.sentence
    )


@pytest.mark.parametrize(
    "line",
    [
        "pip install -r requirements.txt",
        "source /opt/env/bin/activate",
        "module load pytorch",
        "if true; then make -C ext; fi",
        "cd . && git clone there tokenizerz",
    ],
)
def test_a_launch_that_may_bring_it_is_believed(line: str, tmp_path: Path) -> None:
    (tmp_path / "go.sh").write_text(f"{line}\n{sys.executable} train.py\n")
    assert said(tmp_path, GONE, "bash", "go.sh") == []
    (tmp_path / "go.sh").write_text(f"cd . && echo source\n{sys.executable} train.py\n")
    assert lacked(said(tmp_path, GONE, "bash", "go.sh")) == [("tokenizerz", 3)]


@pytest.mark.parametrize(
    "words",
    [
        ("conda", "run", "-n", "other", "python", "train.py"),
        ("sudo", sys.executable, "train.py"),
        ("srun", "--container-image=torch.sqsh", "python", "train.py"),
        ("docker", "run", "image", "python", "train.py"),
    ],
)
def test_another_environment_is_not_judged_by_this_one(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert said(tmp_path, GONE, *words, env={"PATH": path}) == []
    assert lacked(said(tmp_path, GONE, "python", "train.py", env={"PATH": path}))


def test_an_environment_of_its_own_tells_for_itself(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    body = f"import yaml\n{GONE}"
    # It has no torch: that is said elsewhere, and what else it lacks is no news.
    assert said(tmp_path, body, python, "train.py") == []
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    (site / "torch.pth").write_text(f"{TORCH}\n")
    assert lacked(said(tmp_path, body, python, "train.py")) == [("tokenizerz", 4)]
    # As pip puts an editable install there: a path, or a finder of its own.
    (tmp_path / "src" / "tokenizerz").mkdir(parents=True)
    (tmp_path / "src" / "tokenizerz" / "__init__.py").write_text("")
    (site / "editable.pth").write_text(f"{tmp_path / 'src'}\n")
    assert said(tmp_path, body, python, "train.py") == []
    (site / "editable.pth").write_text("import own_finder; own_finder.install()\n")
    init = str(tmp_path / "src" / "tokenizerz" / "__init__.py")
    (site / "own_finder.py").write_text(
        "import sys, importlib.util as u\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'tokenizerz':\n"
        f"            return u.spec_from_file_location(name, {init!r})\n"
        "def install():\n"
        "    sys.meta_path.append(Finder())\n"
    )
    assert said(tmp_path, body, python, "train.py") == []


def test_the_launcher_s_python_lacks_what_the_shell_s_has(tmp_path: Path) -> None:
    """torchrun of one environment in front of the PATH of another, where the packages are."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    bin_ = tmp_path / "env" / "bin"
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    (site / "torch.pth").write_text(f"{TORCH}\n")
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    env = {"PATH": f"{bin_}:{os.environ['PATH']}"}
    (finding,) = said(tmp_path, GONE, torchrun, "train.py", env=env)
    assert finding.outcome == "module-missing"
    (site / "tokenizerz.py").write_text("")
    for more in ({}, {"VIRTUAL_ENV": str(bin_.parent), "PATH": os.environ["PATH"]}):
        found = said(tmp_path, GONE, torchrun, "train.py", env={**env, **more})
        assert [f.data["python_on_path"] for f in found] == [str(bin_ / "python")]
    (site / "torch.pth").unlink()
    (finding,) = said(tmp_path, GONE, torchrun, "train.py", env=env)
    assert finding.outcome == "module-missing"


def test_nothing_is_imported_to_see_that_it_is_there(tmp_path: Path) -> None:
    trace = tmp_path / "was-imported"
    (tmp_path / "tokenizerz.py").write_text(f"open({str(trace)!r}, 'w')\n")
    assert said(tmp_path, f"{GONE}\nimport nowhere_to_be_found")[0].data["line"] == 4
    assert not trace.exists()


def test_a_python_that_does_not_answer_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)\n")
    (finding,) = said(tmp_path, GONE, env={"PYTHONPATH": str(tmp_path)})
    assert finding.outcome == "unknown" and "exit code 7" in finding.sentence


def test_beside_a_log_it_is_only_a_hint(tmp_path: Path) -> None:
    (finding,) = said(tmp_path, GONE, logs=str(tmp_path / "a.log"))
    assert finding.outcome == "module-missing-maybe"
