"""`ddp-assist explain`: a cause's page, or the list of them."""

from __future__ import annotations

from difflib import get_close_matches

from ddp_assist.app.cli import OK, Wrong
from ddp_assist.app.tree import page, page_ids


def run(verb: str, words: list[str]) -> int:
    if words in (["-h"], ["--help"]):
        print("usage: ddp-assist explain ID | --list\n\nThe page of a cause.")
        return OK
    if words == ["--list"]:
        for cause in page_ids():
            print(f"{cause:<28} {page(cause).title}")
        return OK
    if len(words) != 1 or words[0].startswith("-"):
        raise Wrong("explain takes the id of one cause, or --list")
    if words[0] not in page_ids():
        near = get_close_matches(words[0], page_ids(), 3, 0.4)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise Wrong(f"there is no cause {words[0]!r}{hint} (ddp-assist explain --list)")
    about = page(words[0])
    print(f"{about.id}: {about.title}\n\n{about.text}")
    return OK
