"""Pastes that the terminal does not mark: one event, never keys that would do something."""

from __future__ import annotations

from ddp_assist.app.terminal import FLOOD, Pastes


def whole(pastes: Pastes) -> list[str]:
    return [paste.text for paste in pastes.ended()]


def test_hands_are_no_pastes() -> None:
    pastes = Pastes()
    for typed in ("q", "\x1b[A", "\x1b[B" * 40, "ddp", "\x1b", "\r"):
        assert not pastes.takes(typed)
    assert not whole(pastes)


def test_what_follows_a_flood_belongs_to_it() -> None:
    pastes = Pastes()
    parts = ("RuntimeError: " * 10 + "\r", "quit\r", "\x1b[31m" + "e" * FLOOD + "\x1b[0m\r", "\n")
    assert all(map(pastes.takes, parts))
    assert whole(pastes) == ["".join(parts).replace("\r\n", "\n").replace("\r", "\n")]
    assert not pastes.takes("q")


def test_what_is_marked_is_left_to_the_parser() -> None:
    pastes = Pastes()
    assert not pastes.takes("\x1b[200~" + "x" * 4000)
    assert not pastes.takes("y" * 4000)
    assert not pastes.takes("z" * 100 + "\x1b[201~")
    assert not pastes.takes("q")
    assert pastes.takes("x" * 4000)


def test_a_sequence_that_a_read_has_cut_is_not_the_escape_key() -> None:
    pastes = Pastes()
    assert all(map(pastes.takes, ("RuntimeError: " * 10, "\x1b", "[3", "1m", "\x1b[3")))
    assert not pastes.takes("\x13"), "a control key alone is a hand"
    assert len(whole(pastes)) == 1
    assert not pastes.takes("\x1b")
