"""Who and where: the same thing gets the same name, and what relates them stays."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import re2

from ddp_assist.app.report.secrets import data

COMMON = frozenset(data("fields.toml")["common"])
_V4 = rb"(?:\d{1,3}\.){3}\d{1,3}"
_FOUND = re2.compile(
    rb"(?i)(?P<gpu>(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    rb"|(?P<mac>\b[0-9a-f]{2}(?:[:\-][0-9a-f]{2}){5}\b)"
    rb"|(?P<guid>\b[0-9a-f]{4}(?::[0-9a-f]{4}){3}\b|guid\W{0,3}0x[0-9a-f]{16}\b)"
    rb"|(?P<email>[a-z0-9][a-z0-9_.+\-]*@[a-z0-9\-]+(?:\.[a-z0-9\-]+)*\.[a-z]{2,})"
    rb"|(?P<v6>(?:[0-9a-f]{1,4}:|:)(?:[0-9a-f]{0,4}:){1,6}(?:" + _V4 + rb"|[0-9a-f]{0,4}))"
    rb"|(?P<ec2>\bip-\d{1,3}-\d{1,3}-\d{1,3}-\d{1,3}\b)"
    rb"|(?P<v4>" + _V4 + rb")"
    rb"|(?P<home>/(?:home|Users)/[^/\s\"'`:,;()<>\[\]]+)"
)
_KINDS = tuple((name.decode(), at) for name, at in _FOUND.groupindex.items())
_VERSION = re.compile(
    rb"(?i)(?:==|>=|<=|~=|!=|@|\bv|[-_+]|version\W{0,4}|\b(?:driver|firmware|fw|release|ver|cudnn|cublas|nccl|"
    rb"cuda|ofed|lib[\w.+\-]*|nvidia-[\w\-]+|[\w\-]+-cu1\d|\.so)[ \t:=]*(?:version)?[ \t:=v]*|\.)\Z"
)


class Identities:
    """Pseudonyms of one report; the map lives as long as this object."""

    def __init__(self, hostname: str, user: str, home: str, hosts: Iterable[str] = ()) -> None:
        self.names: dict[str, str] = {}
        self._next: dict[str, int] = {}
        self._kinds: dict[bytes, str] = {}
        self._patterns: list[tuple[str, Any, bytes]] = []
        if len(home) > 2 and home.strip("/") and home != "/root":
            self._add(
                "home",
                rb"(?P<secret>"
                + re2.escape(home.rstrip("/").encode())
                + rb")(?:[^A-Za-z0-9_.\-]|$)",
                b"~",
            )
        for host in (hostname, *hosts):
            self._host(host)
        if len(user) >= 3 and user.lower() not in COMMON:
            name = self.name("user", user.lower())
            self._add("user", _word(re2.escape(user.encode())), name.encode())

    def _add(self, kind: str, pattern: bytes, name: bytes) -> None:
        self._patterns.append((kind, re2.compile(pattern), name))

    def _host(self, host: str) -> None:
        labels = host.strip(".").split(".")
        short = labels[0]
        if len(short) < 3 or short.lower() in COMMON or short.isdigit() or _is_address(host):
            return
        name = self.name("host", short.lower()).encode()
        loose = [
            rb"[._\-]".join(re2.escape(p.encode()) for p in re.split(r"[._-]", label))
            for label in labels
        ]
        if len(labels) > 1:
            self._add("host", _word(rb"[._\-]".join(loose)), name)
        self._add("host", _word(loose[0]), name)
        if len(labels) > 2:
            self._add(
                "domain",
                _word(rb"\.".join(re2.escape(p.encode()) for p in labels[1:])),
                self.name("domain", ".".join(labels[1:])).encode(),
            )

    def name(self, kind: str, what: str, relation: str = "") -> str:
        key = f"{kind}:{what}"
        if key not in self.names:
            self._next[kind] = self._next.get(kind, 0) + 1
            self.names[key] = f"{kind}-{self._next[kind]}{relation}"
        return self.names[key]

    def hide(self, text: bytes, counts: dict[str, int]) -> bytes:
        for kind, pattern, name in self._patterns:
            parts: list[bytes] = []
            done = place = 0
            while (match := pattern.search(text, place)) is not None:
                start, place = match.span(pattern.groupindex[b"secret"])
                parts += [text[done:start], name]
                done = place
                counts[kind] = counts.get(kind, 0) + 1
            text = b"".join((*parts, text[done:]))
        parts, done = [], 0
        for match in _FOUND.finditer(text):
            start, end = match.span()
            said = text[start:end]
            if said not in self._kinds:
                self._kinds[said] = next(k for k, at in _KINDS if match.group(at) is not None)
            kind = self._kinds[said]
            named = self._pseudonym(kind, said.decode(), text, start, end)
            if named is None:
                continue
            counts[named[0]] = counts.get(named[0], 0) + 1
            parts += [text[done:start], named[1].encode()]
            done = end
        return b"".join((*parts, text[done:]))

    def _pseudonym(
        self, kind: str, said: str, text: bytes, start: int, end: int
    ) -> tuple[str, str] | None:
        before = text[max(0, start - 40) : start].rpartition(b"\n")[2]
        after = text[end : end + 2]
        if kind in ("v4", "ec2", "v6"):
            if re.search(rb"[A-Za-z0-9]\Z", before) or re.match(rb"[A-Za-z0-9]|\.\d|[+]\w", after):
                return None
            if kind == "v4" and (_VERSION.search(before) or re.match(rb"[-+_]\w", after)):
                return None
            address = said[3:].replace("-", ".") if kind == "ec2" else said
            name = self._address(address, before, text[end : end + 1])
            return None if name is None else ("ip", name)
        if kind == "home":
            head, user = said.rsplit("/", 1)
            if user.lower() in COMMON or user.startswith(("user-", "[", "$", "{")):
                return None
            return "user", f"{head}/{self.name('user', user.lower())}"
        if kind == "email":
            if said.startswith("git@"):
                return None
            return "email", self.name("email", said.lower())
        if kind == "mac" and (
            len(set(said[2::3])) > 1
            or set(said) <= set("0:-")
            or re.search(rb"[:\-]\Z", before)
            or re.match(rb"[:\-]\w", after)
        ):
            return None
        if kind == "guid" and said.lower().startswith("guid"):
            head, _, number = said.rpartition("0x")
            return "guid", head + self.name("guid", number.lower())
        return kind, self.name(kind, said.lower())

    def _address(self, said: str, before: bytes, after: bytes) -> str | None:
        where = _whereabouts(said)
        if where is None or (where.like_a_version and _in_a_package_list(before, after)):
            return None
        net = self.name("net", where.net)
        return where.lead + self.name("ip", where.address, f"({where.what},{net})")


class _Whereabouts(NamedTuple):
    """What of an address is kept: its class and its neighbours."""

    lead: str
    address: str
    net: str
    what: str
    like_a_version: bool


@lru_cache(maxsize=4096)
def _whereabouts(said: str) -> _Whereabouts | None:
    """Nothing where it is no address, or one that every host has."""
    try:
        address = ipaddress.ip_address(said)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        inner = _whereabouts(str(address.ipv4_mapped))
        return inner and inner._replace(lead="::ffff:", like_a_version=False)
    if address.is_loopback or address.is_unspecified or said.startswith(("255.", "0.")):
        return None
    if address.version == 6 and not re.match(r"(?i)[23][0-9a-f]{3}:|f[cdef]", said):
        return None
    what = (
        "link-local" if address.is_link_local
        else "multicast" if address.is_multicast
        else "private" if address.is_private and not _documentation(address)
        else "public"
    )  # fmt: skip
    prefix = 24 if address.version == 4 else 64
    net = str(ipaddress.ip_network(f"{address}/{prefix}", strict=False))
    unlike = address.version == 6 or address.is_private
    return _Whereabouts("", str(address), net, what, not unlike)


def _in_a_package_list(before: bytes, after: bytes) -> bool:
    named = re.fullmatch(rb"\s*[A-Za-z][\w.+\-]*[ \t]+", before)
    return bool(named and re.match(rb"\s|\Z", after) and b"-" in before)


def _documentation(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return str(address).startswith(("192.0.2.", "198.51.100.", "203.0.113.", "2001:db8:"))


def _word(pattern: bytes) -> bytes:
    return rb"(?i)(?:^|[^A-Za-z0-9])(?P<secret>" + pattern + rb")(?:[^A-Za-z0-9]|$)"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
