"""The pictures in the documentation are what the screens show."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_each_picture_is_what_its_screen_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEXTUAL_THEME", "TEXTUAL_ANIMATIONS", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, "")  # what the module sets goes with the test
    spec = importlib.util.spec_from_file_location("screenshots", DOCS / "screenshots.py")
    assert spec is not None and spec.loader is not None
    screenshots = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "screenshots", screenshots)
    spec.loader.exec_module(screenshots)
    drawn = screenshots.pictures(sizes=[(80, 24)])
    stale = [name for name, text in drawn.items() if (DOCS / "screens" / name).read_text() != text]
    assert not stale, f"make screenshots draws them again: {stale}"


def test_each_picture_is_shown_somewhere() -> None:
    text = (DOCS / "screens.md").read_text("utf-8")
    for picture in (DOCS / "screens").glob("*.svg"):
        assert f"screens/{picture.name}" in text, picture.name
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    assert "docs/screens/" in readme
