"""Which Python and which torch: with interpreters, packages and shadows made for the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddp_assist.probes.host.python import PYTHON_PROBE, interpreter, shebang
from ddp_assist.probes.host.shadow import shadows
from ddp_assist.probes.host.torch_build import TORCH
from ddp_assist.probes.model import Finding, Target

Ask = Callable[..., dict[str, Finding]]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def environment(folder: Path) -> Path:
    """Something that looks like a virtual environment and runs like this Python."""
    return program(folder / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')


@pytest.fixture
def torchless(tmp_path: Path) -> Path:
    """A Python without this one's packages."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True
    )
    return tmp_path / "bare" / "bin" / "python"


def test_plain_python_of_the_active_environment(ask: Ask, tmp_path: Path) -> None:
    environment(tmp_path / "env")
    env = {"PATH": f"{tmp_path}/env/bin", "VIRTUAL_ENV": str(tmp_path / "env")}
    assert set(ask(PYTHON_PROBE, env=env, launch=["python", "t.py"])) == {"python.fine"}


def test_torchrun_of_another_environment(ask: Ask, tmp_path: Path) -> None:
    environment(tmp_path / "env")
    other = environment(tmp_path / "old")
    program(tmp_path / "old/bin/torchrun", f"#!{other}\nimport torch\n")
    env = {"PATH": f"{tmp_path}/old/bin:{tmp_path}/env/bin", "VIRTUAL_ENV": str(tmp_path / "env")}
    found = ask(PYTHON_PROBE, env=env, launch=["torchrun", "t.py"])
    data = found["python.other-launcher"].data
    assert data["interpreter"] == str(other) and data["active"] == str(tmp_path / "env")
    program(tmp_path / "env/bin/torchrun", f"#!{tmp_path}/env/bin/python\n")
    env["PATH"] = f"{tmp_path}/env/bin:{tmp_path}/old/bin"
    assert set(ask(PYTHON_PROBE, env=env, launch=["torchrun", "t.py"])) == {"python.fine"}


def test_what_is_not_on_path(ask: Ask, tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path)}
    assert set(ask(PYTHON_PROBE, env=env, launch=["torchrun", "t.py"])) == {"python.not-found"}
    program(tmp_path / "torchrun", "#!/nowhere/bin/python3\n")
    told = ask(PYTHON_PROBE, env=env, launch=["torchrun", "t.py"])["python.not-found"]
    assert "/nowhere/bin/python3" in told.sentence


def test_a_wrapper_is_named(ask: Ask, tmp_path: Path) -> None:
    program(tmp_path / "torchrun", "#!/bin/bash\nexec pyenv exec torchrun\n")
    found = ask(PYTHON_PROBE, env={"PATH": str(tmp_path)}, launch=["torchrun", "t.py"])
    assert set(found) == {"python.wrapper"}


def test_a_torchrun_given_by_its_path_is_the_users_choice(ask: Ask, tmp_path: Path) -> None:
    other, near = environment(tmp_path / "old"), environment(tmp_path / "near")
    torchrun = program(tmp_path / "old/bin/torchrun", f"#!{other}\n")
    env = {"PATH": str(near.parent)}
    assert set(ask(PYTHON_PROBE, env=env, launch=[str(torchrun), "t.py"])) == {"python.two-pythons"}
    env["PATH"] = f"{near.parent}:{other.parent}"
    assert set(ask(PYTHON_PROBE, env=env, launch=["torchrun", "t.py"])) == {"python.other-launcher"}


@pytest.mark.parametrize(
    ("head", "python"),
    [
        ("#!/opt/env/bin/python3.11\n", "/opt/env/bin/python3.11"),
        ("#!/opt/env/bin/python -u\n", "/opt/env/bin/python"),
        ("#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n", "/a b/bin/python"),
        ("#!/usr/bin/env -S no-such-python\n", None),
        ("#!/bin/bash\n", None),
        ("\x7fELF", None),
        ("", None),
    ],
)
def test_shebangs(tmp_path: Path, head: str, python: str | None) -> None:
    path = program(tmp_path / "torchrun", head)
    assert shebang(str(path), {"PATH": "/nowhere"}, tmp_path) == python


def test_whose_torch_is_asked(tmp_path: Path) -> None:
    env = {"PATH": "/nowhere", "VIRTUAL_ENV": str(tmp_path / "env")}
    assert interpreter(Target(env=env)) == sys.executable
    python = environment(tmp_path / "env")
    assert interpreter(Target(env=env)) == str(python)
    assert interpreter(Target(env=env, python="/my/python")) == "/my/python"
    code = "print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1)
    try:
        assert process.stdout and process.stdout.readline()
        assert interpreter(Target(env=env, job=process.pid)) == sys.executable
    finally:
        process.communicate()


def fake_torch(
    folder: Path, version: str = "2.9.1", cuda: str | None = "12.8", code: str = ""
) -> Path:
    """A package that looks like torch, as far as it is looked at."""
    torch = folder / "torch"
    (torch / "distributed").mkdir(parents=True)
    (torch / "__init__.py").write_text(f"__version__ = '{version}'\n{code}\n")
    (torch / "distributed" / "__init__.py").write_text("def is_available(): return True\n")
    said = f"__version__ = '{version}'\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
    (torch / "version.py").write_text(said)
    info = folder / f"torch-{version}.dist-info"
    info.mkdir()
    wants = (
        "Requires-Dist: nvidia-nccl-cu12 ==2.27.5 ; platform_system == 'Linux'\n" if cuda else ""
    )
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n{wants}"
    )
    return folder


def fake_nccl(folder: Path, name: str = "nvidia_nccl_cu12", version: str = "2.27.5") -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    shown = name.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {shown}\nVersion: {version}\n")


def at(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), **more}


def bad(found: dict[str, Finding]) -> set[str]:
    return {key for key, finding in found.items() if TORCH.weight(finding.outcome) == "bad"}


def test_no_torch(ask: Ask, torchless: Path) -> None:
    assert set(ask(TORCH, python=str(torchless))) == {"torch.missing"}
    env = {"PATH": "/nowhere", "VIRTUAL_ENV": str(torchless.parent.parent)}
    assert set(ask(TORCH, env=env)) == {"torch.absent"}


def test_a_python_that_is_none(ask: Ask) -> None:
    for python in ("/nowhere/python", "/bin/false", "/bin/cat"):
        assert set(ask(TORCH, python=python)) == {"torch.unknown"}


def test_builds(ask: Ask, torchless: Path, tmp_path: Path) -> None:
    python = str(torchless)
    cuda = fake_torch(tmp_path / "cuda")
    fake_nccl(cuda)
    found = ask(TORCH, python=python, env=at(cuda), backend="nccl")
    assert set(found) == {"torch.fine"} and found["torch.fine"].data["cuda"] == "12.8"
    cpu = fake_torch(tmp_path / "cpu", "2.9.1+cpu", None)
    assert set(ask(TORCH, python=python, env=at(cpu), backend="nccl")) == {"torch.no-nccl"}
    found = ask(TORCH, python=python, env=at(cpu), backend="gloo")
    assert set(found) == {"torch.fine", "torch.without-nccl"}
    old = fake_torch(tmp_path / "old", "1.9.0", "10.2")
    assert "torch.too-old" in ask(TORCH, python=python, env=at(old))


def test_two_nccl(ask: Ask, torchless: Path, tmp_path: Path) -> None:
    python = str(torchless)
    mixed = fake_torch(tmp_path / "mixed")
    fake_nccl(mixed, version="2.21.5")
    found = ask(TORCH, python=python, env=at(mixed))
    assert "2.21.5" in found["torch.two-nccl"].sentence
    good = fake_torch(tmp_path / "good")
    fake_nccl(good)
    fake_nccl(good, "nvidia_nccl_cu11", "2.19.3")
    assert set(ask(TORCH, python=python, env=at(good))) == {"torch.nccl-packages"}
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libnccl.so.2").touch()
    found = ask(TORCH, python=python, env=at(good, LD_LIBRARY_PATH=f"/lib:{tmp_path}/lib"))
    assert found["torch.two-nccl"].data["loaded"] == [f"{tmp_path}/lib/libnccl.so.2"]


@pytest.mark.parametrize(
    ("code", "outcome", "says"),
    [
        (
            "try:\n    import no_such_library\n"
            "except ImportError as e:\n    raise RuntimeError('late') from e",
            "broken-import",
            "no_such_library",
        ),
        ("import os; os.abort()", "broken-import", "SIGABRT"),
        ("raise SystemExit(3)", "broken-import", "SystemExit"),
        ("import sys; print('noise'); sys.stdout.flush()", "fine", "2.9.1"),
    ],
)
def test_imports(
    ask: Ask, torchless: Path, tmp_path: Path, code: str, outcome: str, says: str
) -> None:
    lib = fake_torch(tmp_path / "lib", code=code)
    fake_nccl(lib)
    script = tmp_path / "own" / "train.py"
    found = ask(TORCH, python=str(torchless), env=at(lib), script=script)
    assert says in found[f"torch.{outcome}"].sentence


def test_a_build_without_distributed(ask: Ask, torchless: Path, tmp_path: Path) -> None:
    lib = fake_torch(tmp_path / "lib")
    (lib / "torch/distributed/__init__.py").write_text("def is_available(): return False\n")
    found = ask(TORCH, python=str(torchless), env=at(lib), script=tmp_path / "own" / "t.py")
    assert bad(found) == {"torch.no-distributed"}


def test_the_real_torch(ask: Ask, tmp_path: Path) -> None:
    pytest.importorskip("importlib.metadata").version("torch")
    found = ask(TORCH, python=sys.executable, script=tmp_path / "train.py", backend="gloo")
    fine = found["torch.fine"].data
    assert fine["distributed"] is True and fine["gloo"] is True


def test_files_that_shadow(ask: Ask, torchless: Path, tmp_path: Path) -> None:
    lib = fake_torch(tmp_path / "lib")
    fake_nccl(lib)
    own = tmp_path / "own"
    own.mkdir()
    (own / "train.py").touch()
    for name in ("queue.py", "profile.py", "model.py", "os.py"):
        (own / name).write_text("raise SystemExit('a user file was run')")
    launch = ["python", str(own / "train.py")]
    found = ask(TORCH, python=str(torchless), env=at(lib), launch=launch)
    assert found["torch.shadowed-module"].data["module"] == "queue"
    assert found["torch.shadowed-other"].data["module"] == "profile"
    assert set(found) == {"torch.shadowed-module", "torch.shadowed-other"}
    safe = ask(TORCH, python=str(torchless), env=at(lib, PYTHONSAFEPATH="1"), launch=launch)
    assert set(safe) == {"torch.fine"}


def test_packages_shadow_too_but_installed_ones_do_not(tmp_path: Path) -> None:
    for name in ("torch/__init__.py", "data/__init__.py", "logging/readme.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert [name for name, _, _ in shadows(tmp_path)] == ["torch"]
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "numpy.py").touch()
    (site / "queue.py").touch()
    assert [name for name, _, _ in shadows(site)] == ["queue"]
    target = tmp_path / "target"
    (target / "pyyaml-6.0.dist-info").mkdir(parents=True)
    (target / "yaml").mkdir()
    for name in ("typing_extensions.py", "yaml/__init__.py", "queue.py"):
        (target / name).touch()
    assert [name for name, _, _ in shadows(target)] == ["queue"]
    assert list(shadows(tmp_path / "none")) == []
