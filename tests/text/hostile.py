"""Text that means harm, made here: what it is, and what must still be readable."""

from __future__ import annotations

import random

BEL, ST, ESC = "\x07", "\x1b\\", "\x1b"


def harmful() -> dict[str, tuple[str, str]]:
    """By name: the text, and what is left of it."""
    return {
        "colour": (f"{ESC}[1;38;5;9mfailed{ESC}[0m here", "failed here"),
        "clipboard": (f"a{ESC}]52;c;cm0gLXJm{BEL}b{ESC}]52;p;eA=={ST}c", "abc"),
        "clipboard, 8 bit": ("a\x9d52;c;eA==\x9cb", "ab"),
        "clipboard through tmux": (f"a{ESC}Ptmux;{ESC}{ESC}]52;c;eA=={BEL}{ST}b", "ab"),
        "title and query": (f"{ESC}]0;rm{BEL}t{ESC}[6n{ESC}[>q{ESC}P$qm{ST}u", "tu"),
        "open string": (f"x{ESC}]0;never closed\nEADDRINUSE", "x\nEADDRINUSE"),
        "link": (f"{ESC}]8;;http://evil.example{ST}docs{ESC}]8;;{ST}", "docs"),
        "cursor and erase": (f"bad{ESC}[1A{ESC}[2Kgood{ESC}[?1049l", "badgood"),
        "apc pm sos": (f"{ESC}_Gi=1;AAAA{ST}1{ESC}^x{ST}2{ESC}Xy{ST}3", "123"),
        "c1": ("a\x85b\x8ec\x9b31md", "a\\x85b\\x8ecd"),
        "reset": (f"a{ESC}cb{ESC}(0c", "abc"),
        "carriage": ("visible\rhidden\r\nnext", "visible\u240dhidden\nnext"),
        "nul and del": ("a\0b\x7fc\x08d", "a\u2400b\u2421c\u2408d"),
        "bidi": ("a\u202eb\u2066c\u200bd\ufeffe\u00adf", "abcdef"),
        "tags": ("a\U000e0041\U000e007fb", "ab"),
        "marks": ("e" + "\u0301" * 5000 + "x", "e\u0301\u0301\u0301x"),
        "surrogates": ("a\udc9bb\ud800c", "a\\x9bb\ufffdc"),
        "markup": ("[rank0]: [@click=app.quit]x[/] [/]", "[rank0]: [@click=app.quit]x[/] [/]"),
    }


def noise(seed: int, size: int) -> bytes:
    """Bytes of every kind, with introducers more often than chance has them."""
    chance = random.Random(seed)
    pool = [
        b"\x1b",
        b"\x1b[",
        b"\x1b]",
        b"\x9b",
        "\x9d".encode(),
        b"\x07",
        b"\n",
        b"word ",
        b"\r",
        b"\0",
    ]
    return b"".join(
        chance.choice(pool) if chance.random() < 0.5 else chance.randbytes(3) for _ in range(size)
    )
