"""Reports: no secret in any, foreign text only where it can do nothing, files kept whole."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
from markdown_it import MarkdownIt

from ddp_assist.app.files import ReadFailed, WriteFailed, read_limited, write_private
from ddp_assist.app.report import Redactor, ReportBlocked, render, write_report
from ddp_assist.app.report.crash import write_crash

CANARIES = {
    f"{name}": f"canary{n}Zq9xKw" for n, name in enumerate(("DB_PASSWORD", "MY_TOKEN", "X_API_KEY"))
}
HOSTILE = "```\n# heading\n<script>alert(1)</script> ![x](http://evil.example/b.png) @everyone\n````\n\x1b]52;c;eA==\x07"  # noqa: E501
ROOT = Path(__file__).parents[2]
FORMS = ("md", "html", "json", "txt")


def redactor() -> Redactor:
    return Redactor(CANARIES, "canaryhost.lab.example", "canaryuser", "/home/canaryuser")


def diagnosis(said: str) -> dict[str, Any]:
    evidence = {"source": said, "lines": [said, said], "see": ["cat", said], "when": 1.0}
    finding = {
        "probe": "port",
        "outcome": "held",
        "sentence": said,
        "data": {"x": said},
        "evidence": [evidence],
        "seconds": 0.1,
    }
    return {
        "schema": "ddp-assist/diagnosis/1", "symptom": None, "seconds": 1.0,
        "causes": [{"id": "a", "title": said, "certainty": "likely", "for": [said], "against": [said],  # noqa: E501
                    "would_decide": [said]}],
        "noise": [{"id": "n", "line": said}],
        "fixes": [{"cause": "a", "title": said, "safety": "edit", "launch": said, "badge": "ran", "why": said,  # noqa: E501
                   "files": [{"path": said, "diff": said}], "steps": [said], "does_not": said}],
        "findings": [finding], "unanswered": [{"probe": "p", "why": said}], "path": [said],
        "trial": {"backend": "gloo", "nproc": 2, "outcome": said,
                  "stages": [{"stage": said, "rank": 0, "seconds": 0.5, "error": said}]},
        "environment": {"NCCL_DEBUG": said, "PATH": "/unlisted/path"},
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_no_canary_in_any_form(form: Any) -> None:
    words = [*CANARIES.values(), "canaryuser", "canaryhost"]
    forms = [
        f for c in CANARIES.values() for f in (c, quote(c), base64.b64encode(c.encode()).decode())
    ]
    said = " ".join(
        [*forms, "/home/canaryuser/x canaryhost.lab.example CANARYHOST", "--password pw12canary34"]
    )
    text = render(diagnosis(said), form, redactor())
    assert all(word.lower() not in text.lower() for word in [*words, *forms, "pw12canary34"])


@pytest.mark.parametrize("form", FORMS)
def test_the_same_case_gives_the_same_bytes_and_no_control(form: Any) -> None:
    text = render(diagnosis(HOSTILE), form, redactor())
    assert text == render(diagnosis(HOSTILE), form, redactor())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


def test_markdown_holds_foreign_text_in_code_only() -> None:
    text = render(diagnosis(HOSTILE), "md", redactor())
    tokens = MarkdownIt().parse(text)
    outside = "".join(t.content for t in tokens if t.type == "inline")
    assert "script" not in outside and "evil" not in outside and "everyone" not in outside
    assert any("<script>" in t.content for t in tokens if t.type == "fence")
    assert not [t for t in tokens if t.type == "html_block"]


def test_html_has_the_tags_of_the_template_and_fetches_nothing() -> None:
    tags = re.compile(r"</?([a-zA-Z!][a-zA-Z0-9]*)")
    hostile = render(diagnosis(HOSTILE), "html", redactor())
    assert set(tags.findall(hostile)) == set(
        tags.findall(render(diagnosis("word"), "html", redactor()))
    )
    assert "default-src 'none'" in hostile and "script>" not in hostile.replace("script&gt;", "")
    assert not re.search(r"(?:src|href)=", hostile)


def test_an_environment_shows_what_is_allowed_and_counts_the_rest() -> None:
    shown = json.loads(render(diagnosis("x"), "json", redactor()))["environment"]
    assert shown == {"NCCL_DEBUG": "x", "more variables, not shown": "1"}


def test_a_report_that_still_holds_a_secret_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Redactor, "json", lambda self, value: value)
    with pytest.raises(ReportBlocked, match="environment, line"):
        write_report(diagnosis(CANARIES["MY_TOKEN"]), "md", tmp_path / "r.md", redactor())
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_private_and_never_goes_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    link = tmp_path / "report.md"
    link.symlink_to(other)
    before = os.umask(0)
    try:
        write_private(link, "ours")
    finally:
        os.umask(before)
    assert other.read_text() == "theirs" and not link.is_symlink()
    assert stat.S_IMODE(link.stat().st_mode) == 0o600


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteFailed, match="No space left"):
        write_private(tmp_path / "r.md", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_crash_file_holds_no_local_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("SOME_TOKEN", "canaryCrash77x")
    local = "only-in-a-local-" + "variable"
    try:
        raise RuntimeError(f"could not use canaryCrash77x {len(local)}")
    except RuntimeError as fault:
        path = write_crash(fault, ["ddp-assist", "--token", "another99secret"])
    text = path.read_text()
    assert "canaryCrash77x" not in text and "another99secret" not in text and local not in text
    assert "RuntimeError" in text and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_a_regular_file_of_a_fair_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"text")
    os.mkfifo(tmp_path / "pipe")
    assert read_limited(tmp_path / "small") == b"text"
    for path, limit in (
        (tmp_path / "pipe", 9),
        (tmp_path / "small", 3),
        (tmp_path, 9),
        (tmp_path / "no", 9),
    ):  # noqa: E501
        with pytest.raises(ReadFailed):
            read_limited(path, limit)


def test_the_reported_diagnosis_is_of_the_published_shape() -> None:
    schema = json.loads((ROOT / "assets/schema/diagnosis.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(render(diagnosis("x"), "json", redactor())))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**diagnosis("x"), "causes": [{"id": "a"}]})
