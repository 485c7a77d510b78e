"""Pastes that the terminal does not mark: one event a read, never keys that would do something."""

from __future__ import annotations

from ddp_assist.app.terminal import FLOOD, Pastes


def test_what_hands_type_is_no_paste() -> None:
    pastes = Pastes()
    for typed in ("q", "\x1b[A" * 60, "\x1bOP", "/eaddrinuse", "\x1b[?1;2c\x1b[24;80R"):
        assert not pastes.is_paste(typed, 100.0)


def test_a_long_read_is_one_and_so_is_its_tail() -> None:
    pastes = Pastes()
    assert pastes.is_paste("RuntimeError: " * 10, 1.0)
    assert pastes.is_paste("quit\r", 1.01)
    assert not pastes.is_paste("q", 5.0)
    assert pastes.is_paste("\x1b[31m" + "e" * FLOOD + "\x1b[0m", 9.0)


def test_a_marked_paste_is_left_to_the_parser_whatever_it_holds() -> None:
    pastes = Pastes()
    assert not pastes.is_paste("\x1b[200~" + "x" * 4000, 1.0)
    assert not pastes.is_paste("y" * 4000, 1.1)
    assert not pastes.is_paste("z" * 100 + "\x1b[201~", 1.2)
    assert not pastes.is_paste("q", 9.0)
    assert pastes.is_paste("x" * 4000, 20.0)


def test_a_sequence_cut_by_the_end_of_a_read_is_no_escape_key() -> None:
    pastes = Pastes()
    assert pastes.is_paste("RuntimeError: " * 10, 1.0)
    assert pastes.is_paste("\x1b", 1.01)
    assert pastes.is_paste("\x1b[3", 1.02)
    assert not pastes.is_paste("\x13", 1.03)
    assert not pastes.is_paste("\x1b", 5.0)
