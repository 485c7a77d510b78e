"""Local packet filters: what would this host do with a packet from outside to a port?"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["open", "drops", "rejects", "perhaps"]
TOOLS = "/usr/sbin:/sbin:/usr/bin:/bin"
DEADLINE = 3.0


class Unreadable(Exception):
    """The rules can't be read; the message is one clause."""


@dataclass(frozen=True, slots=True)
class Answer:
    verdict: Verdict
    rule: str = ""


@dataclass(slots=True)
class Rules:
    """The ruleset of nftables, as its own JSON has it."""

    chains: dict[tuple[str, str, str], list[list[Mapping[str, Any]]]] = field(default_factory=dict)
    bases: list[tuple[tuple[str, str, str], int, str]] = field(default_factory=list)
    sets: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)

    def judge(self, port: int, version: int = 4) -> Answer:
        """What becomes of a new TCP connection from another host to `port`."""
        doubt: Answer | None = None
        for key, _, policy in sorted(self.bases, key=lambda base: base[1]):
            if key[0] not in ("inet", "ip" if version == 4 else "ip6"):
                continue
            answer, maybe = self._walk(key, port, 0)
            doubt = doubt or maybe
            if answer is None and policy == "drop":
                answer = Answer("drops", f"policy of {key[1]} {key[2]}: drop")
            if answer and answer.verdict != "open":
                return answer if maybe is None else Answer("perhaps", answer.rule)
        return Answer("perhaps", doubt.rule) if doubt else Answer("open")

    def _walk(
        self, key: tuple[str, str, str], port: int, depth: int
    ) -> tuple[Answer | None, Answer | None]:
        """The verdict of a chain, and one of a rule that holds only perhaps."""
        maybe: Answer | None = None
        for rule in self.chains.get(key, []) if depth < 32 else []:
            sure: bool | None = True
            for part in rule:
                verdict = _verdict(part)
                if verdict == "":
                    holds = self._holds(part, key, port)
                    if holds is False:
                        sure = False
                        break
                    sure = sure if holds else None
                    continue
                text = _told(key, rule)
                if verdict == "return":
                    if sure:
                        return None, maybe
                elif verdict in ("jump", "goto"):
                    where = part[verdict].get("target", "")
                    answer, inner = self._walk((key[0], key[1], where), port, depth + 1)
                    maybe = maybe or inner
                    if answer and sure:
                        return answer, maybe
                    if answer and answer.verdict != "open":
                        maybe = maybe or answer
                elif sure:
                    return Answer(_KINDS[verdict], text), maybe
                elif verdict != "accept":
                    maybe = maybe or Answer("perhaps", text)
        return None, maybe

    def _holds(self, part: Mapping[str, Any], key: tuple[str, str, str], port: int) -> bool | None:
        """Whether a match is true of our packet; None where that can't be told."""
        if "match" not in part:
            return True if part.keys() & {"counter", "log", "limit", "comment"} else None
        match = part["match"]
        left, right, equal = match.get("left"), match.get("right"), match.get("op") != "!="
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self.sets.get((key[0], key[1], right[1:]), [])}
        fact = _fact(left, port)
        if fact is None:
            return None
        holds = _among(fact, right)
        return None if holds is None else holds == equal


_KINDS: Mapping[str, Verdict] = {"accept": "open", "drop": "drops", "reject": "rejects"}


def _verdict(part: Mapping[str, Any]) -> str:
    return next(
        (w for w in ("accept", "drop", "reject", "return", "jump", "goto") if w in part), ""
    )


def _fact(left: Any, port: int) -> Sequence[Any] | None:
    """What is true of the packet, in the words that nft may use for it."""
    if isinstance(left, dict) and isinstance(masked := left.get("&"), list) and masked:
        # A first packet has SYN and no other flag, so that a mask takes nothing from it.
        left = masked[0] if _fact(masked[0], port) == ["syn"] else None
    if not isinstance(left, dict):
        return None
    if "payload" in left:
        protocol, part = left["payload"].get("protocol"), left["payload"].get("field")
        if part == "flags" and protocol == "tcp":
            return ["syn"]
        if part == "dport" and protocol in ("tcp", "th"):
            return [port]
        if part == "protocol" and protocol in ("ip", "ip6"):
            return ["tcp", 6]
        return ["other protocol"] if protocol in ("udp", "icmp", "icmpv6", "sctp") else None
    if "meta" in left:
        known: dict[str, Sequence[Any]] = {
            "l4proto": ["tcp", 6],
            "iifname": ["some interface"],
            "iif": ["some interface"],
            "pkttype": ["unicast", "host"],
        }
        return known.get(left["meta"].get("key"))
    if "ct" in left and left["ct"].get("key") == "state":
        return ["new"]
    return None


def _among(fact: Sequence[Any], right: Any) -> bool | None:
    if isinstance(right, dict) and "set" in right:
        inside = [_among(fact, each) for each in right["set"]]
        return True if True in inside else None if None in inside else False
    if isinstance(right, list):
        return _among(fact, {"set": right})
    if isinstance(right, dict) and "range" in right:
        low, high = right["range"]
        number = fact[0]
        return low <= number <= high if isinstance(number, int) and isinstance(low, int) else None
    if isinstance(right, dict) and "elem" in right:
        return _among(fact, right["elem"].get("val"))
    if fact[0] == "some interface":
        return False if right == "lo" else None
    return right in fact if isinstance(right, (str, int)) else None


def _told(key: tuple[str, str, str], rule: Sequence[Mapping[str, Any]]) -> str:
    words = [f"{' '.join(key)}:"]
    for part in rule:
        if "match" in part:
            left, right = part["match"].get("left"), part["match"].get("right")
            name: Any = next(iter(left.values()), {}) if isinstance(left, dict) else {}
            inner = name.get("field") or name.get("key") if isinstance(name, dict) else name
            words.append(f"{inner} {json.dumps(right)}")
        elif verdict := _verdict(part):
            words.append(verdict)
    return " ".join(words)[:300]


def read_rules() -> Rules:
    """The rules that hold for packets coming in; raises Unreadable."""
    tool = shutil.which("nft", path=TOOLS)
    if tool is None:
        raise Unreadable("there is no nft here")
    try:
        done = subprocess.run(
            [tool, "-j", "list", "ruleset"],
            capture_output=True,
            timeout=DEADLINE,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unreadable(f"nft gave no answer: {type(error).__name__}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise Unreadable(said[0] if said else f"nft ended with {done.returncode}")
    try:
        return parse(json.loads(done.stdout or b'{"nftables": []}'))
    except (ValueError, RecursionError) as error:
        raise Unreadable("nft did not answer in JSON") from error


def parse(ruleset: Mapping[str, Any]) -> Rules:
    rules = Rules()
    for entry in ruleset.get("nftables", ()):
        if chain := entry.get("chain"):
            key = (chain["family"], chain["table"], chain["name"])
            rules.chains.setdefault(key, [])
            if chain.get("hook") == "input" and chain.get("type") == "filter":
                rules.bases.append((key, chain.get("prio", 0), chain.get("policy", "accept")))
        elif rule := entry.get("rule"):
            key = (rule["family"], rule["table"], rule["chain"])
            rules.chains.setdefault(key, []).append(rule.get("expr", []))
        elif named := entry.get("set"):
            rules.sets[named["family"], named["table"], named["name"]] = named.get("elem", [])
    return rules


def old_tables() -> Iterator[str]:
    """Tables of the older iptables, which nft does not list."""
    for source in ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"):
        try:
            with open(source) as names:
                yield from (name.strip() for name in names if name.strip() == "filter")
        except OSError:
            continue
