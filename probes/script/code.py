"""Plain Python mistakes that end a job: names, syntax, shadowed modules, swallowed errors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from difflib import get_close_matches

from ddp_assist.probes.model import Evidence, Finding
from ddp_assist.probes.script.facts import INIT, SETTERS, ScriptFacts
from ddp_assist.probes.script.groups import needs_group
from ddp_assist.probes.script.known import ALIASES, DISTRIBUTED
from ddp_assist.probes.script.names import missing_names
from ddp_assist.probes.script.shadow import shadows
from ddp_assist.probes.script.spots import at, place, spot
from ddp_assist.probes.script.value import Call


def syntax(facts: ScriptFacts) -> Iterator[Finding]:
    for source in facts.project.read():
        problem = source.problem
        if problem is None:
            continue
        mark = ast.Pass(
            lineno=problem.line,
            col_offset=problem.col,
            end_lineno=problem.line,
            end_col_offset=problem.col + 1,
        )
        sentence = f"Python can't parse this (column {problem.col + 1}): {problem.message}"
        line = re.match(r"expected an indented block after .* on line (\d+)", problem.message)
        empty = {"kind": "syntax", "header": int(line[1]) if line else None}
        empty["told"] = problem.message
        yield spot(
            "name-missing-in-script", sentence, source, mark, message=problem.message, **empty
        )


def names(facts: ScriptFacts) -> Iterator[Finding]:
    yield from _relative(facts)
    yield from _early(facts)
    yield from _no_such(facts)
    entered = facts.traces[0].entered | facts.traces[1].entered
    for source in facts.project.read():
        for missing in missing_names(source):
            reached = missing.function is None or id(missing.function) in entered
            meant = ALIASES.get(missing.name)
            hint = f"; {statement_for(missing.name)} is missing" if meant else ""
            if not meant and missing.meant:
                hint = f"; it may be {missing.meant}"
            sentence = f"the name {missing.name} is used but nothing defines it{hint}"
            if missing.function is not None and _unseen(facts, missing.function):
                sentence += (
                    "; it fails in a worker process whose exit code nobody looks at, so the job "
                    "itself ends with exit code 0"
                )
            outcome = "name-missing-in-script" if reached else "name-missing-in-script-maybe"
            yield spot(
                outcome,
                sentence,
                source,
                missing.node,
                kind="name",
                name=missing.name,
                add=statement_for(missing.name) if meant else None,
                meant=missing.meant if not meant else None,
            )


_UNDEFINED = {
    "name.early": "the name {name} is used here before it is defined, further down in the file",
    "name.unbound": (
        "{name} is changed here without `global {name}`, so Python takes it for a local name that "
        "has no value yet"
    ),
    "name.guarded": (
        "{name} is only defined under the main guard, which a spawned process does not run: define "
        "it at the level of the module"
    ),
    "import.missing": "{name} is imported from {module}, which does not define it",
}


def _early(facts: ScriptFacts) -> Iterator[Finding]:
    """Names that something defines, but not where or when they are used."""
    for kind, sentence in _UNDEFINED.items():
        for call in facts.calls(kind, stray=False):
            if call.tries or call.handler:
                continue
            name, module = str(call.args[0].const), call.args[-1].kind
            said = sentence.format(name=name, module=module)
            yield at(call, "name-missing-in-script", said, kind=kind, name=name, add=None)
            return


def _relative(facts: ScriptFacts) -> Iterator[Finding]:
    """`from . import x` in a file that is started by its path, where Python knows no package."""
    plan, source = facts.target.plan, facts.source
    if plan is None or plan.module or plan.script is None or source.notebook or source.tree is None:
        return
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            sentence = (
                "a relative import fails in a file that is started by its path: start it as a "
                f"module, -m PACKAGE.{source.path.stem}, from the folder above the package"
            )
            name = node.module or node.names[0].name
            yield spot(
                "name-missing-in-script", sentence, source, node,
                kind="import.relative", name=name, add=None,
            )  # fmt: skip
            return


def _no_such(facts: ScriptFacts) -> Iterator[Finding]:
    """A function that torch.distributed has under a name that is spelt another way."""
    for call in facts.traces[0].calls:
        start, _, last = call.name.rpartition(".")
        if start != "torch.distributed" or last in DISTRIBUTED or last.startswith("_"):
            continue
        if call.tries or call.handler or not isinstance(call.node, ast.Call):
            continue
        meant = next((n for n in DISTRIBUTED if _letters(n) == _letters(last)), None)
        meant = meant or next(iter(get_close_matches(last, DISTRIBUTED, 1, 0.88)), None)
        if meant is not None:
            sentence = f"torch.distributed has no {last}; it is called {meant}"
            func = call.node.func
            yield at(
                call,
                "name-missing-in-script",
                sentence,
                kind="attribute",
                name=last,
                meant=meant,
                value_span=place(call.source, func),
            )
            return


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _unseen(facts: ScriptFacts, function: ast.AST) -> bool:
    """Whether a failure in this function is only seen in an exit code that nothing reads."""
    if any("exitcode" in source.text for source in facts.project.read()):
        return False
    return any(
        gang.process.via == "process"
        and gang.process.function is not None
        and gang.process.function.node is function
        for gang in facts.gangs
    )


def statement_for(name: str) -> str:
    """The import that gives this name what it nearly always means."""
    full = ALIASES.get(name, "")
    if full == name:
        return f"import {name}"
    start, _, last = full.rpartition(".")
    if last == name:
        return f"from {start} import {name}"
    return f"import {full} as {name}"


def shadowed(facts: ScriptFacts) -> Iterator[Finding]:
    plan = facts.target.plan
    if plan is not None and (
        plan.environment(facts.target.env).get("PYTHONSAFEPATH") or "-P" in plan.words[:3]
    ):
        return
    for path in shadows(facts.source.path.parent, set(facts.imports)):
        if "site-packages" in path.parts:
            continue
        sentence = (
            f"{path.name} beside the script is found before the module {path.stem} that "
            "torch or the script imports; rename it"
        )
        evidence = Evidence(str(path), (), ("ls", str(path.parent)))
        data = {
            "file": str(path),
            "name": path.stem,
            "folder": str(path.parent),
            "where": path.name,
            "line": 1,
        }
        yield Finding("script", "module-shadowed", sentence, data, (evidence,))


def masked(facts: ScriptFacts) -> Iterator[Finding]:
    """An error that is swallowed, after which another one is shown."""
    for call in facts.calls("torch.distributed.destroy_process_group"):
        for statement in _tries(facts):
            if not _in(call, statement.finalbody) or call.depends("initialized"):
                continue
            begins = [c for c in facts.calls(INIT) if _in(c, statement.body)]
            swallows = [h for h in statement.handlers if _swallows(h)]
            if begins and swallows:
                sentence = (
                    "destroy_process_group runs in finally even where init_process_group failed, "
                    "and the handler above swallows "
                    "that error: what is shown is a later one"
                )
                handler = swallows[0]
                yield at(
                    call,
                    "error-masked",
                    sentence,
                    handler=place(call.source, handler),
                    init=place(call.source, _inside(begins[0], statement.body)),
                    try_span=place(call.source, statement),
                )
                return
    for call in facts.calls(INIT):
        for statement in call.tries:
            handlers = [h for h in statement.handlers if _silent(h)]
            if handlers and not call.looped and not call.stray:
                needs = _goes_on(facts, call)
                if needs is not None:
                    sentence = (
                        "the error of init_process_group is swallowed here, and "
                        f"{needs.name.rpartition('.')[2]} in "
                        f"{needs.source.where(getattr(needs.node, 'lineno', 1))} goes on without "
                        "a group: what is shown is its error, not the first one"
                    )
                    init = place(call.source, call.node)
                    where = {"init": init, "try_span": place(call.source, statement)}
                    silent = place(call.source, handlers[0].body[0])
                    yield spot(
                        "error-masked", sentence, call.source, handlers[0],
                        silent=silent, **where,
                    )  # fmt: skip
                    return
                sentence = (
                    "the error of init_process_group is swallowed here, so that a later "
                    "and other one is shown"
                )
                yield spot("error-masked-maybe", sentence, call.source, handlers[0])
                return


def _goes_on(facts: ScriptFacts, begun: Call) -> Call | None:
    """What surely needs the group after a start whose failure is not told to anybody."""
    for gang in facts.gangs:
        stream = gang.streams[0]
        if begun in stream:
            for call in stream[stream.index(begun) + 1 :]:
                plain = not (call.stray or call.handler or call.tests or call.tries or call.path)
                if plain and needs_group(call):
                    return call
    return None


def _tries(facts: ScriptFacts) -> list[ast.Try]:
    trees = [s.tree for s in facts.project.read() if s.tree is not None and "try" in s.text]
    return [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Try)]


def _in(call: Call, body: list[ast.stmt]) -> bool:
    """Whether something happens in these statements, or in what they call."""
    places = {id(call.node), *(id(node) for node in call.stack)}
    return any(id(node) in places for part in body for node in ast.walk(part))


def _inside(call: Call, body: list[ast.stmt]) -> ast.AST:
    """The call itself, or the one in these statements that leads to it."""
    nodes = {id(node) for part in body for node in ast.walk(part)}
    return next((n for n in (call.node, *call.stack) if id(n) in nodes), call.node)


def _swallows(handler: ast.ExceptHandler) -> bool:
    """Whether some way through the handler neither raises nor leaves."""
    return not _leaves(handler.body)


def _leaves(body: list[ast.stmt]) -> bool:
    for statement in body:
        if isinstance(statement, ast.Raise | ast.Return | ast.Continue | ast.Break):
            return True
        if (
            isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Call)
            and re.search(r"exit|abort|_exit", ast.unparse(statement.value.func))
        ):
            return True
        if (
            isinstance(statement, ast.If)
            and statement.orelse
            and _leaves(statement.body)
            and _leaves(statement.orelse)
        ):
            return True
    return False


def _silent(handler: ast.ExceptHandler) -> bool:
    return all(isinstance(s, ast.Pass) for s in handler.body)


def local_rank(facts: ScriptFacts) -> Iterator[Finding]:
    """--local_rank demanded or refused, against what the launcher passes."""
    options = [o for o in facts.options if o.dest == "local_rank"]
    parsed = facts.ending(".parse_args")
    given = facts.target.plan.script_args if facts.target.plan else ()
    if any(re.match(r"--local[-_]rank", word) for word in given):
        return
    for option in options:
        if option.required and facts.launcher in (
            "torchrun",
            "torch.distributed.run",
            "accelerate",
            "python",
            "srun",
        ):
            sentence = (
                f"{option.names[0]} is demanded, but {facts.launcher} does not pass it: "
                "LOCAL_RANK comes in the environment"
            )
            yield at(
                option.call,
                "local-rank-argument",
                sentence,
                **_option_data(facts, option.call, option.names),
            )
            return
        if option.required and facts.target.plan is None:
            sentence = f"{option.names[0]} is demanded; torchrun does not pass it"
            yield at(
                option.call,
                "local-rank-argument-maybe",
                sentence,
                **_option_data(facts, option.call, option.names),
            )
            return
    spelling = {"torch.distributed.launch": "--local-rank", "deepspeed": "--local_rank"}.get(
        facts.launcher or ""
    )
    if (
        spelling is None
        or not parsed
        or facts.launcher == "deepspeed"
        and "no_local_rank" in str(facts.target.plan.words if facts.target.plan else "")
    ):
        return
    if facts.target.plan is not None and facts.target.plan.option("use-env") is not None:
        return
    names = {n for o in options for n in o.names}
    if spelling in names or not facts.calls("argparse.ArgumentParser", "ArgumentParser"):
        return
    if facts.launcher == "deepspeed" and any("transformers" in i for i in facts.imports):
        return
    call = options[0].call if options else parsed[0]
    sentence = f"{facts.launcher} passes {spelling}=N, which this parser does not know and refuses"
    yield at(
        call,
        "local-rank-argument",
        sentence,
        spelling=spelling,
        known=sorted(names),
        kind="refused",
    )


def _option_data(facts: ScriptFacts, call: Call, names: tuple[str, ...]) -> dict[str, object]:
    node = next((k for k in getattr(call.node, "keywords", []) if k.arg == "required"), None)
    return {
        "kind": "required",
        "names": list(names),
        "required_span": place(call.source, node) if node is not None else None,
        "has_default": call.get("default") is not None,
    }


def framework(facts: ScriptFacts) -> Iterator[Finding]:
    """A framework that needs its launcher, started with plain python."""
    if facts.launcher != "python" or facts.starts_children or "RANK" in facts.environment:
        return
    if any(name.startswith(("SLURM_PROCID", "OMPI_", "PMI_")) for name in facts.environment):
        return
    if "deepspeed" in facts.imports and "torch.distributed.init_process_group" not in {
        c.name for c in facts.main.calls
    }:
        for call in facts.calls("deepspeed.initialize", "deepspeed.init_distributed", stray=False):
            sentence = (
                "DeepSpeed makes its process group from the variables its launcher sets; "
                "plain python sets none: start it with deepspeed or torchrun"
            )
            yield at(call, "framework-not-distributed", sentence, framework="deepspeed")
            return
    makers = {"accelerate": "accelerate launch", "transformers": "torchrun"}
    for name, launcher in makers.items():
        if name not in facts.imports or any(c.name == INIT for c in facts.main.calls):
            continue
        for call in facts.main.streams[0]:
            start, _, last = call.name.rpartition(".")
            if (
                start == "torch.distributed"
                and last
                in (
                    "barrier",
                    "all_reduce",
                    "get_rank",
                    "get_world_size",
                    "broadcast",
                    "all_gather",
                )
                and not call.tests
                and not call.stray
                and not call.tries
            ):
                sentence = (
                    f"{last} needs a process group, which {name} only makes under its "
                    f"launcher; start it with {launcher}"
                )
                yield at(call, "framework-not-distributed", sentence, framework=name)
                return


CHECKS = (syntax, names, shadowed, masked, local_rank, framework)
__all__ = ["CHECKS", "SETTERS", "statement_for"]
