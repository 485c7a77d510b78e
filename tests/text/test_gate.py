"""Whatever comes in, nothing that a terminal obeys goes out, and what was said stays readable."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp_assist.probes.text import clean, printable, suspicious

_spec = importlib.util.spec_from_file_location("hostile", Path(__file__).parent / "hostile.py")
assert _spec is not None and _spec.loader is not None
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.mark.parametrize("name", hostile.harmful())
def test_what_is_left_of_harmful_text(name: str) -> None:
    text, left = hostile.harmful()[name]
    assert clean(text) == left


@given(st.text(st.characters(codec=None), max_size=300) | st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_text_is_harmless_afterwards_and_stays_so(text: str | bytes) -> None:
    shown = clean(text)
    assert not OBEYED.search(shown)
    assert clean(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize("seed", range(20))
def test_noise_full_of_introducers(seed: int) -> None:
    shown = clean(hostile.noise(seed, 3000))
    assert not OBEYED.search(shown) and clean(shown) == shown


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_ordinary_text_is_untouched(text: str) -> None:
    assert clean(text) == text


def test_a_character_that_is_not_seen_is_named_with_its_place() -> None:
    found = suspicious("RANK\u200b=\u202e1")
    assert [(s.place, s.name) for s in found] == [
        (4, "ZERO WIDTH SPACE"),
        (6, "RIGHT-TO-LEFT OVERRIDE"),
    ]
    assert printable("RANK=1") and not printable("RANK\u200b=1") and not printable("a\nb")
