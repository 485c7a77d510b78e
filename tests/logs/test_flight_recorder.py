from __future__ import annotations

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_hostile import pickles  # type: ignore[import-not-found]

from ddp_assist.probes.logs import flight_recorder, plain_pickle
from ddp_assist.probes.model import Finding, Target


def dump(
    *calls: tuple[str, list[list[int]], str], ranks: str = "[0, 1, 2, 3]", pg: str = ""
) -> dict[str, Any]:
    entries = [
        {"collective_seq_id": n, "profiling_name": f"gloo:{op}", "input_sizes": sizes,
         "input_dtypes": [dtype], "state": "scheduled", "process_group": ("0", "default_pg"),
         "is_p2p": False, "frames": [{"name": "f", "filename": "/job/fit.py", "line": 7}]}
        for n, (op, sizes, dtype) in enumerate(calls, 1)
    ]  # fmt: skip
    config = {pg: {"name": pg, "desc": "", "ranks": ranks}}
    return {"version": "2.10", "pg_config": config, "pg_status": {}, "entries": entries}


SUM = ("all_reduce", [[4]], "Float")


def examined(folder: Path, dumps: dict[int, dict[str, Any]], text: bool = False) -> list[Finding]:
    for rank, value in dumps.items():
        path = folder / f"trace_{rank}"
        path.write_bytes(json.dumps(value).encode() if text else pickle.dumps(value, 2))
    return list(flight_recorder.look(Target(logs=(str(folder),))))


@pytest.mark.parametrize("text", [False, True])
def test_the_rank_that_stopped_is_named(tmp_path: Path, text: bool) -> None:
    found = examined(tmp_path, {r: dump(*[SUM] * (1 if r == 2 else 3)) for r in range(4)}, text)
    assert [(f.outcome, f.data["rank"], f.data["sequence"]) for f in found] == [
        ("rank-behind", 2, 2)
    ]
    assert found[0].data["place"] == "/job/fit.py:7"


@pytest.mark.parametrize(
    ("odd", "outcome"),
    [(("barrier", [], ""), "op-differs"), (("all_reduce", [[5]], "Float"), "shape-differs"),
     (("all_reduce", [[4]], "Double"), "dtype-differs")],
)  # fmt: skip
def test_the_few_differ_from_the_many_whichever_file_comes_first(
    tmp_path: Path, odd: tuple[str, list[list[int]], str], outcome: str
) -> None:
    dumps = {r: dump(SUM, odd if r == 0 else SUM) for r in range(4)}
    found = examined(tmp_path, dumps)
    assert [(f.outcome, f.data["rank"]) for f in found] == [(outcome, 0)]


def test_two_against_two_blames_nobody(tmp_path: Path) -> None:
    dumps = {r: dump(SUM if r < 2 else ("barrier", [], "")) for r in range(4)}
    (finding,) = examined(tmp_path, dumps)
    assert finding.outcome == "op-differs" and "rank" not in finding.data


def test_a_missing_file_is_told_and_the_rest_compared(tmp_path: Path) -> None:
    dumps = {r: dump(*[SUM] * (2 if r else 1)) for r in (0, 1, 3)}
    assert [(f.outcome, f.data["rank"]) for f in examined(tmp_path, dumps)] == [
        ("rank-behind", 0), ("missing-dump", 2)]  # fmt: skip


def test_equal_dumps_are_healthy(tmp_path: Path) -> None:
    assert [f.outcome for f in examined(tmp_path, {r: dump(SUM) for r in range(4)})] == ["healthy"]


@pytest.mark.parametrize("name", sorted(pickles()))
def test_nothing_is_ever_unpickled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(plain_pickle.Refused):
        plain_pickle.plain(pickles()[name])
    path = tmp_path / "trace_0"
    path.write_bytes(pickles()[name])
    assert [f.outcome for f in flight_recorder.look(Target(logs=(str(path),)))] == ["refused"]
    assert not (tmp_path / "DDP_ASSIST_EXECUTED").exists()


NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.integers(2, 5))
def test_plain_data_is_read_as_pickle_would(value: Any, protocol: int) -> None:
    assert plain_pickle.plain(pickle.dumps(value, protocol)) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(plain_pickle.Refused):
        plain_pickle.plain(b"\x80\x02" + data)


@settings(max_examples=150, deadline=None)
@given(PLAIN)
def test_any_shape_of_a_dump_is_judged_without_an_exception(value: Any) -> None:
    entries = [value, {"collective_seq_id": 1, "frames": value, "process_group": value}]
    whole = {"entries": entries, "pg_config": value, "pg_status": value}
    one = flight_recorder.dump_of(whole, "x", 0)
    list(flight_recorder.compared([one, one]))
