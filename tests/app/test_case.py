"""A case on disk: appended, private, cut by a crash, replayed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from ddp_assist.app.case import Case, CaseUnreadable, find, load, saved_cases
from ddp_assist.probes.model import Evidence, Finding

FINDING = Finding("port", "free", "free", {"port": 1}, (Evidence("x", ("l",), ("ss",), 1.0),), 0.5)


def kept() -> Case:
    case = Case()
    case.add("question", launch=["torchrun"])
    case.keep()
    case.add("asked", probe="port")
    case.add_finding(FINDING)
    return case


def test_what_is_added_is_on_disk_at_once() -> None:
    case = kept()
    assert case.saved is not None
    again = load(case.saved)
    assert again.events == json.loads(json.dumps(case.events))
    assert again.findings == [FINDING]


def test_only_the_user_may_read_it() -> None:
    case = kept()
    assert case.saved is not None
    assert stat.S_IMODE(case.saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(case.saved.parent.stat().st_mode) == 0o700


def test_a_line_cut_by_a_crash_loses_only_itself() -> None:
    case = kept()
    assert case.saved is not None
    with case.saved.open("a") as end:
        end.write('{"at": 1, "kind": "fin')
    assert load(case.saved).findings == [FINDING]


def test_a_probe_that_looks_again_replaces_its_answer() -> None:
    case = kept()
    case.add("asked", probe="port")
    case.add_finding(Finding("port", "unknown", "later"))
    assert [f.outcome for f in case.findings] == ["unknown"]


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "not json\n", '{"schema": "other/1"}\n'])
def test_what_is_no_case_is_said_in_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(CaseUnreadable, match=r"x\.jsonl"):
        load(path)


def test_the_newest_case_is_found_first() -> None:
    first = Case(id="20260101-000000-aaaa")
    second = Case(id="20260102-000000-bbbb")
    first.keep()
    second.keep()
    assert [p.stem for p in saved_cases()] == [second.id, first.id]
    assert find(None).stem == second.id
    with pytest.raises(CaseUnreadable):
        find("nothing")


def test_a_state_folder_that_can_not_be_made_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocker))
    case = Case()
    case.keep()
    case.add("question", launch=[])
    assert case.saved is None
    assert "not saved" in case.trouble
    assert json.dumps(case.events)
