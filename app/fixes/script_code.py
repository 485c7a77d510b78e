"""Cures of plain Python mistakes."""

from __future__ import annotations

import ast
import re

from ddp_assist.app.fixes.script_draft import Cure, Draft, NoEdit, NotMine
from ddp_assist.app.fixes.script_meeting import leave_port
from ddp_assist.app.fixes.script_text import Text, append_argument, stored_in


def imports(draft: Draft) -> None:
    found = [f for f in draft.alike if f.data.get("kind") == "name"]
    if draft.data.get("kind") == "attribute":
        text, place = draft.text, draft.data["value_span"]
        end, name, meant = place[2:], draft.data["name"], draft.data["meant"]
        if text.get(place) == name:
            _renamed(text, name, meant)
            for node in ast.walk(text.source.tree or ast.Pass()):
                if isinstance(node, ast.alias) and node.name == name and not node.asname:
                    text.replace(text.place(node), meant)
            return
        text.replace([end[0], end[1] - len(name), *end], meant)
        return
    if draft.data.get("kind") == "name.unbound":
        _global(draft)
        return
    if draft.data.get("kind") == "name.guarded":
        _import_for_all(draft)
        return
    if draft.data.get("kind") == "name.early":
        _to_the_end(draft)
        return
    if draft.data.get("kind") != "name":
        raise NotMine
    if not all(f.data.get("add") or f.data.get("meant") for f in found):
        raise NoEdit
    for finding in found:
        if finding.data.get("add"):
            draft.text.add_import(str(finding.data["add"]))
        else:
            _renamed(draft.text, str(finding.data["name"]), str(finding.data["meant"]))


def _renamed(text: Text, name: str, meant: str) -> None:
    """Every use of a name that nothing defines, as the name that is there."""
    for node in ast.walk(text.source.tree or ast.Pass()):
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
            text.replace(text.place(node), meant)


def _import_for_all(draft: Draft) -> None:
    """An import under the main guard is one of the module, so that spawned children have it."""
    text, name = draft.text, draft.data["name"]
    for node in ast.walk(text.source.tree or ast.Pass()):
        if isinstance(node, ast.Import | ast.ImportFrom) and stored_in(node) == {name}:
            code = text.source.code(node)
            text.delete_lines(node.lineno, node.end_lineno or node.lineno)
            text.add_import(code, anyway=True)
            return
    raise NoEdit


def _to_the_end(draft: Draft) -> None:
    """A call at the level of the module, behind everything that it needs."""
    text, line = draft.text, draft.place[0]
    body = text.source.tree.body if text.source.tree is not None else []
    statement = next((s for s in body if s.lineno <= line <= (s.end_lineno or 0)), None)
    if not isinstance(statement, ast.Expr) or statement is body[-1]:
        raise NoEdit
    rows = text.source.lines[statement.lineno - 1 : statement.end_lineno]
    text.delete_lines(statement.lineno, statement.end_lineno or statement.lineno)
    text.insert((body[-1].end_lineno or 0) + 1, *rows)


def one_character(draft: Draft) -> None:
    """A colon, a bracket or the brackets of print, where that makes Python read the file."""
    text, line, told = draft.text, draft.place[0], str(draft.data.get("told"))
    row = text.source.line(line)
    code = row.split(" #")[0].rstrip()
    if told == "expected ':'":
        right = code + ":" + row[len(code) :]
    elif told.startswith(("'(' was never closed", "'[' was never closed")):
        right = code + {"(": ")", "[": "]"}[told[1]] + row[len(code) :]
    elif told.startswith("Missing parentheses in call to 'print'"):
        found = re.fullmatch(r"(\s*)print\s+(.+)", code)
        if found is None:
            raise NoEdit
        right = f"{found[1]}print({found[2]}){row[len(code) :]}"
    else:
        raise NotMine
    text.replace([line, 0, line, len(row)], right)


def _global(draft: Draft) -> None:
    """`global NAME` as the first line of the function that changes it."""
    text, line = draft.text, draft.place[0]
    if not any(
        isinstance(t, ast.Name) and t.id == draft.data["name"]
        for s in (text.source.tree.body if text.source.tree is not None else [])
        if isinstance(s, ast.Assign)
        for t in s.targets
    ):
        raise NoEdit
    around = [
        n
        for n in ast.walk(text.source.tree or ast.Pass())
        if isinstance(n, ast.FunctionDef) and n.lineno < line <= (n.end_lineno or 0)
    ]
    first = max(around, key=lambda n: n.lineno).body[0]
    text.insert(first.lineno, f"{text.indentation(first.lineno)}global {draft.data['name']}")


def empty_body(draft: Draft) -> None:
    header = draft.data.get("header")
    if not isinstance(header, int):
        raise NotMine
    text = draft.text
    tab = "\t" if text.indentation(header).startswith("\t") else "    "
    at = header + 1
    while text.source.line(at).strip().startswith("#"):
        at += 1
    text.insert(at, f"{text.indentation(header)}{tab}pass")


def show_error(draft: Draft) -> None:
    """init_process_group in front of the try, so that its own error is what is seen."""
    text = draft.text
    statement = text.node_at(draft.data["try_span"], ast.Try)
    if not isinstance(statement, ast.Try):
        raise NoEdit
    if draft.data.get("silent"):
        text.replace(draft.data["silent"], "raise")
        return
    first = statement.body[0]
    if (
        not first.lineno <= draft.data["init"][0] <= (first.end_lineno or 0)
        or len(statement.body) < 2
    ):
        raise NoEdit
    own = len(text.indentation(first.lineno))
    outer = text.indentation(statement.lineno)
    rows = text.source.lines[first.lineno - 1 : first.end_lineno]
    text.insert(statement.lineno, *(outer + row[own:] for row in rows))
    text.delete_lines(first.lineno, first.end_lineno or first.lineno)
    held = next((f for f in draft.situation.findings if f.key.startswith("port.held")), None)
    if held is not None:
        leave_port(text, held.data.get("port"))


def from_env(draft: Draft) -> None:
    text, data = draft.text, draft.data
    if data.get("kind") == "refused":
        call = draft.call
        if not any("local" in name for name in data["known"]):
            statement = text.statement_at(call.lineno)
            if not isinstance(call.func, ast.Attribute) or statement is None:
                raise NoEdit
            parser = text.source.code(call.func.value)
            option = f'{parser}.add_argument("{data["spelling"]}", type=int, default=-1)'
            text.insert(statement.lineno, text.indentation(statement.lineno) + option)
            return
        start = text.place(call.args[0])[:2]
        text.replace([*start, *start], f'"{data["spelling"]}", ')
        return
    place = data.get("required_span")
    names = data.get("names") or [""]
    if place is None and not names[0].startswith("-") and not data.get("has_default"):
        text.add_import("import os")
        append_argument(text, draft.call, 'nargs="?", default=int(os.environ["LOCAL_RANK"])')
        return
    if place is None or data.get("has_default"):
        raise NoEdit
    text.add_import("import os")
    text.replace(place, 'default=int(os.environ["LOCAL_RANK"])')


def as_module(draft: Draft) -> None:
    """Which package it is, and from where it must be started, is not ours to guess."""
    raise NoEdit if draft.data.get("kind") == "import.relative" else NotMine


CURES = {
    "run-as-module": Cure(
        "start it as a module of its package",
        ("torchrun ... -m PACKAGE.NAME (or python -m) from the folder above the package",),
        as_module,
        ("name-missing-in-script",),
    ),
    "add-import": Cure(
        "the missing import",
        ("define or import the name before it is used",),
        imports,
        ("name-missing-in-script", "error-masked"),
    ),
    "fill-empty-body": Cure(
        "a body for the empty block",
        ("a block that has nothing to do needs `pass`",),
        empty_body,
        ("name-missing-in-script",),
    ),
    "one-character": Cure(
        "the character that Python misses",
        ("put the missing character where Python points",),
        one_character,
        ("name-missing-in-script",),
    ),
    "rename-shadowing-file": Cure(
        "another name for the file",
        ("rename the file (and what imports it), and remove its __pycache__",),
        None,
        ("module-shadowed",),
    ),
    "show-the-error": Cure(
        "the first error stays visible",
        (
            "make the process group in front of the try, and destroy it only where it exists: if "
            "dist.is_initialized()",
            "let a handler raise again what it does not cure",
        ),
        show_error,
        ("error-masked",),
        "the error that was hidden stays, and is now shown",
    ),
    "join-and-check-exitcode": Cure(
        "a job that fails when a worker fails",
        (
            "after join(): sys.exit(max(abs(p.exitcode) for "
            "p in workers)), or start the workers with "
            "mp.spawn",
        ),
        None,
        ("error-masked",),
    ),
    "local-rank-from-env": Cure(
        "LOCAL_RANK from the environment",
        ('make the option optional: default=int(os.environ["LOCAL_RANK"])',),
        from_env,
        ("local-rank-argument",),
    ),
}
