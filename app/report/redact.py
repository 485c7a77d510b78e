"""Redaction: exact values, shapes, names, identities; closed when in doubt."""

from __future__ import annotations

import base64
import getpass
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO
from urllib.parse import quote, quote_plus

from ddp_assist.app.report.identities import Identities
from ddp_assist.app.report.secrets import MARK, PEM_BEGIN, PEM_END, Hit, named, rules, secret_name
from ddp_assist.probes.text import clean

BLOCK = 4 << 20
LONGEST_LINE = 64 << 20
_APART = b"\n\x1e\n"  # no cleaned text holds it


class Redactor:
    """Hides secrets and names identities the same way throughout one report."""

    def __init__(
        self, env: Mapping[str, str], hostname: str, user: str, home: str, *more: Mapping[str, str]
    ) -> None:
        self.counts: dict[str, int] = {}
        self._known: dict[str, str] = {}
        rules()  # a rule that can't be read must be heard, not hidden as a field that failed
        self._exact = sorted(_exact((env, *more)), key=len, reverse=True)
        nodes = _nodes(env.get("SLURM_JOB_NODELIST", "") or env.get("SLURM_NODELIST", ""))
        self._identities = Identities(hostname, user, home, nodes)

    @property
    def names(self) -> Mapping[str, str]:
        """Who is who, for the one who made the report."""
        return self._identities.names

    def text(self, text: str) -> str:
        if text in self._known:
            return self._known[text]
        return self._bytes(clean(text).encode("utf-8", "replace")).decode("utf-8", "replace")

    def _bytes(self, text: bytes) -> bytes:
        try:
            for value in self._exact:
                if value in text:
                    self._count("environment", text.count(value))
                    text = text.replace(value, b"[REDACTED:environment]")
            lower = text.lower()  # a text that shrinks keeps no word that it did not have
            for rule in rules():
                text = self._mask(text, rule.hits(text, lower))
            text = self._mask(text, named(text))
            return self._identities.hide(text, self.counts)
        except (ValueError, LookupError, TypeError, RecursionError):
            self._count("error")
            return b"[REDACTED:error]"

    def _mask(self, text: bytes, hits: Iterator[Hit]) -> bytes:
        parts: list[bytes] = []
        done = 0
        for hit in sorted(hits, key=lambda hit: hit.start):
            if hit.end <= done or text.startswith(MARK.encode(), hit.start):
                continue
            parts += [text[done : max(done, hit.start)], f"{MARK}{hit.kind}]".encode()]
            done = hit.end
            self._count(hit.kind)
        return b"".join((*parts, text[done:])) if parts else text

    def _count(self, kind: str, n: int = 1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + n

    def value(self, name: str, value: Any) -> Any:
        """A value that stands under a name: all of it is hidden when the name is a secret's."""
        if isinstance(value, str) and secret_name(name) and value and not value.startswith(MARK):
            shown = self.text(f"{name}={value}").partition("=")[2]
            if MARK in shown:
                self._count("named")
                return f"{MARK}named]"
            return shown
        return self._json(value)

    def json(self, value: Any) -> Any:
        """The same structure, every text in it redacted, keys too."""
        self._known = self._together(_texts(value))
        try:
            return self._json(value)
        finally:
            self._known = {}

    def _together(self, texts: Iterator[str]) -> dict[str, str]:
        """Many small texts in one pass; when they ran into each other, none is taken from it."""
        unique = list(dict.fromkeys(texts))
        shown = self._bytes(_APART.join(clean(t).encode("utf-8", "replace") for t in unique))
        pieces = shown.split(_APART)
        if len(pieces) != len(unique):
            return {}
        return dict(
            zip(unique, (piece.decode("utf-8", "replace") for piece in pieces), strict=True)
        )

    def _json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): self.value(str(key), entry) for key, entry in value.items()
            }
        if isinstance(value, (list, tuple)):
            return self._list(value)
        return value

    def _list(self, values: list[Any] | tuple[Any, ...]) -> list[Any]:
        """In a list of words the secret may follow its flag, or be split from what names it."""
        shown: list[Any] = []
        before = ""
        for entry in values:
            flag = before.startswith("-") and "=" not in before and secret_name(before.lstrip("-"))
            if isinstance(entry, str) and flag and not entry.startswith("-"):
                shown.append(self.value(before.lstrip("-"), entry))
            else:
                shown.append(self._json(entry))
            before = entry if isinstance(entry, str) else ""
        return shown

    def scan(self, rendered: str) -> list[str]:
        """What is still in a finished report: the rule and the line, never the secret."""
        data = rendered.encode("utf-8", "replace")
        hits = [Hit(data.find(v), 0, "environment") for v in self._exact if v in data]
        hits += [h for rule in rules() for h in rule.hits(data, data.lower())]
        hits = [h for h in hits if not data.startswith(MARK.encode(), h.start)]
        said = [f"{h.kind}, line {data.count(10, 0, h.start) + 1}" for h in hits]
        if not said and self._identities.hide(data, {}) != data:
            said = [
                f"identity, line {n}"
                for n, line in enumerate(data.split(b"\n"), 1)
                if self._identities.hide(line, {}) != line
            ]
        return said


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _texts(entry)


def _exact(environments: tuple[Mapping[str, str], ...]) -> set[bytes]:
    """Every form in which a secret of an environment may stand in a text."""
    forms: set[bytes] = set()
    for environment in environments:
        for name, value in environment.items():
            if len(value) < 6 or not secret_name(name) or not _telling(value):
                continue
            raw = value.encode("utf-8", "surrogateescape")
            encoded = base64.b64encode(raw).rstrip(b"=")
            forms |= {raw, clean(value).encode(), quote(raw, safe="").encode(), quote(raw).encode()}
            forms |= {quote_plus(raw).encode(), repr(value)[1:-1].encode("utf-8", "replace")}
            forms |= {encoded, base64.urlsafe_b64encode(raw).rstrip(b"=")}
            for shift in (1, 2):  # inside a longer base64 text, as in user:password
                inner = base64.b64encode(b"\0" * shift + raw)
                forms.add(inner[shift + 1 :].rstrip(b"=")[:-1])
    return {form for form in forms if len(form) >= 6}


def _telling(value: str) -> bool:
    """Whether a value can be told from a word, a path or a placeholder."""
    if value.startswith(("/", "${", "<")) or value.lower() in (
        "changeme",
        "password",
        "secret",
        "dummy",
    ):
        return False
    return not re.fullmatch(r"(?i)true|false|none|null|enabled|disabled|offline|online", value)


def _nodes(nodelist: str) -> list[str]:
    """The names in a Slurm node list; a range that would be long is cut."""
    names: list[str] = []
    for match in re.finditer(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)", nodelist):
        stem, ranges, tail = match.groups()
        for part in (ranges or "").split(","):
            first, _, last = part.partition("-")
            if not first.isdigit():
                names += [stem + tail] if not ranges else []
                continue
            stop = int(last) if last.isdigit() else int(first)
            numbers = range(int(first), min(stop, int(first) + 1024) + 1)
            names += [f"{stem}{n:0{len(first)}d}{tail}" for n in numbers]
    return names[:1024]


def redact_stream(source: BinaryIO, target: BinaryIO, redactor: Redactor) -> None:
    """A log of any size, block by block; a block ends at a line end, a key block may span many."""
    rest, inside = b"", False
    encoding: str | None = None
    while True:
        block = source.read(BLOCK)
        if encoding is None:
            encoding = _encoding(block)
        last = not block
        rest += block
        cut = len(rest) if last else rest.rfind(b"\n") + 1
        if encoding != "utf-8":
            if not last and len(rest) <= LONGEST_LINE:
                continue
            cut = len(rest)
        if not cut and len(rest) > LONGEST_LINE:
            cut = rest.rfind(b" ") + 1 or len(rest)
        piece, rest = rest[:cut], rest[cut:]
        if inside and (end := PEM_END.search(piece)):
            piece, inside = piece[end.end() :], False
        if piece and not inside:
            begins = [m.start() for m in PEM_BEGIN.finditer(piece)]
            inside = bool(begins) and not PEM_END.search(piece, begins[-1])
            text = clean(piece.decode(encoding, "backslashreplace"))
            target.write(redactor._bytes(text.encode("utf-8", "replace")))
        if last:
            return


def _encoding(start: bytes) -> str:
    if start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-8"


def standard_redactor(*environments: Mapping[str, str]) -> Redactor:
    """For this user on this host, and the environments of the jobs that were looked at."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    home = os.path.expanduser("~")
    return Redactor(os.environ, socket.gethostname(), user, home, *environments)
