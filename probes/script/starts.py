"""What init_process_group needs to be told: by the environment, or by an address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ddp_assist.probes.model import Finding
from ddp_assist.probes.script.facts import INIT, SETTERS, Gang, ScriptFacts
from ddp_assist.probes.script.known import RANK
from ddp_assist.probes.script.spots import at, place
from ddp_assist.probes.script.value import Call

_SCHEMES = {"env", "tcp", "file"}


def missing_env(facts: ScriptFacts) -> Iterator[Finding]:
    plan = facts.target.plan
    for gang in facts.gangs:
        child = gang.process.number != 0
        if (plan is None and not child) or (not child and facts.launcher in SETTERS):
            continue
        stream = gang.streams[0]
        for index, call in enumerate(stream):
            if call.stray or call.handler or call.depends("env", "initialized") or _asks_env(call):
                continue
            if call.name == "environ.missing" and call.args[0].const in RANK | {
                "WORLD_SIZE",
                "LOCAL_RANK",
                "MASTER_ADDR",
                "MASTER_PORT",
            }:
                if call.tries or str(call.args[0].const).startswith(
                    ("SLURM", "OMPI", "PMI", "MV2")
                ):
                    continue
                names = [str(call.args[0].const)]
            elif call.name == INIT:
                names = _lacking(facts, call, _written(facts, gang, stream[:index]), child)
            else:
                continue
            if names:
                how = (
                    "Popen hands on what the parent has"
                    if gang.process.via == "program"
                    else "mp.spawn and Process do not set them"
                    if child
                    else "plain python sets none of them; torchrun does"
                )
                sentence = (
                    f"{', '.join(names)} must be in the environment here, and nothing "
                    f"sets {'them' if len(names) > 1 else 'it'} ({how})"
                )
                yield at(
                    call,
                    "missing-env",
                    sentence,
                    names=names,
                    child=child,
                    statement=_statement_line(call),
                )
                return


def _asks_env(call: Call) -> bool:
    return any(
        word.startswith(("env:", "arg:", "initialized", "argv"))
        for test in call.tests
        for word in test.of
    )


def _written(facts: ScriptFacts, gang: Gang, before: tuple[Call, ...]) -> set[object]:
    """Variables the script may have set before: in this process, or in the parent."""
    calls = [*before, *(facts.main.streams[0] if gang.process.number else ())]
    names: set[object] = {
        c.args[0].const for c in calls if c.name in ("environ.set", "environ.setdefault")
    }
    if any(
        c.name.endswith("load_dotenv") or (c.name == "environ.set" and not c.args[0].known)
        for c in calls
    ):
        names |= {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    if "os.environ.update(" in facts.source.text and "os.environ.update" in {c.name for c in calls}:
        names |= {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return names


def _lacking(facts: ScriptFacts, call: Call, written: set[object], child: bool) -> list[str]:
    method = call.get("init_method", 1)
    if call.get("store", 6) is not None and call.get("store", 6).const is not None:  # type: ignore[union-attr]
        return []
    if call.partial or (
        method is not None and method.const is not None and method.const != "env://"
    ):
        return []
    needed = ["MASTER_ADDR", "MASTER_PORT"]
    if call.get("rank", 4) is None:
        needed.append("RANK")
    if call.get("world_size", 3) is None:
        needed.append("WORLD_SIZE")
    unclear = facts.target.plan.unclear if facts.target.plan else frozenset()
    given = set(facts.environment) | set(unclear) | written
    if child and facts.launcher in SETTERS:
        given |= {"MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"}
    return [name for name in needed if name not in given]


def _statement_line(call: Call) -> int:
    return getattr(call.node, "lineno", 1)


def malformed(facts: ScriptFacts) -> Iterator[Finding]:
    for call in facts.calls(INIT):
        method = call.get("init_method", 1)
        if method is None or (method.known and method.const is None):
            continue
        text = (
            method.const
            if isinstance(method.const, str)
            else method.pattern or facts.value_of(method)
        )
        if not isinstance(text, str) or text.startswith("{}"):
            continue
        wrong = ""
        scheme, separator, rest = text.partition("://")
        if not text:
            wrong = "is empty"
        elif not separator:
            wrong = "has no scheme such as tcp://, file:// or env://"
        elif scheme not in _SCHEMES:
            wrong = f"has the scheme {scheme}://, which torch does not know"
        elif scheme == "tcp":
            wrong = _tcp_fault(rest)
        elif scheme == "file" and not rest.startswith(("/", "{}")):
            wrong = "is no absolute path (file:///path has three slashes)"
        if (
            wrong
            and "registered" not in text
            and "register_rendezvous_handler" not in facts.source.text
        ):
            node = call.node_of("init_method", 1) or call.node
            sentence = f"init_method {text!r} {wrong}"
            yield at(
                call,
                "init-method-malformed",
                sentence,
                value=text,
                value_span=place(call.source, node),
            )


def _tcp_fault(rest: str) -> str:
    if "{}" in rest:
        return "" if ":" in rest or rest == "{}" else "names no port"
    try:
        parts = urlsplit(f"tcp://{rest}")
        port = parts.port
    except ValueError:
        return "" if re.search(r":\d+$", rest) else "has a port that is no number"
    if not parts.hostname:
        return "names no host"
    return "names no port" if port is None else ""


CHECKS = (
    missing_env,
    malformed,
)
