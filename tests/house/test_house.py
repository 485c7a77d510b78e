"""The house itself: what is installed, what loads what, and that the knowledge is whole."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ddp_assist.app.tree import load
from ddp_assist.app.whole import problems
from ddp_assist.probes.catalogue import probes
from ddp_assist.probes.logs import signatures

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("app", "screens", "probes", "assets")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def modules(code: str) -> set[str]:
    """What a fresh interpreter has loaded after this."""
    said = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print('\\n' + ' '.join(sys.modules))"],
        capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONPATH": str(ROOT / "tests/typing"), "PATH": "/usr/bin:/bin", "HOME": "/none"},
    )  # fmt: skip
    return {name.split(".")[0] for name in said.stdout.splitlines()[-1].split()}


def test_every_folder_with_code_is_a_listed_package() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    there = {"ddp_assist"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            if init.parent.name != "_root":
                there.add("ddp_assist." + ".".join(init.parent.relative_to(ROOT).parts))
        for module in (ROOT / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module.parent} has no __init__.py"
    assert there == listed


def test_the_wheel_holds_the_package_with_its_assets_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source / name)], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "ddp_assist", f"ddp_assist-{wheel.name.split('-')[1]}.dist-info",
    }  # fmt: skip
    data = [p for p in (ROOT / "assets").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    styles = list((ROOT / "screens").rglob("*.tcss"))
    for path in [*data, *styles]:
        assert f"ddp_assist/{path.relative_to(ROOT)}" in names, path
    assert "ddp_assist/py.typed" in names


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import ddp_assist.app.cli", {"textual", "rich", "torch", "psutil", "pynvml", "argparse"}),
        ("from ddp_assist.app.verbs import explain", {"textual", "torch", "psutil", "re2"}),
        ("from ddp_assist.app.verbs import diagnose", {"textual", "rich", "torch", "pynvml"}),
        (
            "from ddp_assist.probes.catalogue import probes; probes()",
            {"textual", "rich", "torch", "pynvml"},
        ),
        ("import ddp_assist.app.tui", {"torch", "pynvml"}),
    ],
)
def test_nobody_pays_for_what_he_does_not_use(code: str, without: set[str]) -> None:
    assert modules(code) & without == set()


def test_the_knowledge_is_whole() -> None:
    assert problems(load(), probes()) == []
    assert signatures.problems() == []


def test_every_page_says_what_it_must() -> None:
    headings = ("What you see", "Why it happens", "How to confirm", "How to fix",
                "How to avoid it", "References")  # fmt: skip
    for cause in load().pages.values():
        missing = [heading for heading in headings if not cause.section(heading)]
        assert not missing, f"{cause.id} lacks {missing}"


def test_every_cause_has_a_recorded_case_and_a_near_miss() -> None:
    expected: set[str] = set()
    refused: set[str] = set()
    for path in (ROOT / "tests/cases").rglob("*.toml"):
        case = tomllib.loads(path.read_text("utf-8"))
        expected.update(case["expect"])
        refused.update(case.get("never", ()))
        if path.parent.name not in case["expect"]:
            refused.add(path.parent.name)
    pages = set(load().pages) - {"benign"}
    assert pages - expected == set()
    assert pages - refused == set()


def test_fixes_that_pages_name_are_there() -> None:
    from ddp_assist.app.fixes.catalogue import builders

    known = set(builders())
    named = {fix for page in load().pages.values() for fix in page.fixes}
    assert named - known == set()


PAGES = ("README.md", "CONTRIBUTING.md", "docs/screens.md", "docs/proof.md")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
