"""The pictures of the screens, drawn from the demo: `make screenshots`.

The demo's answers are recorded, so that the same screens give the same bytes; a test draws them
again and fails where a picture is no longer what the screen shows.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

# Before textual is imported, as the guided session itself has it.
os.environ["TEXTUAL_THEME"] = "ansi-dark"
os.environ["TEXTUAL_ANIMATIONS"] = "none"

from textual.pilot import Pilot  # noqa: E402

from ddp_assist.app.demo import stories  # noqa: E402
from ddp_assist.app.question import Question  # noqa: E402
from ddp_assist.app.tui import Assistant  # noqa: E402

HERE = Path(__file__).resolve().parent / "screens"
SIZES = ((80, 24), (140, 40))
WIDE, HIGH = 8, 17
# Which story, and the keys from its first screen.
SHOTS = {
    "home": ("1-port", ""),
    "step": ("1-port", "enter"),
    "tree": ("1-port", "enter m"),
    "diagnosis": ("1-port", "enter enter"),
    "fix": ("1-port", "enter enter enter enter"),
    "report": ("1-port", "enter enter enter enter x"),
    "edit": ("2-hang", "enter enter enter enter enter"),
    "jobs": ("2-hang", "j"),
    "trial": ("1-port", "t enter"),
    "hosts": ("4-hosts", "h enter enter"),
    "everything": ("4-hosts", "0"),
    "commands": ("1-port", "enter colon"),
    "help": ("1-port", "question_mark"),
}
Piece = tuple[str, bool, bool]


def svg(lines: Sequence[Sequence[Piece]], columns: int) -> str:
    """Text on a dark ground; bold and reversed are all that the screens use."""
    width, height = columns * WIDE + 20, len(lines) * HIGH + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" font-family="monospace" font-size="13" fill="#d4d4d4">',
        f'<rect width="{width}" height="{height}" rx="6" fill="#1c1c1c"/>',
    ]
    for row, line in enumerate(lines):
        at = 0
        for text, bold, reverse in line:
            x, y = 10 + at * WIDE, 10 + row * HIGH
            at += len(text)
            if reverse:
                parts.append(
                    f'<rect x="{x}" y="{y}" width="{len(text) * WIDE}" height="{HIGH}"'
                    ' fill="#d4d4d4"/>'
                )
            if text.strip():
                style = (' font-weight="bold"' if bold else "") + (
                    ' fill="#1c1c1c"' if reverse else ""
                )
                shown = text.rstrip()
                parts.append(
                    f'<text x="{x}" y="{y + 13}" textLength="{len(shown) * WIDE}"'
                    f' xml:space="preserve"{style}>{escape(shown)}</text>'
                )
    return "\n".join([*parts, "</svg>", ""])


def drawn(app: Assistant) -> list[list[Piece]]:
    lines: list[list[Piece]] = []
    for strip in app.screen._compositor.render_strips():
        line: list[Piece] = []
        for text, style, _ in strip:
            bold, reverse = bool(style and style.bold), bool(style and style.reverse)
            if line and line[-1][1:] == (bold, reverse):
                line[-1] = (line[-1][0] + text, bold, reverse)
            else:
                line.append((text, bold, reverse))
        lines.append(line)
    return lines


async def settled(app: Assistant, pilot: Pilot[int]) -> list[list[Piece]]:
    """What stands there when nothing is under way and nothing changes any more."""
    before: list[list[Piece]] = []
    while (now := drawn(app)) != before or app.session.looking or app.session.trying or app.stale:
        before = now
        await pilot.pause(0.15)
    return now


async def shot(told: str, keys: str, size: tuple[int, int]) -> str:
    app = Assistant(Question(env={}), demo=True)
    async with app.run_test(size=size) as pilot:
        place = [told.name for told in stories()].index(told)
        await pilot.press(*["down"] * place, "enter")
        while app.session.diagnosis is None:
            await pilot.pause(0.05)
        for key in keys.split():
            before = await settled(app, pilot)
            await pilot.press(key)
            while drawn(app) == before:
                await pilot.pause(0.05)
        return svg(await settled(app, pilot), size[0])


def pictures(sizes: Sequence[tuple[int, int]] = SIZES) -> dict[str, str]:
    os.environ["XDG_STATE_HOME"] = "/home/you/.local/state"
    return {
        f"{name}-{size[0]}x{size[1]}.svg": asyncio.run(shot(told, keys, size))
        for name, (told, keys) in SHOTS.items()
        for size in sizes
    }


def main() -> int:
    HERE.mkdir(exist_ok=True)
    for name, text in pictures().items():
        (HERE / name).write_text(text, "utf-8")
    print(f"{len(SHOTS) * len(SIZES)} pictures in {HERE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
