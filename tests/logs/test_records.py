"""What collectors of logs, documents and lost line ends make of a failure changes no answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scoring import right, told

from ddp_assist.probes.logs import records
from ddp_assist.probes.logs.parted import parted
from ddp_assist.probes.logs.reading import scan_bytes

TESTS = Path(__file__).parents[1]
WORDINGS = [json.loads(line) for line in (TESTS / "wordings.jsonl").read_text().splitlines()]
SEVERAL_LINES = [case for case in WORDINGS if "\n" in case["text"]][::9]


def _each(text: str, form: Callable[[str], str]) -> str:
    return "\n".join(form(line) for line in text.split("\n"))


FORMS: dict[str, Callable[[str], str]] = {
    "one line": lambda text: " ".join(line.strip() for line in text.split("\n")),
    "JSON lines": lambda text: _each(
        text, lambda line: json.dumps({"timestamp": "2025-01-01T00:00:00Z", "message": line})
    ),
    "Docker": lambda text: _each(
        text, lambda line: json.dumps({"log": line + "\n", "stream": "stderr", "time": "2025"})
    ),
    "one record": lambda text: json.dumps({"severity": "ERROR", "textPayload": text}),
    "record of one line": lambda text: json.dumps({"msg": FORMS["one line"](text)}),
    "array": lambda text: json.dumps(
        [{"insertId": "a", "textPayload": line, "labels": {"pod": "w-0"}}
         for line in text.split("\n")], indent=2,
    ),
    "CloudWatch": lambda text: json.dumps(
        {"events": [{"timestamp": 1, "message": line} for line in text.split("\n")]}, indent=4
    ),
    "table": lambda text: "Date,Message\n" + _each(
        text, lambda line: '2025-01-01,"' + line.replace('"', '""') + '"'
    ),
    "YAML": lambda text: "message: |\n" + _each(text, lambda line: "  " + line),
    "containerd": lambda text: _each(text, lambda line: "2025-01-01T00:00:00.5Z stderr F " + line),
    "stamped": lambda text: _each(text, lambda line: "2025-01-01T00:00:00.000Z\t" + line),
    "compose": lambda text: _each(text, lambda line: "worker-1  | " + line),
    "mail": lambda text: _each(text, lambda line: "> " + line),
    "Markdown": lambda text: f"I get this:\n```\n{text}\n```",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_in_any_form_the_cause_is_found(form: str, tmp_path: Path) -> None:
    lost = []
    for case in SEVERAL_LINES:
        causes = [c.cause for c in told(FORMS[form](case["text"]), tmp_path).causes]
        if not right(case, causes)[0]:
            lost.append(case["id"])
    # An error that was pasted above its own code is no line of its own once line ends are lost.
    assert len(lost) <= (1 if "one line" in form else 0), lost


def lines_of(*blocks: bytes) -> list[str]:
    return b"".join(records.texts(blocks)).decode().splitlines()


def test_a_rank_of_a_record_labels_each_line_of_its_message() -> None:
    record = json.dumps({"rank": 3, "message": "one\ntwo\n"}).encode()
    assert lines_of(record) == ["[rank3]: one", "[rank3]: two"]


def test_what_is_no_record_stays_and_blocks_may_be_cut_anywhere() -> None:
    text = b'{"message": "a"}\nnot a record\n{"message": "b", "message": "c"}\n{"msg": "d"}\n'
    whole = lines_of(text)
    assert whole == ["a", "not a record", '{"message": "b", "message": "c"}', "d"]
    for at in range(20, len(text)):
        assert lines_of(text[:at], text[at:]) == whole


def test_a_table_that_breaks_off_says_so() -> None:
    broken = b'time,message\n1,"good"\n2,"' + b"x" * 200_000 + b'"\n'
    found = lines_of(broken)
    assert found[0] == "good"
    assert "can't be read further" in found[1]


@pytest.mark.parametrize(
    "text",
    [
        b"RuntimeError: a Traceback (most recent call last): is short",
        b"[rank0]: RuntimeError: the label of a rank stays with what the rank says, at any length",
        b"a line\nof many, srun: error: that has line ends of its own, and keeps them as they are",
        rb"the path C:\new\tables\notes.txt is no line end, however much it looks like them",
        b"x" * 70_000 + b" srun: error: a huge line",
    ],
)
def test_what_has_its_lines_keeps_them(text: bytes) -> None:
    assert parted(text).rstrip(b"\n").splitlines() in (text.splitlines(), [text])


def test_a_record_of_our_own_words_is_not_read_as_a_log_of_them() -> None:
    assert not records.begins(b'{"schema": "x", "entries": [{"line": 3, "op": "y"}]}')
    assert not records.begins(b"loss, message passing and more\nmore text\n")
    read: Any = scan_bytes("plain", b"Epoch 1, message, 3\n")
    assert not read.notes
