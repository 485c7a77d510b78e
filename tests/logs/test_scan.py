from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ddp_assist.probes.logs.literals import required
from ddp_assist.probes.logs.scan import ENOUGH, WIDEST, Scanner
from ddp_assist.probes.logs.signatures import Signature, problems, read, signatures

IN_USE = Signature(
    "in-use", "bad", "a test", "port {port} taken", r"EADDRINUSE(?: port=(?P<port>\d+))?"
)
USAGE = Signature(
    "usage", "bad", "a test", "wrong {word}",
    r"usage: \S+(?:.*\n)+?.*error: unrecognized arguments: (?P<word>\S+)", span=4,
)  # fmt: skip
CHATTY = Signature("chatty", "info", "a test", "goes on", r"loss=\d")
SCANNER = Scanner((IN_USE, USAGE, CHATTY))


def found(data: bytes) -> list[tuple[str, int]]:
    return [(hit.signature.id, hit.line) for hit in SCANNER.scan_bytes(data)]


def test_every_signature_of_the_house_keeps_its_promises() -> None:
    assert problems() == []
    assert len(signatures()) > 50


def test_a_broken_signature_is_named() -> None:
    bad = (
        Signature("Bad_Id", "ok", "x", "{nothing}", "abcde", ("zzz",), ("abcde",)),
        Signature("bad-pattern", "bad", "x", "y", "(?<=a)b", ("b",)),
    )
    text = "\n".join(problems(bad))
    for part in ("kebab", "weight", "nothing", "does not match", "near miss", "compile"):
        assert part in text


def test_an_unknown_field_is_refused() -> None:
    try:
        read('[[signature]]\nid="a"\nweight="bad"\nsays="s"\npattern="p"\npatern="x"', "f.toml")
    except ValueError as error:
        assert "patern" in str(error) and "f.toml" in str(error)
    else:
        raise AssertionError("taken")


def test_lines_are_counted_and_groups_are_named() -> None:
    hits = list(SCANNER.scan_bytes(b"a\nb\nx EADDRINUSE port=29\n"))
    assert [(hit.line, hit.groups) for hit in hits] == [(3, {"port": "29"})]
    assert hits[0].signature.sentence(hits[0].groups) == "port 29 taken"
    assert "?" in hits[0].signature.sentence({})


def test_a_match_over_lines_stays_with_its_rank() -> None:
    log = (
        b"[rank1]: usage: t.py [-h]\n[rank0]: fine\n"
        b"[rank1]: t.py: error: unrecognized arguments: --x\n[rank0]: fine\n"
    )
    assert found(log) == [("usage", 1)]
    assert found(log.replace(b"[rank1]: t.py: error", b"[rank2]: t.py: error")) == []


def test_a_carriage_return_ends_a_line_for_the_eye() -> None:
    hits = list(SCANNER.scan_bytes(b"10%\r20% EADDRINUSE\r30%\n"))
    assert [hit.text for hit in hits] == [b"20% EADDRINUSE"]


def test_a_long_line_is_cut_around_its_match() -> None:
    (hit,) = SCANNER.scan_bytes(b"x" * 2_500_000 + b" EADDRINUSE " + b"y" * 2_500_000)
    assert b"EADDRINUSE" in hit.text and len(hit.text) <= WIDEST + 32


def test_what_comes_all_the_time_is_let_go_and_the_rest_still_found() -> None:
    log = b"step loss=1\n" * (ENOUGH * 3) + b"EADDRINUSE\n"
    ids = [id for id, _ in found(log)]
    assert ids.count("chatty") == ENOUGH and ids[-1] == "in-use"


def test_a_common_word_without_its_pattern_does_not_hide_the_pattern() -> None:
    only = Scanner((Signature("deep", "bad", "t", "s", r"iteration \d+ failed"),))
    log = b"iteration 5 passed\n" * 12_000 + b"iteration 77 failed\n"
    assert [hit.line for hit in only.scan_bytes(log)] == [12_001]


PIECES = [b"EADDRINUSE", b"x\n", b"usage: a\n", b"\r", b"y" * 90]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(1, 64))
def test_where_blocks_are_cut_changes_nothing(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    whole = [(hit.signature.id, hit.line) for hit in SCANNER.scan_bytes(data)]
    assert [(hit.signature.id, hit.line) for hit in SCANNER.scan(blocks)] == whole


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    found(data)


def test_required_words() -> None:
    assert required(r"foo\d+barbaz") == {"barbaz"}
    assert required(r"(?:alpha|betas)\d") == {"alpha", "betas"}
    assert required(r"(?:alpha)?\d") is None
    assert required(r"a|bcdefg") is None
